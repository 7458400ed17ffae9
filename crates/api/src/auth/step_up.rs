//! Dangerous acts ask for more than a session that is open somewhere: a sign-in of the last minutes,
//! with a second factor of who has one. RFC 9470.
use crate::{App, Error, Result, extract::Auth};

/// Refuses who has not proved for a while who they are, or has a second factor and did not prove it.
pub fn require(app: &App, auth: &Auth) -> Result<()> {
    require_second_factor(app, auth)?;
    let max_age = app.config.auth.auth_step_up_ttl;
    if app.now().since(auth.authenticated_at) > max_age {
        return Err(Error::ReauthenticationNeeded { max_age });
    }
    Ok(())
}

/// Refuses who has a second factor and did not prove it in this session, however fresh that is.
pub fn require_second_factor(app: &App, auth: &Auth) -> Result<()> {
    if auth.second_factor && !auth.aal2 {
        let max_age = app.config.auth.auth_step_up_ttl;
        return Err(Error::InsufficientAal { max_age });
    }
    Ok(())
}
