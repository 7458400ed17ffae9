//! What is used of a quota, and what was spent.
use crate::prelude::*;

/// Messages, tokens and micro-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Amount {
    pub messages: i64,
    pub tokens: i64,
    pub microusd: i64,
}

row! {
    /// What a subject used in the period that began then, and what is set aside for answers being made.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Window {
        /// Empty: all of them together.
        pub model: String,
        pub window_start: Timestamp,
        pub messages_used: i64,
        pub messages_reserved: i64,
        pub tokens_used: i64,
        pub tokens_reserved: i64,
        pub cost_used: i64,
        pub cost_reserved: i64,
    }
}

impl Window {
    /// What was used.
    pub fn used(&self) -> Amount {
        Amount {
            messages: self.messages_used,
            tokens: self.tokens_used,
            microusd: self.cost_used,
        }
    }

    /// What is set aside.
    pub fn reserved(&self) -> Amount {
        Amount {
            messages: self.messages_reserved,
            tokens: self.tokens_reserved,
            microusd: self.cost_reserved,
        }
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
        pub price_id: Option<Uuid>,
        pub input_tokens: i64,
        pub cached_tokens: i64,
        pub output_tokens: i64,
        pub reasoning_tokens: i64,
        pub cost_microusd: i64,
        /// `provider`, `estimated`, `maybe_billed` or `none`.
        pub usage_source: String,
        pub created_at: Timestamp,
    }
}

row! {
    /// What is charged under one key: a day, a model, a user, who may be gone.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Sum {
        pub key: Option<String>,
        /// Of which something came.
        pub answers: i64,
        pub input_tokens: i64,
        pub cached_tokens: i64,
        pub output_tokens: i64,
        pub reasoning_tokens: i64,
        pub cost_microusd: i64,
        /// Of the cost, what providers may have billed without a word.
        pub maybe_microusd: i64,
    }
}

sql! {
    /// The window, if there is one, held against others until the transaction ends.
    pub fn held(tx: &mut Tx, subject: &str, model: &str, window_start: Timestamp) -> Option<Window> {
        "select {columns} from quota_windows
         where subject = $subject and model = $model and window_start = $window_start {postgres: for update}"
    }

    fn add(
        tx: &mut Tx, subject: &str, model: &str, window_start: Timestamp, messages: i64, tokens: i64, microusd: i64,
    ) {
        "insert into quota_windows (subject, model, window_start, messages_used, messages_reserved, tokens_used,
                                    tokens_reserved, cost_used, cost_reserved)
         values ($subject, $model, $window_start, $messages, 0, $tokens, 0, $microusd, 0)
         on conflict (subject, model, window_start) do nothing"
    }

    fn reserve_in(
        tx: &mut Tx, subject: &str, model: &str, window_start: Timestamp, messages: i64, tokens: i64, microusd: i64,
    ) {
        "update quota_windows set messages_reserved = messages_reserved + $messages,
             tokens_reserved = tokens_reserved + $tokens, cost_reserved = cost_reserved + $microusd
         where subject = $subject and model = $model and window_start = $window_start"
    }

    fn settle_in(
        tx: &mut Tx, subject: &str, model: &str, window_start: Timestamp, messages: i64, tokens: i64, microusd: i64,
        used_messages: i64, used_tokens: i64, used_microusd: i64,
    ) {
        "update quota_windows set
             messages_reserved = messages_reserved - $messages, messages_used = messages_used + $used_messages,
             tokens_reserved = tokens_reserved - $tokens, tokens_used = tokens_used + $used_tokens,
             cost_reserved = cost_reserved - $microusd, cost_used = cost_used + $used_microusd
         where subject = $subject and model = $model and window_start = $window_start"
    }

    fn begin_with(
        tx: &mut Tx, subject: &str, window_start: Timestamp, messages: i64, tokens: i64, microusd: i64, used_microusd: i64,
    ) {
        "update quota_windows set messages_reserved = $messages, tokens_reserved = $tokens, cost_reserved = $microusd,
             cost_used = $used_microusd
         where subject = $subject and model = '' and window_start = $window_start"
    }

    /// A subject's windows of one period, that of all models first.
    pub fn windows(db: &Db, subject: &str, window_start: Timestamp) -> Vec<Window> {
        "select {columns} from quota_windows where subject = $subject and window_start = $window_start order by model"
    }

    /// A subject's windows of every period, oldest first.
    pub fn windows_of_subject(db: &Db, subject: &str) -> Vec<Window> {
        "select {columns} from quota_windows where subject = $subject order by window_start, model"
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

    /// Writes what one generation cost; without a user, it is the house that asked. `false` when it is written: nothing is ever charged twice.
    pub fn charge(
        tx: &mut Tx, generation: Uuid, user: Option<Uuid>, provider: &str, model: &str, price: Option<Uuid>, input_tokens: i64,
        cached_tokens: i64, output_tokens: i64, reasoning_tokens: i64, cost_microusd: i64, usage_source: &str,
        now: Timestamp,
    ) -> bool {
        "insert into usage_ledger (generation_id, user_id, provider, model, price_id, input_tokens, cached_tokens,
                                   output_tokens, reasoning_tokens, cost_microusd, usage_source, created_at)
         values ($generation, $user, $provider, $model, $price, $input_tokens, $cached_tokens, $output_tokens,
                 $reasoning_tokens, $cost_microusd, $usage_source, $now)
         on conflict (generation_id) do nothing"
    }

    /// What a user's generations since `since` cost the user.
    pub fn spent(db: &Db, user: Uuid, since: Timestamp) -> Spent {
        "select cast(coalesce(sum(input_tokens), 0) as bigint) as input_tokens,
                cast(coalesce(sum(output_tokens), 0) as bigint) as output_tokens,
                cast(coalesce(sum(cost_microusd), 0) as bigint) as cost_microusd
         from usage_ledger where user_id = $user and created_at >= $since and usage_source <> 'maybe_billed'"
    }

    /// The same, a model.
    pub fn spent_by_model(db: &Db, user: Uuid, since: Timestamp) -> Vec<Sum> {
        "select model as key, count(*) as answers,
                cast(sum(input_tokens) as bigint) as input_tokens, cast(sum(cached_tokens) as bigint) as cached_tokens,
                cast(sum(output_tokens) as bigint) as output_tokens,
                cast(sum(reasoning_tokens) as bigint) as reasoning_tokens,
                cast(sum(cost_microusd) as bigint) as cost_microusd, cast(0 as bigint) as maybe_microusd
         from usage_ledger
         where user_id = $user and created_at >= $since and usage_source in ('provider', 'estimated')
         group by model order by model"
    }

    fn used_of_model(tx: &mut Tx, user: Uuid, model: &str, since: Timestamp) -> One<(i64, i64, i64)> {
        "select count(*), cast(coalesce(sum(input_tokens + output_tokens), 0) as bigint),
                cast(coalesce(sum(cost_microusd), 0) as bigint)
         from usage_ledger
         where user_id = $user and model = $model and created_at >= $since and usage_source in ('provider', 'estimated')"
    }

    /// What everyone's generations since `since` cost, in micro-dollars.
    pub fn spent_by_all(db: &Db, since: Timestamp) -> One<(i64,)> {
        "select cast(coalesce(sum(cost_microusd), 0) as bigint) from usage_ledger where created_at >= $since"
    }

    fn spent_by_all_now(tx: &mut Tx, since: Timestamp) -> One<(i64,)> {
        "select cast(coalesce(sum(cost_microusd), 0) as bigint) from usage_ledger where created_at >= $since"
    }

    fn reserved_by_all(tx: &mut Tx, since: Timestamp) -> One<(i64, i64, i64)> {
        "select count(*), cast(coalesce(sum(reserved_tokens), 0) as bigint),
                cast(coalesce(sum(reserved_microusd), 0) as bigint)
         from generations where finished_at is null and in_budget and created_at >= $since"
    }

    fn put_in_budget(tx: &mut Tx, since: Timestamp) {
        "update generations set in_budget = true where finished_at is null and not in_budget and created_at >= $since"
    }

    /// What was charged from `from` to before `to`: by `day` in UTC, oldest first, or by `model` or `user`,
    /// dearest first. Users who are gone are one, without a key.
    pub fn sums(db: &Db, by: &str, from: Timestamp, to: Timestamp, limit: i64) -> Vec<Sum> {
        "select case $by
                    when 'day' then {postgres: to_char(created_at at time zone 'UTC', 'YYYY-MM-DD')}
                                    {sqlite: strftime('%Y-%m-%d', created_at / 1000000, 'unixepoch')}
                    when 'model' then model
                    when 'user' then {postgres: cast(user_id as text)}
                                     {sqlite: case when user_id is not null then lower(hex(user_id)) end}
                end as key,
                cast(sum(case when usage_source in ('provider', 'estimated') then 1 else 0 end) as bigint) as answers,
                cast(sum(input_tokens) as bigint) as input_tokens, cast(sum(cached_tokens) as bigint) as cached_tokens,
                cast(sum(output_tokens) as bigint) as output_tokens,
                cast(sum(reasoning_tokens) as bigint) as reasoning_tokens,
                cast(sum(cost_microusd) as bigint) as cost_microusd,
                cast(sum(case when usage_source = 'maybe_billed' then cost_microusd else 0 end) as bigint) as maybe_microusd
         from usage_ledger where created_at >= $from and created_at < $to
         group by 1 order by case $by when 'day' then min(created_at) end, cost_microusd desc, key limit $limit"
    }
}

/// Opens a window in which so much was used before, unless it is open, and holds it.
pub async fn open(
    tx: &mut Tx,
    subject: &str,
    model: &str,
    window_start: Timestamp,
    used: Amount,
) -> Result<Option<Window>> {
    let Amount {
        messages,
        tokens,
        microusd,
    } = used;
    add(tx, subject, model, window_start, messages, tokens, microusd).await?;
    held(tx, subject, model, window_start).await
}

/// Sets `amount` aside in a window that is [`held`]: whether there is room is the holder's to know.
pub async fn reserve(
    tx: &mut Tx,
    subject: &str,
    model: &str,
    window_start: Timestamp,
    amount: Amount,
) -> Result<()> {
    let Amount {
        messages,
        tokens,
        microusd,
    } = amount;
    reserve_in(tx, subject, model, window_start, messages, tokens, microusd).await
}

/// Turns a reservation into what was really used.
pub async fn settle(
    tx: &mut Tx,
    subject: &str,
    model: &str,
    window_start: Timestamp,
    reserved: Amount,
    used: Amount,
) -> Result<()> {
    settle_in(
        tx,
        subject,
        model,
        window_start,
        reserved.messages,
        reserved.tokens,
        reserved.microusd,
        used.messages,
        used.tokens,
        used.microusd,
    )
    .await
}

/// What a user used of a model since then, as the ledger has it.
pub async fn of_model(tx: &mut Tx, user: Uuid, model: &str, since: Timestamp) -> Result<Amount> {
    let (messages, tokens, microusd) = used_of_model(tx, user, model, since).await?;
    Ok(Amount {
        messages,
        tokens,
        microusd,
    })
}

/// Begins to count everyone's cost together, in a window of each of these subjects: with what the ledger
/// has, and what is set aside for answers being made that were asked for since `today`.
pub async fn begin_budget(
    tx: &mut Tx,
    windows: [(&str, Timestamp); 2],
    today: Timestamp,
) -> Result<()> {
    // Before the windows are held: whoever settles holds its generation, and waits for them.
    put_in_budget(tx, today).await?;
    for (subject, start) in windows {
        open(tx, subject, "", start, Amount::default()).await?;
        let used = spent_by_all_now(tx, start).await?.0;
        let (messages, tokens, microusd) = reserved_by_all(tx, start).await?;
        begin_with(tx, subject, start, messages, tokens, microusd, used).await?;
    }
    Ok(())
}
