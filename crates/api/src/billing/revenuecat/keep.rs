//! Writing down what a fact changes.
use super::SOURCE;
use crate::{
    App,
    billing::{
        apply::{self, Cause},
        notices,
        reduce::revenuecat::{self as reduce, Fact, source_ref},
    },
};
use db::Tx;
use uuid::Uuid;

/// What became of a purchase.
pub struct Reduced {
    pub rule: &'static str,
    pub user: Option<Uuid>,
    pub changed: bool,
}

/// Has a fact change what is known, writes it down with what it opens, tells the user what is new to them,
/// and keeps a receipt.
pub async fn reduce(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    purchase: &str,
    fact: &Fact,
    by: &Cause<'_>,
) -> anyhow::Result<Reduced> {
    let now = app.now();
    let source_ref = source_ref(mode, purchase);
    let before = db::billing::subscription(tx, SOURCE, mode, purchase).await?;
    let (after, step) = reduce::apply(before.clone(), fact, now);
    let held = db::billing::grants_of_source(tx, SOURCE, &source_ref).await?;
    let mut grants = after.as_ref().map(reduce::grants).unwrap_or_default();
    grants.sort_by(|a, b| a.entitlement.cmp(&b.entitlement));
    if let Some(after) = &after
        && before.as_ref() != Some(after)
    {
        db::billing::save_subscription(tx, after, now).await?;
    }
    if held != grants {
        db::billing::replace_grants(tx, SOURCE, &source_ref, &grants, now).await?;
    }
    let user = after.as_ref().and_then(|s| s.user_id);
    let lost = before.as_ref().and_then(|s| s.user_id);
    let lost = lost.filter(|lost| Some(*lost) != user);
    for user in [user].into_iter().chain(lost.map(Some)) {
        let receipt = apply::Receipt {
            provider: SOURCE,
            mode,
            object: purchase,
            user,
            rule: step.rule,
            before: apply::view(before.as_ref(), &held),
            after: apply::view(after.as_ref(), &grants),
        };
        apply::note(tx, receipt, by, now).await?;
    }
    if let Some(user) = user {
        notices::tell(app, tx, user, step.notices).await?;
        if held != grants {
            notices::look_for_duplicates(tx, user, now).await?;
        }
    }
    Ok(Reduced {
        rule: step.rule,
        user,
        changed: before != after || held != grants,
    })
}
