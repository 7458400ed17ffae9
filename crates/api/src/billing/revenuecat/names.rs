//! Whose a purchase is: our users by any of their names, and after every transfer.
use super::{SOURCE, keep::reduce};
use crate::{
    App,
    billing::{
        apply::{self, Cause},
        reduce::revenuecat::Fact,
    },
};
use db::{Timestamp, Tx, billing::stores};
use uuid::Uuid;

/// Purchases are handed on so often at most.
const MOST_TRANSFERS: usize = 16;

/// Of our users, whom some names mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Nobody,
    One(Uuid),
    Many,
}

impl Who {
    pub fn one(self) -> Option<Uuid> {
        match self {
            Self::One(user) => Some(user),
            _ => None,
        }
    }
}

pub async fn users_of(tx: &mut Tx, names: impl Iterator<Item = &String>) -> db::Result<Vec<Uuid>> {
    let mut users = vec![];
    for name in names {
        let own = apply::user(tx, name).await?;
        let linked = stores::user_of_name(tx, name).await?.map(|(user,)| user);
        if let Some(user) = own.or(linked)
            && !users.contains(&user)
        {
            users.push(user);
        }
    }
    Ok(users)
}

pub async fn resolve(tx: &mut Tx, names: impl Iterator<Item = &String>) -> db::Result<Who> {
    Ok(match users_of(tx, names).await?.as_slice() {
        [] => Who::Nobody,
        [user] => Who::One(*user),
        _ => Who::Many,
    })
}

/// What apps send where they know nobody, which RevenueCat refuses: nobody's name.
/// <https://www.revenuecat.com/docs/customers/user-ids#tips-for-setting-app-user-ids>
const NOBODY: &[&str] = &[
    "null",
    "none",
    "nil",
    "(null)",
    "nan",
    "unknown",
    "anonymous",
    "guest",
    "undefined",
    "no_user",
    "0",
    "-1",
    "[]",
    "{}",
    "",
    "\"\"",
    "''",
    "unidentified",
    "user",
    "test",
    "\\\"\\\"",
    "null_user",
];

fn can_name(name: &str) -> bool {
    let known = NOBODY
        .iter()
        .any(|nobody| name.trim().eq_ignore_ascii_case(nobody));
    !known && name.len() <= 100 && !name.contains('/')
}

/// Remembers that these are names of this user. What waited for one of them is theirs.
pub async fn link(
    app: &App,
    tx: &mut Tx,
    names: impl Iterator<Item = &String>,
    user: Uuid,
    by: &Cause<'_>,
) -> anyhow::Result<()> {
    let now = app.now();
    for name in names.filter(|name| can_name(name)) {
        if apply::user(tx, name).await?.is_some() || !stores::link_name(tx, name, user, now).await?
        {
            continue;
        }
        for mode in ["live", "test"] {
            for waiting in db::billing::subscriptions_of_customer(tx, SOURCE, mode, name).await? {
                if waiting.user_id.is_none() {
                    let claimed = Fact::Claimed { user };
                    reduce(app, tx, mode, &waiting.external_id, &claimed, by).await?;
                }
            }
        }
        for (event,) in stores::waiting_for_name(tx, name).await? {
            stores::stop_waiting(tx, event).await?;
            db::inbox::replay(tx, event, now).await?;
        }
    }
    Ok(())
}

/// Whose a purchase of `user` is that was told of at `since`, after all transfers that followed; or the
/// name of whom nobody knows.
pub async fn owner(
    tx: &mut Tx,
    mode: &str,
    user: Uuid,
    stores: &str,
    mut since: Timestamp,
) -> db::Result<Result<Uuid, String>> {
    let mut owner = user;
    for _ in 0..MOST_TRANSFERS {
        let next = stores::next_transfer(tx, mode, owner, stores, since).await?;
        let Some(transfer) = next else { break };
        match transfer.to_user {
            Some(to) => (owner, since) = (to, transfer.at),
            None => return Ok(Err(transfer.to_name)),
        }
    }
    Ok(Ok(owner))
}
