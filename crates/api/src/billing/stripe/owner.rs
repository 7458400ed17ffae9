//! Whose a customer is.
use super::keep::{Touched, reduce};
use crate::{
    App,
    billing::{
        apply::{self, Cause},
        reduce::stripe::{Fact, SOURCE},
    },
};
use db::{
    Tx,
    billing::{Subscription, money},
};
use uuid::Uuid;

/// Whose customer it is. One who is nobody's yet is tied, once and for all, to the user that the object
/// names, who then gets what was told of the customer before.
pub async fn owner(
    app: &App,
    tx: &mut Tx,
    mode: &str,
    customer: Option<&str>,
    named: Option<&str>,
    by: &Cause<'_>,
) -> anyhow::Result<Option<Uuid>> {
    let Some(customer) = customer else {
        return Ok(None);
    };
    let known = db::billing::user_of_customer(tx, SOURCE, mode, customer).await?;
    let (None, Some(named)) = (known, named) else {
        return Ok(known);
    };
    let Some(user) = apply::user(tx, named).await? else {
        return Ok(None);
    };
    db::billing::link_customer(tx, SOURCE, mode, customer, user, app.now()).await?;
    let claimed = [Fact::Claimed { user }];
    for subscription in of_customer(tx, mode, customer).await? {
        let touched = Touched::subscription(&subscription.external_id);
        reduce(app, tx, mode, &touched, &claimed, by).await?;
    }
    for bought in money::purchases_of_customer(tx, SOURCE, mode, customer).await? {
        let touched = Touched::payment(&bought.external_id);
        reduce(app, tx, mode, &touched, &claimed, by).await?;
    }
    Ok(Some(user))
}

pub async fn of_customer(tx: &mut Tx, mode: &str, customer: &str) -> db::Result<Vec<Subscription>> {
    db::billing::subscriptions_of_customer(tx, SOURCE, mode, customer).await
}
