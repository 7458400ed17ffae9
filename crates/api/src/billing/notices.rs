//! What users are told by mail about what they pay for, once each: what was told is written down in the
//! transaction that found it out, with the mail.
use super::reduce::{News, Notice};
use crate::{
    App,
    mail::{self, Mail, Sealed},
};
use anyhow::Context;
use db::{
    Timestamp, Tx,
    billing::{Grant, timeline},
    jobs::{Job, NewJob},
};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};
use uuid::Uuid;

/// The kind of job that looks whether somebody still pays twice.
pub const DUPLICATES: &str = "duplicate_subscriptions";
/// Who changes a plan in a store has two for a moment.
const SETTLED: Duration = Duration::from_secs(15 * 60);

/// Tells a user what is new to them.
pub async fn tell(app: &App, tx: &mut Tx, user: Uuid, notices: Vec<Notice>) -> anyhow::Result<()> {
    let now = app.now();
    for Notice { key, news } in notices {
        if !timeline::tell_once(tx, &key, user, now).await? {
            continue;
        }
        let Some(user) = db::users::within(tx, user).await? else {
            continue;
        };
        let Some(to) = user.email_confirmed_at.and(user.email.clone()) else {
            continue;
        };
        let mail = mail(app, to, news)?;
        mail::enqueue(tx, user.id, &mail, now).await?;
    }
    Ok(())
}

fn mail(app: &App, to: String, news: News) -> anyhow::Result<Mail> {
    let title = |plan: String| match app.plans.by_name(&plan) {
        Some(plan) => plan.title.clone(),
        None => plan,
    };
    // Whoever has it can see the invoice.
    let sealed = |to: &str, link: Option<String>| {
        let seal = |link: String| Sealed::new(&app.keys, to, &link);
        link.map(seal).transpose()
    };
    let day = |at: Timestamp| at.to_string().chars().take("2026-11-20".len()).collect();
    Ok(match news {
        News::Subscribed { plan } => Mail::Subscribed {
            to,
            plan: title(plan),
        },
        News::PaymentFailed { plan, until, link } => Mail::PaymentFailed {
            link: sealed(&to, link)?,
            to,
            plan: title(plan),
            until: until.map(day),
        },
        News::ActionRequired { plan, link } => Mail::PaymentActionRequired {
            link: sealed(&to, link)?,
            to,
            plan: title(plan),
        },
        News::TrialEnding { plan, at, renews } => Mail::TrialEnding {
            to,
            plan: title(plan),
            until: day(at),
            renews,
        },
        News::Ended { plan } => Mail::SubscriptionEnded {
            to,
            plan: title(plan),
        },
    })
}

/// What renews and is paid for at once: two of them are one too many.
pub fn duplicates(grants: &[Grant], now: Timestamp) -> BTreeSet<(&str, &str)> {
    let renews = grants.iter().filter(|g| {
        g.will_renew
            && g.kind != "promo"
            && g.revoked_at.is_none()
            && g.starts_at <= now
            && g.ends_at.is_none_or(|end| now < end)
    });
    let paid: BTreeSet<_> = renews
        .map(|g| (g.source.as_str(), g.source_ref.as_str()))
        .collect();
    match paid.len() {
        0 | 1 => BTreeSet::new(),
        _ => paid,
    }
}

/// Looks again, in a while, whether this user pays twice.
pub async fn look_for_duplicates(tx: &mut Tx, user: Uuid, now: Timestamp) -> db::Result<()> {
    let grants = db::billing::grants_of_user(tx, user).await?;
    if duplicates(&grants, now).is_empty() {
        return Ok(());
    }
    let look = NewJob {
        kind: DUPLICATES,
        subject: None,
        payload: json!({"user": user}),
        dedupe_key: None,
        due_at: now + SETTLED,
    };
    db::jobs::enqueue(tx, look, now).await.map(drop)
}

/// Tells a user who pays twice, once for each pair.
pub async fn run(app: &App, job: &Job) -> anyhow::Result<()> {
    let user = job.payload.0["user"].as_str();
    let user: Uuid = user.context("the job names nobody")?.parse()?;
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let grants = db::billing::grants_of_user(&mut tx, user).await?;
    let paid = duplicates(&grants, now);
    if !paid.is_empty() {
        let names: Vec<_> = paid.iter().map(|(_, source_ref)| *source_ref).collect();
        let key = format!("duplicate:{user}:{}", names.join(","));
        if timeline::tell_once(&mut tx, &key, user, now).await?
            && let Some(user) = db::users::within(&mut tx, user).await?
        {
            mail::tell(&mut tx, &user, |to| Mail::DuplicateSubscription { to }, now).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}
