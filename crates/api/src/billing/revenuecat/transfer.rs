//! A receipt was restored, or used, by somebody else: what it bought is theirs from then on.
use super::{
    SOURCE,
    keep::reduce,
    names::{Who, link, owner, resolve, users_of},
    told::Told,
};
use crate::billing::{
    apply::Outcome,
    reduce::revenuecat::{Fact, family},
};
use db::{
    Tx,
    billing::{Subscription, stores},
};
use uuid::Uuid;

impl Told<'_> {
    /// What users of one side bought is the other side's from now on, as far as it is of that store.
    pub async fn transfer(&self, tx: &mut Tx) -> anyhow::Result<Outcome> {
        let Self {
            app,
            event,
            mode,
            at,
            by,
        } = self;
        let (from, to) = (&event.transferred_from, &event.transferred_to);
        let to_user = match resolve(tx, to.iter()).await? {
            Who::Many => return Ok(Outcome::Parked("ambiguous")),
            who => who.one(),
        };
        let (Some(to_name), false) = (to.first(), from.is_empty()) else {
            return Ok(Outcome::Ignored("no_effect"));
        };
        let stores = event.store.as_deref().map(family);
        let of_store = |s: &Subscription| stores.as_ref().is_none_or(|f| *f == family(&s.store));
        let from_users = users_of(tx, from.iter()).await?;
        let mut found = !from_users.is_empty();
        for user in from_users.into_iter().filter(|user| Some(*user) != to_user) {
            stores::transfer(
                tx,
                &event.id,
                mode,
                user,
                to_user,
                to_name,
                stores.as_deref(),
                *at,
            )
            .await?;
            for bought in stores::purchases_of_user(tx, mode, user).await? {
                if of_store(&bought) {
                    self.hand_on(tx, user, &bought).await?;
                }
            }
        }
        // What waits under a name that was nobody's goes with it.
        for name in from {
            for waiting in db::billing::subscriptions_of_customer(tx, SOURCE, mode, name).await? {
                if waiting.user_id.is_none() && of_store(&waiting) {
                    found = true;
                    let moved = Fact::Moved {
                        to: to_user,
                        name: to_name.clone(),
                    };
                    reduce(app, tx, mode, &waiting.external_id, &moved, by).await?;
                }
            }
        }
        let Some(to_user) = to_user else {
            return Ok(Outcome::Parked("unlinked"));
        };
        let anonymous = from
            .iter()
            .filter(|name| name.starts_with("$RCAnonymousID:"));
        link(app, tx, to.iter(), to_user, by).await?;
        if !found {
            // Only names that nobody has: what they bought before waits under them.
            link(app, tx, anonymous.clone(), to_user, by).await?;
            found = anonymous.count() > 0;
        }
        Ok(match found {
            true => Outcome::Processed,
            false => Outcome::Parked("unlinked"),
        })
    }

    async fn hand_on(&self, tx: &mut Tx, from: Uuid, bought: &Subscription) -> anyhow::Result<()> {
        let stores = family(&bought.store);
        let told_at = bought.basis_at;
        let moved = match owner(tx, self.mode, from, &stores, told_at).await? {
            Ok(owner) if owner == from => return Ok(()),
            Ok(owner) => Fact::Moved {
                to: Some(owner),
                name: owner.to_string(),
            },
            Err(name) => Fact::Moved { to: None, name },
        };
        reduce(
            self.app,
            tx,
            self.mode,
            &bought.external_id,
            &moved,
            &self.by,
        )
        .await?;
        Ok(())
    }
}
