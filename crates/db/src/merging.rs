//! What becomes of an anonymous user's rows when they turn out to be somebody who has an account.
use crate::prelude::*;

/// What becomes of the rows that a table has of the anonymous user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They are the account's from then on.
    Moves,
    /// They end with the anonymous user, and this is why.
    Ends(&'static str),
}
use Fate::{Ends, Moves};

/// Every table that knows users.
pub const TABLES: &[(&str, Fate)] = &[
    (
        "api_keys",
        Ends("they let in whoever began the anonymous session"),
    ),
    ("audit_origins", Ends("of events that name who is gone")),
    (
        "auth_codes",
        Ends("they let in whoever began the anonymous session"),
    ),
    ("billing_checkouts", Moves),
    ("billing_credits", Moves),
    ("billing_customers", Moves),
    ("billing_identities", Moves),
    (
        "billing_notices",
        Ends("nobody who is anonymous is written to"),
    ),
    ("billing_payments", Moves),
    ("billing_subscriptions", Moves),
    ("billing_timeline", Moves),
    ("billing_transfers", Moves),
    ("conversations", Moves),
    ("entitlement_grants", Moves),
    (
        "feature_overrides",
        Ends("the account has its own, or none"),
    ),
    ("generations", Moves),
    ("idempotency_keys", Ends("copies of answers, for a day")),
    (
        "identities",
        Ends("they let in whoever began the anonymous session"),
    ),
    (
        "merged_users",
        Ends("nobody is merged into who is anonymous"),
    ),
    ("mfa_factors", Ends("nobody who is anonymous has one")),
    (
        "oauth_flows",
        Ends("they let in whoever began the anonymous session"),
    ),
    (
        "one_time_tokens",
        Ends("they let in whoever began the anonymous session"),
    ),
    ("profiles", Ends("the account has its own, or none")),
    ("quota_windows", Moves),
    (
        "sessions",
        Ends("they let in whoever began the anonymous session"),
    ),
    ("usage_ledger", Moves),
    ("webauthn_challenges", Ends("minutes old, and random")),
    (
        "webauthn_credentials",
        Ends("they let in whoever began the anonymous session"),
    ),
];

sql! {
    fn customers(tx: &mut Tx, from: Uuid, to: Uuid) {
        // The account's checkouts are for the customer it has, if it has one.
        "update billing_customers set user_id = $to, checkout = false where user_id = $from"
    }

    fn checkouts(tx: &mut Tx, from: Uuid, to: Uuid) {
        // Both may have had a request of the same key.
        "update billing_checkouts set user_id = $to, key = id where user_id = $from"
    }

    fn subscriptions(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update billing_subscriptions set user_id = $to where user_id = $from"
    }

    fn credits(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update billing_credits set user_id = $to where user_id = $from"
    }

    fn names(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update billing_identities set user_id = $to where user_id = $from"
    }

    fn payments(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update billing_payments set user_id = $to where user_id = $from"
    }

    fn receipts(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update billing_timeline set user_id = $to where user_id = $from"
    }

    fn transfers_from(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update billing_transfers set from_user = $to where from_user = $from"
    }

    fn transfers_to(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update billing_transfers set to_user = $to where to_user = $from"
    }

    fn conversations(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update conversations set user_id = $to,
             client_id = case when client_id in (select c.client_id from conversations c where c.user_id = $to) then null else client_id end
         where user_id = $from"
    }

    fn grants(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update entitlement_grants set user_id = $to where user_id = $from"
    }

    fn generations(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update generations set user_id = $to where user_id = $from"
    }

    fn charges(tx: &mut Tx, from: Uuid, to: Uuid) {
        "update usage_ledger set user_id = $to where user_id = $from"
    }

    fn add_windows(tx: &mut Tx, from: &str, to: &str) {
        "insert into quota_windows (subject, model, window_start, messages_used, messages_reserved, tokens_used,
                                    tokens_reserved, cost_used, cost_reserved)
         select $to, model, window_start, messages_used, messages_reserved, tokens_used, tokens_reserved, cost_used,
                cost_reserved
         from quota_windows where subject = $from
         on conflict (subject, model, window_start) do update set
             messages_used = quota_windows.messages_used + excluded.messages_used,
             messages_reserved = quota_windows.messages_reserved + excluded.messages_reserved,
             tokens_used = quota_windows.tokens_used + excluded.tokens_used,
             tokens_reserved = quota_windows.tokens_reserved + excluded.tokens_reserved,
             cost_used = quota_windows.cost_used + excluded.cost_used,
             cost_reserved = quota_windows.cost_reserved + excluded.cost_reserved"
    }

    fn remember(tx: &mut Tx, id: Uuid, user: Uuid, now: Timestamp) {
        "insert into merged_users (id, user_id, merged_at) values ($id, $user, $now)"
    }
}

/// Moves everything that moves, and remembers that who was `from` is `to`. What ends is for whoever ends
/// the anonymous user.
pub async fn move_rows(tx: &mut Tx, from: Uuid, to: Uuid, now: Timestamp) -> Result<()> {
    customers(tx, from, to).await?;
    checkouts(tx, from, to).await?;
    subscriptions(tx, from, to).await?;
    grants(tx, from, to).await?;
    credits(tx, from, to).await?;
    names(tx, from, to).await?;
    payments(tx, from, to).await?;
    receipts(tx, from, to).await?;
    transfers_from(tx, from, to).await?;
    transfers_to(tx, from, to).await?;
    conversations(tx, from, to).await?;
    // Before what they set aside: an answer that ends meanwhile is settled with whose it is.
    generations(tx, from, to).await?;
    charges(tx, from, to).await?;
    let (spent, of) = (format!("user:{from}"), format!("user:{to}"));
    add_windows(tx, &spent, &of).await?;
    crate::usage::forget(tx, &spent).await?;
    remember(tx, from, to, now).await
}
