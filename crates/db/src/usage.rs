//! What is used of a quota, and what was spent.
use crate::prelude::*;

row! {
    /// One metric in one period.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Window {
        pub metric: String,
        pub used: i64,
        pub reserved: i64,
    }
}

row! {
    /// What a period cost.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Spent {
        pub input_tokens: i64,
        pub output_tokens: i64,
        pub cost_microusd: i64,
    }
}

row! {
    /// What one generation cost.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Charge {
        pub generation_id: Uuid,
        pub provider: String,
        pub model: String,
        pub input_tokens: i64,
        pub output_tokens: i64,
        pub cost_microusd: i64,
        pub created_at: Timestamp,
    }
}

row! {
    /// One metric in the period that began then.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct DatedWindow {
        pub metric: String,
        pub window_start: Timestamp,
        pub used: i64,
        pub reserved: i64,
    }
}

sql! {
    /// Sets `amount` aside. `false`, and nothing changed, when that would pass `limit`; holds under any concurrency.
    pub fn reserve(tx: &mut Tx, subject: &str, metric: &str, window_start: Timestamp, amount: i64, limit: i64) -> bool {
        "insert into quota_windows (subject, metric, window_start, used, reserved)
         select $subject, $metric, $window_start, 0, $amount where $amount <= $limit
         on conflict (subject, metric, window_start) do update
         set reserved = quota_windows.reserved + excluded.reserved
         where quota_windows.used + quota_windows.reserved + excluded.reserved <= $limit"
    }

    /// Turns a reservation into what was really used.
    pub fn settle(tx: &mut Tx, subject: &str, metric: &str, window_start: Timestamp, reserved: i64, used: i64) {
        "update quota_windows set reserved = reserved - $reserved, used = used + $used
         where subject = $subject and metric = $metric and window_start = $window_start"
    }

    fn taken(tx: &mut Tx, subject: &str, metric: &str, window_start: Timestamp) -> Option<(i64, i64)> {
        "select used, reserved from quota_windows
         where subject = $subject and metric = $metric and window_start = $window_start {postgres: for update}"
    }

    /// A subject's metrics of one period.
    pub fn windows(db: &Db, subject: &str, window_start: Timestamp) -> Vec<Window> {
        "select {columns} from quota_windows where subject = $subject and window_start = $window_start order by metric"
    }

    /// A subject's metrics of every period, oldest first.
    pub fn windows_of_subject(db: &Db, subject: &str) -> Vec<DatedWindow> {
        "select {columns} from quota_windows where subject = $subject order by metric, window_start"
    }

    /// One page of what a user's generations cost, oldest first, after this one.
    pub fn charges_of_user(db: &Db, user: Uuid, after: Timestamp, after_id: Uuid, limit: i64) -> Vec<Charge> {
        "select {columns} from usage_ledger
         where user_id = $user and (created_at, generation_id) > ($after, $after_id)
         order by created_at, generation_id limit $limit"
    }

    /// What one generation cost.
    pub fn charged(db: &Db, generation: Uuid) -> Option<Charge> {
        "select {columns} from usage_ledger where generation_id = $generation"
    }

    /// Forgets how much a subject used; the ledger keeps what it cost.
    pub fn forget(tx: &mut Tx, subject: &str) -> u64 {
        "delete from quota_windows where subject = $subject"
    }

    /// Writes what one generation cost. `false` when it is written: nothing is ever charged twice.
    pub fn charge(
        tx: &mut Tx, generation: Uuid, user: Uuid, provider: &str, model: &str, input_tokens: i64, output_tokens: i64,
        cost_microusd: i64, usage_source: &str, now: Timestamp,
    ) -> bool {
        "insert into usage_ledger (generation_id, user_id, provider, model, input_tokens, output_tokens, cost_microusd,
                                   usage_source, created_at)
         values ($generation, $user, $provider, $model, $input_tokens, $output_tokens, $cost_microusd, $usage_source, $now)
         on conflict (generation_id) do nothing"
    }

    /// Writes what the house asked a model for. `false` when it is written.
    pub fn charge_nobody(
        tx: &mut Tx, id: Uuid, provider: &str, model: &str, input_tokens: i64, output_tokens: i64, cost_microusd: i64,
        usage_source: &str, now: Timestamp,
    ) -> bool {
        "insert into usage_ledger (generation_id, provider, model, input_tokens, output_tokens, cost_microusd,
                                   usage_source, created_at)
         values ($id, $provider, $model, $input_tokens, $output_tokens, $cost_microusd, $usage_source, $now)
         on conflict (generation_id) do nothing"
    }

    /// What a user's generations since `since` cost.
    pub fn spent(db: &Db, user: Uuid, since: Timestamp) -> Spent {
        "select cast(coalesce(sum(input_tokens), 0) as bigint) as input_tokens,
                cast(coalesce(sum(output_tokens), 0) as bigint) as output_tokens,
                cast(coalesce(sum(cost_microusd), 0) as bigint) as cost_microusd
         from usage_ledger where user_id = $user and created_at >= $since"
    }
}

/// How much of `limit` is neither used nor set aside, held against others until the transaction ends.
pub async fn left(
    tx: &mut Tx,
    subject: &str,
    metric: &str,
    window_start: Timestamp,
    limit: i64,
) -> Result<i64> {
    let (used, reserved) = taken(tx, subject, metric, window_start)
        .await?
        .unwrap_or_default();
    Ok(limit - used - reserved)
}
