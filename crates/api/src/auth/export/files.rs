//! What an archive of a user's data holds. Secrets are in none of it: neither hashes nor keys.
use super::archive::Archive;
use crate::auth::{
    api_keys::KeyBody,
    history::Event,
    session::{FactorBody, IdentityBody, UserBody},
};
use db::{Db, Timestamp, users::User};
use serde_json::json;
use uuid::Uuid;

/// Rows that are read at once.
const PAGE: i64 = 200;

const README: &str = "What this service keeps about you, as JSON. Times are UTC.

user.json           you, as you see yourself
identities.json     the providers you sign in with
sessions.json       where you are and were signed in
factors.json        second factors, without their secrets
passkeys.json       passkeys, without their keys
api_keys.json       personal API keys, without their secrets
profile.json        what assistants may know about you
audit.json          what was decided about your account
conversations.json  your conversations
messages.json       what was said in them
generations.json    answers that were asked for
usage.json          what answers cost
quotas.json         what is used of your plan
customers.json      how payment providers call you
subscriptions.json  what you subscribed to
purchases.json      what you bought once
credits.json        virtual currency that you got and spent
receipts.json       by which events your subscriptions came to be as they are
entitlements.json   what that opens
";

/// Writes all of it, page by page.
pub async fn write(db: &Db, user: User, mut archive: Archive) -> anyhow::Result<()> {
    let id = user.id;
    archive.text("README.txt", README).await?;
    account(db, user, &mut archive).await?;
    if let Some(profile) = db::profiles::of_user(db, id).await? {
        archive.document("profile.json", &profile.data.0).await?;
    }
    sessions(db, id, &mut archive).await?;
    audit(db, id, &mut archive).await?;
    conversations(db, id, &mut archive).await?;
    messages(db, id, &mut archive).await?;
    generations(db, id, &mut archive).await?;
    usage(db, id, &mut archive).await?;
    billing(db, id, &mut archive).await?;
    archive.finish().await
}

async fn account(db: &Db, user: User, archive: &mut Archive) -> anyhow::Result<()> {
    let id = user.id;
    let identities = db::users::identities(db, id).await?;
    let factors = db::factors::of_user(db, id).await?;
    let passkeys = db::passkeys::of_user(db, id).await?;
    let mut user = serde_json::to_value(UserBody::new(user, vec![]))?;
    if let Some(user) = user.as_object_mut() {
        // A file of their own has them.
        user.remove("identities");
    }
    archive.document("user.json", &user).await?;
    let identities = identities.into_iter().map(IdentityBody::from);
    archive.list("identities.json", identities).await?;
    let factors = factors.into_iter().map(FactorBody::from);
    archive.list("factors.json", factors).await?;
    let passkeys = passkeys.into_iter().map(|p| {
        json!({
            "id": p.id, "name": p.name, "backed_up": p.backed_up, "transports": p.transports.0,
            "created_at": p.created_at, "last_used_at": p.last_used_at,
        })
    });
    archive.list("passkeys.json", passkeys).await?;
    let keys = db::api_keys::of_user(db, id).await?;
    archive
        .list("api_keys.json", keys.into_iter().map(KeyBody::from))
        .await
}

async fn sessions(db: &Db, user: Uuid, archive: &mut Archive) -> anyhow::Result<()> {
    archive.begin("sessions.json")?;
    let mut after = Uuid::nil();
    loop {
        let rows = db::sessions::all_of_user(db, user, after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        for s in rows {
            let document = json!({
                "id": s.id, "created_at": s.created_at, "last_seen_at": s.last_seen_at,
                "expires_at": s.idle_expires_at.min(s.absolute_expires_at), "ended_at": s.revoked_at,
                "end_reason": s.revoke_reason, "aal": s.aal, "amr": s.amr.0, "ip": s.ip, "user_agent": s.user_agent,
            });
            archive.item(&document).await?;
        }
    }
    archive.end().await
}

async fn audit(db: &Db, user: Uuid, archive: &mut Archive) -> anyhow::Result<()> {
    archive.begin("audit.json")?;
    let mut before = None;
    loop {
        let rows = db::audit::page_of_subject(db, user, before, PAGE).await?;
        let Some(last) = rows.last() else { break };
        before = Some(last.id);
        for entry in rows {
            archive.item(&Event::from(entry)).await?;
        }
    }
    archive.end().await
}

async fn conversations(db: &Db, user: Uuid, archive: &mut Archive) -> anyhow::Result<()> {
    archive.begin("conversations.json")?;
    let mut before = Uuid::max();
    loop {
        let rows = db::conversations::page(db, user, None, before, PAGE).await?;
        let Some(last) = rows.last() else { break };
        before = last.id;
        for c in rows {
            let document = json!({
                "id": c.id, "title": c.title, "assistant": c.assistant, "active_leaf": c.active_leaf,
                "client_id": c.client_id, "archived_at": c.archived_at,
                "created_at": c.created_at, "updated_at": c.updated_at,
            });
            archive.item(&document).await?;
        }
    }
    archive.end().await
}

/// Conversation by conversation, each from its first message on.
async fn messages(db: &Db, user: Uuid, archive: &mut Archive) -> anyhow::Result<()> {
    archive.begin("messages.json")?;
    let mut before = Uuid::max();
    loop {
        let rows = db::conversations::page(db, user, None, before, PAGE).await?;
        let Some(last) = rows.last() else { break };
        before = last.id;
        for conversation in rows {
            messages_of(db, conversation.id, archive).await?;
        }
    }
    archive.end().await
}

async fn messages_of(db: &Db, conversation: Uuid, archive: &mut Archive) -> anyhow::Result<()> {
    let mut after = Uuid::nil();
    loop {
        let rows = db::conversations::messages(db, conversation, after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        for m in rows {
            let document = json!({
                "id": m.id, "conversation_id": m.conversation_id, "parent_id": m.parent_id, "role": m.role,
                "content": m.content, "status": m.status, "model": m.model, "input_tokens": m.input_tokens,
                "output_tokens": m.output_tokens, "created_at": m.created_at,
            });
            archive.item(&document).await?;
        }
    }
    Ok(())
}

async fn generations(db: &Db, user: Uuid, archive: &mut Archive) -> anyhow::Result<()> {
    archive.begin("generations.json")?;
    let mut after = Uuid::nil();
    loop {
        let rows = db::generations::all_of_user(db, user, after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        for g in rows {
            let document = json!({
                "id": g.id, "conversation_id": g.conversation_id, "message_id": g.message_id, "model": g.model,
                "created_at": g.created_at, "finished_at": g.finished_at, "finish_reason": g.finish_reason,
                "error_code": g.error_code,
            });
            archive.item(&document).await?;
        }
    }
    archive.end().await
}

async fn usage(db: &Db, user: Uuid, archive: &mut Archive) -> anyhow::Result<()> {
    archive.begin("usage.json")?;
    let mut after = (Timestamp::from_micros(0), Uuid::nil());
    loop {
        let rows = db::usage::charges_of_user(db, user, after.0, after.1, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = (last.created_at, last.generation_id);
        for c in rows {
            let document = json!({
                "generation_id": c.generation_id, "provider": c.provider, "model": c.model,
                "input_tokens": c.input_tokens, "cached_tokens": c.cached_tokens, "output_tokens": c.output_tokens,
                "reasoning_tokens": c.reasoning_tokens, "cost_microusd": c.cost_microusd,
                "usage_source": c.usage_source, "created_at": c.created_at,
            });
            archive.item(&document).await?;
        }
    }
    archive.end().await?;
    let windows = db::usage::windows_of_subject(db, &format!("user:{user}")).await?;
    let windows = windows.into_iter().flat_map(|w| {
        let (used, reserved) = (w.used(), w.reserved());
        [
            ("messages", used.messages, reserved.messages),
            ("tokens", used.tokens, reserved.tokens),
            ("cost_microusd", used.microusd, reserved.microusd),
        ]
        .map(|(metric, used, reserved)| {
            let model = Some(&w.model).filter(|model| !model.is_empty());
            json!({"metric": metric, "model": model, "window_start": w.window_start, "used": used, "reserved": reserved})
        })
    });
    archive.list("quotas.json", windows).await
}

async fn billing(db: &Db, user: Uuid, archive: &mut Archive) -> anyhow::Result<()> {
    let customers = db::billing::customers_of_user(db, user).await?;
    let subscriptions = db::billing::subscriptions_of_user(db, user).await?;
    let grants = db::billing::grants(db, user).await?;
    let customers = customers.into_iter().map(|c| {
        json!({"provider": c.provider, "mode": c.mode, "id": c.external_id, "created_at": c.created_at})
    });
    let names = db::billing::stores::names_of_user(db, user).await?;
    let names = names
        .into_iter()
        .map(|(name,)| json!({"provider": "revenuecat", "id": name}));
    archive
        .list("customers.json", customers.chain(names))
        .await?;
    let subscriptions = subscriptions.into_iter().map(|s| {
        json!({
            "provider": s.provider, "mode": s.mode, "id": s.external_id, "customer": s.customer, "store": s.store,
            "status": s.status, "plan": s.plan, "product": s.product, "quantity": s.quantity,
            "will_renew": s.will_renew, "period_start": s.period_start, "period_end": s.period_end,
            "trial_end": s.trial_end, "cancel_at": s.cancel_at, "ended_at": s.ended_at,
        })
    });
    archive.list("subscriptions.json", subscriptions).await?;
    let grants = grants.into_iter().map(|g| {
        json!({
            "entitlement": g.entitlement, "source": g.source, "source_ref": g.source_ref,
            "starts_at": g.starts_at, "ends_at": g.ends_at, "revoked_at": g.revoked_at, "reason": g.reason,
            "in_grace": g.in_grace, "will_renew": g.will_renew,
        })
    });
    archive.list("entitlements.json", grants).await?;
    let bought = db::billing::money::purchases_of_user(db, user).await?;
    let bought = bought.into_iter().map(|p| {
        json!({"provider": p.provider, "id": p.external_id, "plan": p.plan, "amount_minor": p.amount, "currency": p.currency, "paid_at": p.paid_at})
    });
    archive.list("purchases.json", bought).await?;
    let credits = db::billing::stores::credits(db, user).await?;
    let credits = credits.into_iter().map(|c| {
        json!({"id": c.id, "currency": c.currency, "amount": c.amount, "created_at": c.created_at})
    });
    archive.list("credits.json", credits).await?;
    receipts(db, user, archive).await
}

async fn receipts(db: &Db, user: Uuid, archive: &mut Archive) -> anyhow::Result<()> {
    archive.begin("receipts.json")?;
    let mut before = None;
    loop {
        let rows = db::billing::timeline::of_user(db, user, before, PAGE).await?;
        let Some(last) = rows.last() else { break };
        before = Some(last.id);
        for r in rows {
            let document = json!({
                "provider": r.provider, "object": r.object, "event": r.event, "kind": r.kind, "rule": r.rule,
                "before": r.before.0, "after": r.after.0, "occurred_at": r.occurred_at, "created_at": r.created_at,
            });
            archive.item(&document).await?;
        }
    }
    archive.end().await
}
