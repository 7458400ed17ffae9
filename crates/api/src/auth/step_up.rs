//! Dangerous acts ask for more than a session that is open somewhere: a sign-in of the last minutes.
//! RFC 9470.
use crate::{App, Error, Result, extract::Auth};

/// Refuses who has not proved for a while who they are.
pub fn require(app: &App, auth: &Auth) -> Result<()> {
    let max_age = app.config.auth.auth_step_up_ttl;
    if app.now().since(auth.authenticated_at) > max_age {
        return Err(Error::ReauthenticationNeeded { max_age });
    }
    Ok(())
}
