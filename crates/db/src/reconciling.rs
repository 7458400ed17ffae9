//! What has to be compared with what providers say, and what they still have to be told.
use crate::{billing::Cancellation, billing::Subscription, prelude::*};

sql! {
    /// A provider's subscriptions that have not ended, by id, after `after`.
    pub fn open_subscriptions(db: &Db, provider: &str, mode: &str, after: &str, limit: i64) -> Vec<Subscription> {
        "select {columns} from billing_subscriptions
         where provider = $provider and mode = $mode and external_id > $after
           and status not in ('canceled', 'incomplete_expired', 'expired')
         order by external_id limit $limit"
    }

    /// One subscription, as it stands.
    pub fn subscription(db: &Db, provider: &str, mode: &str, external_id: &str) -> Option<Subscription> {
        "select {columns} from billing_subscriptions
         where provider = $provider and mode = $mode and external_id = $external_id"
    }

    /// What a user has of a provider, in a transaction that changes it.
    pub fn subscriptions_of(tx: &mut Tx, provider: &str, user: Uuid) -> Vec<Subscription> {
        "select {columns} from billing_subscriptions where user_id = $user and provider = $provider order by mode, external_id"
    }

    /// Users of whom something of this source ends, or ended, in a while, by id, after `after`.
    pub fn users_with_ends(db: &Db, source: &str, from: Timestamp, to: Timestamp, after: Uuid, limit: i64) -> Vec<(Uuid,)> {
        "select distinct user_id from entitlement_grants
         where source = $source and ends_at >= $from and ends_at <= $to and user_id > $after
         order by user_id limit $limit"
    }

    /// Users of whom something of this source ends then, later or never, by id, after `after`.
    pub fn users_of_source(db: &Db, source: &str, since: Timestamp, after: Uuid, limit: i64) -> Vec<(Uuid,)> {
        "select distinct user_id from entitlement_grants
         where source = $source and (ends_at is null or ends_at >= $since) and user_id > $after
         order by user_id limit $limit"
    }

    /// What a provider was not told yet, oldest first.
    pub fn cancellations(db: &Db, provider: &str, mode: &str, limit: i64) -> Vec<Cancellation> {
        "select {columns} from billing_cancellations
         where provider = $provider and mode = $mode and done_at is null order by requested_at limit $limit"
    }

    /// It was told.
    pub fn cancelled(tx: &mut Tx, provider: &str, mode: &str, external_id: &str, now: Timestamp) {
        "update billing_cancellations set done_at = $now
         where provider = $provider and mode = $mode and external_id = $external_id and done_at is null"
    }

    fn cursor(db: &Db, name: &str) -> Option<(Timestamp,)> {
        "select read_to from billing_cursors where name = $name"
    }

    /// Notes that everything up to `at` was read.
    pub fn move_cursor(tx: &mut Tx, name: &str, at: Timestamp) {
        "insert into billing_cursors (name, read_to) values ($name, $at)
         on conflict (name) do update set read_to = excluded.read_to
         where billing_cursors.read_to < excluded.read_to"
    }
}

/// Up to when everything was read; `None` when nothing was.
pub async fn read_to(db: &Db, name: &str) -> Result<Option<Timestamp>> {
    Ok(cursor(db, name).await?.map(|(at,)| at))
}
