//! Dangerous acts ask for more than a session that is open somewhere: a sign-in of the last minutes,
//! with a second factor of who has one. RFC 9470.
use super::{audit, session::Client};
use crate::{
    App, Error, Result,
    error::Dialect,
    extract::{Admin, Auth, Reach},
};
use serde_json::json;
use uuid::Uuid;

/// Refuses who has not proved for a while who they are, or has a second factor and did not prove it.
pub fn require(app: &App, auth: &Auth) -> Result<()> {
    in_person(auth)?;
    require_second_factor(app, auth)?;
    let max_age = app.config.auth.auth_step_up_ttl;
    if app.now().since(auth.authenticated_at) > max_age {
        return Err(Error::ReauthenticationNeeded { max_age });
    }
    Ok(())
}

/// The same, and a refusal stands in the audit log as one of `action`. Not inside a transaction.
pub async fn demand(app: &App, auth: &Auth, client: &Client, action: &str) -> Result<()> {
    match require(app, auth) {
        Ok(()) => Ok(()),
        Err(refusal) => Err(audit::refuse(app, client, action, auth.user, refusal).await),
    }
}

/// Refuses who has a second factor and did not prove it in this session, however fresh that is.
pub fn require_second_factor(app: &App, auth: &Auth) -> Result<()> {
    if auth.second_factor && !auth.aal2 {
        let max_age = app.config.auth.auth_step_up_ttl;
        return Err(Error::InsufficientAal { max_age });
    }
    Ok(())
}

/// Refuses an admin who looks as the user: whatever they prove, it is not that they are the user.
pub fn in_person(auth: &Auth) -> Result<()> {
    match auth.reach {
        Reach::Looking { .. } | Reach::Asking { .. } => Err(Error::Forbidden),
        Reach::Full | Reach::ChoosingPassword => Ok(()),
    }
}

/// What is asked of a user before they do such a thing to themself, is asked of an admin who does it to
/// another, `subject`, where they are known; of the service-role key nothing is. Not inside a transaction.
pub async fn demand_of_admin(
    app: &App,
    admin: &Admin,
    client: &Client,
    action: &str,
    subject: Option<Uuid>,
) -> Result<()> {
    let Some(Err(refusal)) = admin.session.as_ref().map(|auth| require(app, auth)) else {
        return Ok(());
    };
    let why = json!({"reason": refusal.code(Dialect::GoTrue)});
    Err(audit::refuse_admin(app, client, action, admin, subject, why, refusal).await)
}
