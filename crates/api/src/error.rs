//! What a handler refuses or fails with.
use db::Timestamp;
use std::time::Duration;

mod kinds;
mod render;
#[cfg(test)]
mod tests;

pub use render::{Dialect, Refusal};

/// What a handler gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One word a client can act on, a variant. The text of a variant is for that client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    MalformedJson(String),
    #[error("{}", summary(.0))]
    Invalid(Vec<Invalid>),
    #[error("The body has to be JSON, with the header Content-Type: application/json.")]
    UnsupportedMediaType,
    #[error("The body is larger than this route takes.")]
    BodyTooLarge,
    #[error("There is nothing at this path.")]
    NotFound,
    #[error("This path does not take this method.")]
    MethodNotAllowed,
    #[error("The request did not arrive or end in time.")]
    RequestTimeout,

    #[error("Send an access token: Authorization: Bearer …")]
    NoToken,
    #[error("The access token is not valid here, or has expired. Refresh it or sign in again.")]
    InvalidToken,
    #[error("The session of this token has ended. Sign in again.")]
    SessionEnded,
    #[error(
        "A request with cookies has to come from a page of this site: its Origin is missing, or is not one of ALLOWED_ORIGINS."
    )]
    CrossSiteRequest,
    #[error("This needs more rights than the token has.")]
    Forbidden,
    #[error("User not allowed")]
    NotAdmin,
    #[error("Sign in again first: this needs a sign-in of the last {} s.", .max_age.as_secs())]
    ReauthenticationNeeded { max_age: Duration },
    #[error("AAL2 session is required for this: prove a second factor first.")]
    InsufficientAal { max_age: Duration },
    #[error("This user is banned.")]
    UserBanned,
    #[error("Choose a password of your own first: PUT /auth/v1/user.")]
    PasswordExpired,

    #[error("Invalid login credentials")]
    InvalidCredentials,
    #[error("Email not confirmed")]
    EmailNotConfirmed,
    #[error("User already registered")]
    UserAlreadyExists,
    #[error("A user with this email address has already been registered")]
    EmailExists,
    #[error("User not found")]
    UserNotFound,
    #[error("{}", .0.first().copied().unwrap_or_default().explain())]
    WeakPassword(Vec<Weakness>),
    #[error("New password should be different from the old password.")]
    SamePassword,
    #[error("Signups not allowed for this instance")]
    SignupDisabled,
    #[error("Anonymous sign-ins are disabled")]
    AnonymousDisabled,
    #[error("Phone signups are disabled")]
    PhoneDisabled,
    #[error("Unsupported grant_type")]
    UnsupportedGrantType,
    #[error("Invalid Refresh Token: Refresh Token Not Found")]
    RefreshTokenNotFound,
    #[error("Invalid Refresh Token: Already Used")]
    RefreshTokenAlreadyUsed,
    #[error("Invalid Refresh Token: Session Expired")]
    SessionExpired,
    #[error("Token has expired or is invalid")]
    OtpExpired,
    #[error("Nonce has expired or is invalid")]
    ReauthenticationNotValid,
    #[error("invalid flow state, no valid flow state found")]
    FlowStateNotFound,
    #[error("invalid flow state, flow state has expired")]
    FlowStateExpired,
    #[error("Challenge not found or already used")]
    WebauthnChallengeNotFound,
    #[error("Challenge has expired")]
    WebauthnChallengeExpired,
    #[error("Credential verification failed: {0}")]
    WebauthnRefused(crate::auth::webauthn::Refused),
    #[error("This credential is already registered")]
    WebauthnCredentialExists,
    #[error("Passkey not found")]
    WebauthnCredentialNotFound,
    #[error("Maximum number of passkeys reached")]
    TooManyPasskeys,
    #[error("Maximum number of API keys reached: remove one first.")]
    TooManyApiKeys,
    #[error("Nothing else would let you in: add another way to sign in first.")]
    LastCredential,
    #[error("code challenge does not match previously saved code verifier")]
    BadCodeVerifier,
    #[error(
        "Bad ID token: it is not of this provider, not for this client, expired, or its nonce is another."
    )]
    InvalidIdToken,
    #[error("This ID token was used before. Ask the provider for another.")]
    IdTokenReplayed,
    #[error("The provider's keys cannot be had just now. Try again.")]
    ProviderUnavailable,
    #[error("Provider is not enabled")]
    ProviderDisabled,
    #[error(
        "An account with this address exists. Sign in to it as usual, then link this provider to it."
    )]
    AccountLinkRequired { provider: String, email: String },
    #[error("This merge token is used, too old, or of a session that has ended. Ask for another.")]
    MergeTokenExpired,
    #[error("Identity is already linked to another user")]
    IdentityAlreadyExists,
    #[error("OAuth state is unknown, was used, or belongs to another browser")]
    BadOauthState,
    #[error("{0}")]
    BadOauthCallback(&'static str),
    #[error("The notification is not the provider's, not for this app, or was delivered before.")]
    InvalidNotification,
    #[error("Manual linking is disabled")]
    ManualLinkingDisabled,
    #[error("Identity doesn't exist")]
    IdentityNotFound,

    #[error("MFA factor not found")]
    FactorNotFound,
    #[error("The event was applied already, or put aside.")]
    EventSettled,
    #[error("A factor with this friendly name already exists")]
    FactorNameConflict,
    #[error("Maximum number of factors reached, unenroll to continue")]
    TooManyFactors,
    #[error("Recovery codes exist already; regenerate them to have others.")]
    VerifiedFactorExists,
    #[error("Recovery codes need another verified factor beside them.")]
    RecoveryCodesSoleFactor,
    #[error("Too many wrong recovery codes. Try again in {} s.", .retry_after.as_secs().max(1))]
    RecoveryCodesLocked { retry_after: Duration },
    #[error("MFA challenge has expired or was answered; create a new challenge.")]
    ChallengeExpired,
    #[error("Invalid MFA code entered")]
    MfaVerificationFailed,
    #[error("Too many wrong codes. Try again in {} s.", .retry_after.as_secs().max(1))]
    FactorLocked { retry_after: Duration },

    #[error("Too many requests from this IP. Try again in {} s.", .retry_after.as_secs().max(1))]
    RateLimited { retry_after: Duration },
    #[error("For security purposes, you can only request this after {} seconds.", .retry_after.as_secs().max(1))]
    MailRateLimited { retry_after: Duration },
    #[error("What the plan allows in {what}{} for this period is used up. It starts anew at {resets_at}.", with_model(.model.as_deref()))]
    QuotaExceeded {
        /// `messages`, `tokens` or `cost`.
        what: &'static str,
        /// Where one model alone is limited.
        model: Option<String>,
        resets_at: Timestamp,
    },
    #[error("The model {model} is not part of the plan.")]
    ModelNotInPlan { model: String },
    #[error("The model {model} does not exist.")]
    ModelNotFound { model: String },
    #[error("The language model cannot answer just now. Try again.")]
    LlmUnavailable { retry_after: Duration },
    #[error("The language model is switched off just now.")]
    LlmSwitchedOff { retry_after: Duration },
    #[error("The language model refused this request: {0}")]
    LlmRefused(String),
    #[error("The question was not passed on: it was judged to be harmful.")]
    ContentFlagged,
    #[error("The language model took too long. Try again.")]
    LlmTimeout,

    #[error("This Idempotency-Key was used for another request.")]
    IdempotencyMismatch,
    #[error("The conversation was changed in the meantime. Read it again.")]
    ConversationChanged,
    #[error("The first request with this Idempotency-Key is under way. Try again for its answer.")]
    IdempotencyInFlight,

    #[error("{0}")]
    InvalidSignature(webhooks::Refused),
    #[error("{0}")]
    InvalidAuthorization(webhooks::Refused),
    #[error("{0}")]
    UnreadableEvent(String),
    #[error("No secret is configured for this webhook, so nothing can be accepted.")]
    WebhookNotConfigured,

    #[error("Nothing is sold here on the web: no key of Stripe is configured.")]
    BillingNotConfigured,
    #[error("Stripe cannot be asked just now. Try again.")]
    BillingUnavailable { retry_after: Duration },
    #[error("Stripe refused this request. It has been reported.")]
    BillingRefused,
    #[error("{0}")]
    PaymentFailed(String),
    #[error("There is a subscription already. End or change it first, or say `force`.")]
    AlreadySubscribed {
        store: String,
        manage_url: Option<String>,
    },
    #[error("This subscription is the store's to change: {store}.")]
    ManagedElsewhere {
        store: String,
        manage_url: Option<String>,
    },
    #[error("This subscription has ended. Subscribe again.")]
    SubscriptionEnded,

    #[error("The database cannot be reached just now. Nothing was lost; try again.")]
    DatabaseUnavailable,
    #[error("Too busy just now. Try again.")]
    Busy,
    #[error("Something went wrong on our side. It has been reported.")]
    Internal(#[source] anyhow::Error),
}

/// A member of the request that cannot be as it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Invalid {
    /// The member's name.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Invalid {
    pub fn new(field: &str, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// Why a password will not do, in GoTrue's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weakness {
    #[default]
    Length,
    /// Known to attackers, or made of the address.
    Pwned,
}

impl Weakness {
    pub fn explain(self) -> &'static str {
        match self {
            Self::Length => "Password is too short, or longer than 256 characters.",
            Self::Pwned => {
                "Password is known to be weak and easy to guess, please choose a different one."
            }
        }
    }
}

fn with_model(model: Option<&str>) -> String {
    model.map_or_else(String::new, |model| format!(" of {model}"))
}

fn summary(invalid: &[Invalid]) -> String {
    let each: Vec<_> = invalid
        .iter()
        .map(|i| format!("{} {}", i.field, i.problem))
        .collect();
    format!("{}.", each.join("; "))
}

impl Error {
    /// One invalid member.
    pub fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid(vec![Invalid::new(field, problem)])
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        if error.is_unavailable() {
            tracing::warn!(error = %error, "the database did not take the work");
            Self::DatabaseUnavailable
        } else {
            Self::Internal(error.into())
        }
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast_ref::<db::Error>() {
            Some(cause) if cause.is_unavailable() => {
                tracing::warn!(
                    error = explain(&error),
                    "the database did not take the work"
                );
                Self::DatabaseUnavailable
            }
            _ => Self::Internal(error),
        }
    }
}

/// An error and its causes, without those that only say again what was said.
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    text
}
