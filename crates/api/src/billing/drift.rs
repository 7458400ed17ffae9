//! In what the state that is kept here differs from what a provider says: compared, not judged.
use db::{
    Timestamp,
    billing::{Grant, Subscription},
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// What is kept of one subscription.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    pub subscription: Option<Subscription>,
    pub grants: Vec<Grant>,
}

impl Kept {
    /// Whether it opens something at that time.
    pub fn is_open(&self, at: Timestamp) -> bool {
        self.grants.iter().any(|grant| is_open(grant, at))
    }
}

fn is_open(grant: &Grant, at: Timestamp) -> bool {
    grant.ends_at.is_none_or(|end| at < end) && grant.revoked_at.is_none_or(|revoked| at < revoked)
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Drift {
    /// The provider's id.
    pub subscription: String,
    /// A member of the subscription; `missing` where nothing was kept of it, `unknown_there` where the
    /// provider has none of it; `grant` of what it opens.
    pub field: &'static str,
    /// As it was here.
    #[schema(value_type = Object)]
    pub was: Value,
    /// As the provider says.
    #[schema(value_type = Object)]
    pub is: Value,
}

/// The differences that mean something at `now`: when something was read does not, nor when what is over
/// ended.
pub fn between(id: &str, before: &Kept, after: &Kept, now: Timestamp) -> Vec<Drift> {
    let drift = |field, was, is| Drift {
        subscription: id.to_owned(),
        field,
        was,
        is,
    };
    let (was, is) = match (&before.subscription, &after.subscription) {
        (None, None) => return vec![],
        (None, Some(is)) => return vec![drift("missing", Value::Null, json!(is.status))],
        (Some(was), None) => return vec![drift("unknown_there", json!(was.status), Value::Null)],
        (Some(was), Some(is)) => (members(was), members(is)),
    };
    let differing = was.into_iter().zip(is).filter(|(was, is)| was != is);
    let mut drifts: Vec<_> = differing
        .map(|((field, was), (_, is))| drift(field, was, is))
        .collect();
    let (was, is) = (open(&before.grants, now), open(&after.grants, now));
    if was != is {
        drifts.push(drift("grant", was, is));
    }
    drifts
}

fn members(s: &Subscription) -> [(&'static str, Value); 13] {
    [
        ("user", json!(s.user_id)),
        ("customer", json!(s.customer)),
        ("store", json!(s.store)),
        ("status", json!(s.status)),
        ("plan", json!(s.plan)),
        ("product", json!(s.product)),
        ("quantity", json!(s.quantity)),
        ("will_renew", json!(s.will_renew)),
        ("period_start", json!(s.period_start)),
        ("period_end", json!(s.period_end)),
        ("trial_end", json!(s.trial_end)),
        ("cancel_at", json!(s.cancel_at)),
        ("ended", json!(s.ended_at.is_some())),
    ]
}

/// What is open, to whom and until when.
fn open(grants: &[Grant], now: Timestamp) -> Value {
    let shown = |grant: &Grant| {
        json!({
            "user": grant.user_id,
            "entitlement": grant.entitlement,
            "starts_at": grant.starts_at.max(now),
            "ends_at": grant.ends_at,
            "in_grace": grant.in_grace,
            "will_renew": grant.will_renew,
        })
    };
    grants
        .iter()
        .filter(|grant| is_open(grant, now))
        .map(shown)
        .collect()
}
