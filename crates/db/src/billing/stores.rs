//! Users as RevenueCat knows them, what moves between them, and what consumables are worth.
use crate::prelude::*;

row! {
    /// Purchases of one user that are another's from then on.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Transfer {
        pub to_user: Option<Uuid>,
        pub to_name: String,
        pub at: Timestamp,
    }
}

row! {
    /// How much a user has of a virtual currency.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Balance {
        pub currency: String,
        pub amount: i64,
    }
}

row! {
    /// One change of a balance.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Credit {
        /// Names the transaction.
        pub id: String,
        pub currency: String,
        pub amount: i64,
        pub created_at: Timestamp,
    }
}

sql! {
    /// Whose name this is.
    pub fn user_of_name(tx: &mut Tx, name: &str) -> Option<(Uuid,)> {
        "select user_id from billing_identities where app_user_id = $name"
    }

    /// A user's names.
    pub fn names_of_user(db: &Db, user: Uuid) -> Vec<(String,)> {
        "select app_user_id from billing_identities where user_id = $user order by app_user_id"
    }

    /// Says whose name it is, once and for all. `false` when it is known.
    pub fn link_name(tx: &mut Tx, name: &str, user: Uuid, now: Timestamp) -> bool {
        "insert into billing_identities (app_user_id, user_id, created_at) values ($name, $user, $now)
         on conflict (app_user_id) do nothing"
    }

    /// Has an event wait until a name is somebody's.
    pub fn wait_for_name(tx: &mut Tx, name: &str, event: Uuid) {
        "insert into billing_unlinked (name, event) values ($name, $event) on conflict do nothing"
    }

    /// The events that wait for a name, oldest first.
    pub fn waiting_for_name(tx: &mut Tx, name: &str) -> Vec<(Uuid,)> {
        "select event from billing_unlinked where name = $name order by event"
    }

    /// It waits no more.
    pub fn stop_waiting(tx: &mut Tx, event: Uuid) {
        "delete from billing_unlinked where event = $event"
    }

    /// A user's purchases in the stores of one mode.
    pub fn purchases_of_user(tx: &mut Tx, mode: &str, user: Uuid) -> Vec<crate::billing::Subscription> {
        "select {columns} from billing_subscriptions
         where user_id = $user and provider = 'revenuecat' and mode = $mode order by external_id"
    }

    /// Remembers that what `from` bought until `at` is another's.
    pub fn transfer(
        tx: &mut Tx, event: &str, mode: &str, from: Uuid, to: Option<Uuid>, to_name: &str, stores: Option<&str>,
        at: Timestamp,
    ) {
        "insert into billing_transfers (event, mode, from_user, to_user, to_name, stores, at)
         values ($event, $mode, $from, $to, $to_name, $stores, $at)
         on conflict (event, from_user) do update set to_user = excluded.to_user"
    }

    /// The first time after which what a user bought in these stores was another's.
    pub fn next_transfer(tx: &mut Tx, mode: &str, from: Uuid, stores: &str, since: Timestamp) -> Option<Transfer> {
        "select {columns} from billing_transfers
         where from_user = $from and mode = $mode and at >= $since and (stores is null or stores = $stores)
         order by at limit 1"
    }

    /// Changes a balance, once for each `id`. `false` when it was.
    pub fn credit(tx: &mut Tx, id: &str, user: Uuid, currency: &str, amount: i64, now: Timestamp) -> bool {
        "insert into billing_credits (id, user_id, currency, amount, created_at)
         values ($id, $user, $currency, $amount, $now) on conflict (id) do nothing"
    }

    /// What a user has of each virtual currency.
    pub fn balances(db: &Db, user: Uuid) -> Vec<Balance> {
        "select currency, {postgres: cast(sum(amount) as bigint)}{sqlite: sum(amount)} as amount
         from billing_credits where user_id = $user group by currency order by currency"
    }

    /// Every change of a user's balances, oldest first.
    pub fn credits(db: &Db, user: Uuid) -> Vec<Credit> {
        "select {columns} from billing_credits where user_id = $user order by created_at, id"
    }
}
