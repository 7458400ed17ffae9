//! What a handler refuses or fails with, and how it reads in the dialect of its route.
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use db::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

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

/// Whose error words a path speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 9457.
    Problem,
    /// RFC 9457 with the statuses and codes of GoTrue: <https://supabase.com/docs/guides/auth/debugging/error-codes>.
    GoTrue,
    /// `{"error": {…}}`: <https://platform.openai.com/docs/guides/error-codes>.
    OpenAi,
}

impl Dialect {
    pub fn of(path: &str) -> Self {
        match path {
            p if p.starts_with("/auth/") => Self::GoTrue,
            p if p.starts_with("/v1/") => Self::OpenAi,
            _ => Self::Problem,
        }
    }
}

/// Every refusal once: its status, code and short title.
struct Kind(StatusCode, &'static str, &'static str);

impl Error {
    /// One invalid member.
    pub fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid(vec![Invalid::new(field, problem)])
    }

    /// The status it is answered with.
    pub fn status(&self, dialect: Dialect) -> StatusCode {
        self.kind(dialect).0
    }

    /// The stable word for it.
    pub fn code(&self, dialect: Dialect) -> &'static str {
        self.kind(dialect).1
    }

    fn kind(&self, dialect: Dialect) -> Kind {
        use Dialect::{GoTrue, OpenAi};
        use StatusCode as S;
        match (self, dialect) {
            (Self::MalformedJson(_), GoTrue) => Kind(S::BAD_REQUEST, "bad_json", "Malformed JSON"),
            (Self::MalformedJson(_), _) => Kind(S::BAD_REQUEST, "malformed_json", "Malformed JSON"),
            (Self::Invalid(_), _) => Kind(S::BAD_REQUEST, "validation_failed", "Invalid request"),
            (Self::UnsupportedMediaType, _) => Kind(
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported media type",
            ),
            (Self::BodyTooLarge, _) => {
                Kind(S::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large")
            }
            (Self::NotFound, _) => Kind(S::NOT_FOUND, "not_found", "Not found"),
            (Self::MethodNotAllowed, _) => Kind(
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
            ),
            (Self::RequestTimeout, _) => {
                Kind(S::REQUEST_TIMEOUT, "request_timeout", "Request timeout")
            }
            (Self::NoToken, OpenAi) => {
                Kind(S::UNAUTHORIZED, "invalid_api_key", "No token provided")
            }
            (Self::NoToken, _) => Kind(S::UNAUTHORIZED, "no_authorization", "No token provided"),
            (Self::InvalidToken, GoTrue) => Kind(S::FORBIDDEN, "bad_jwt", "Invalid token"),
            (Self::InvalidToken, OpenAi) => {
                Kind(S::UNAUTHORIZED, "invalid_api_key", "Invalid token")
            }
            (Self::InvalidToken, _) => Kind(S::UNAUTHORIZED, "invalid_token", "Invalid token"),
            (Self::SessionEnded, GoTrue) => {
                Kind(S::FORBIDDEN, "session_not_found", "Invalid token")
            }
            (Self::SessionEnded, OpenAi) => {
                Kind(S::UNAUTHORIZED, "invalid_api_key", "Invalid token")
            }
            (Self::SessionEnded, _) => Kind(S::UNAUTHORIZED, "session_ended", "Invalid token"),
            (Self::CrossSiteRequest, _) => {
                Kind(S::FORBIDDEN, "cross_site_request", "Cross-site request")
            }
            (Self::Forbidden, _) => Kind(S::FORBIDDEN, "forbidden", "Forbidden"),
            (Self::NotAdmin, _) => Kind(S::FORBIDDEN, "not_admin", "Not an admin"),
            (Self::ReauthenticationNeeded { .. }, _) => {
                Kind(S::FORBIDDEN, "reauthentication_needed", "Sign in again")
            }
            (Self::InsufficientAal { .. }, _) => {
                Kind(S::FORBIDDEN, "insufficient_aal", "Second factor needed")
            }
            (Self::FactorNotFound, _) => {
                Kind(S::NOT_FOUND, "mfa_factor_not_found", "Factor not found")
            }
            (Self::EventSettled, _) => Kind(S::CONFLICT, "event_settled", "Event settled"),
            (Self::FactorNameConflict, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "mfa_factor_name_conflict",
                "Name in use",
            ),
            (Self::TooManyFactors, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "too_many_enrolled_mfa_factors",
                "Too many factors",
            ),
            (Self::VerifiedFactorExists, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "mfa_verified_factor_exists",
                "Recovery codes exist",
            ),
            (Self::RecoveryCodesSoleFactor, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "mfa_recovery_codes_sole_factor",
                "No other factor",
            ),
            (Self::RecoveryCodesLocked { .. }, _) => Kind(
                S::TOO_MANY_REQUESTS,
                "mfa_recovery_codes_locked",
                "Too many wrong codes",
            ),
            (Self::ChallengeExpired, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "mfa_challenge_expired",
                "Challenge expired",
            ),
            (Self::MfaVerificationFailed, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "mfa_verification_failed",
                "Wrong code",
            ),
            (Self::FactorLocked { .. }, _) => Kind(
                S::TOO_MANY_REQUESTS,
                "over_request_rate_limit",
                "Too many wrong codes",
            ),
            (Self::UserBanned, _) => Kind(S::FORBIDDEN, "user_banned", "User banned"),
            (Self::PasswordExpired, _) => {
                Kind(S::FORBIDDEN, "password_expired", "Password expired")
            }
            (Self::InvalidCredentials, _) => {
                Kind(S::BAD_REQUEST, "invalid_credentials", "Invalid credentials")
            }
            (Self::EmailNotConfirmed, _) => {
                Kind(S::BAD_REQUEST, "email_not_confirmed", "Email not confirmed")
            }
            (Self::UserAlreadyExists, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "user_already_exists",
                "User already exists",
            ),
            (Self::EmailExists, _) => Kind(S::UNPROCESSABLE_ENTITY, "email_exists", "Email exists"),
            (Self::UserNotFound, _) => Kind(S::NOT_FOUND, "user_not_found", "User not found"),
            (Self::WeakPassword(_), _) => {
                Kind(S::UNPROCESSABLE_ENTITY, "weak_password", "Weak password")
            }
            (Self::SamePassword, _) => {
                Kind(S::UNPROCESSABLE_ENTITY, "same_password", "Same password")
            }
            (Self::SignupDisabled, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "signup_disabled",
                "Signup disabled",
            ),
            (Self::AnonymousDisabled, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "anonymous_provider_disabled",
                "Anonymous sign-in disabled",
            ),
            (Self::PhoneDisabled, _) => Kind(
                S::BAD_REQUEST,
                "phone_provider_disabled",
                "Phone sign-in disabled",
            ),
            (Self::UnsupportedGrantType, _) => Kind(
                S::BAD_REQUEST,
                "validation_failed",
                "Unsupported grant type",
            ),
            (Self::RefreshTokenNotFound, _) => Kind(
                S::BAD_REQUEST,
                "refresh_token_not_found",
                "Invalid refresh token",
            ),
            (Self::RefreshTokenAlreadyUsed, _) => Kind(
                S::BAD_REQUEST,
                "refresh_token_already_used",
                "Invalid refresh token",
            ),
            (Self::SessionExpired, _) => Kind(S::BAD_REQUEST, "session_expired", "Session expired"),
            (Self::OtpExpired, _) => Kind(S::FORBIDDEN, "otp_expired", "Invalid or expired token"),
            (Self::ReauthenticationNotValid, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "reauthentication_not_valid",
                "Invalid or expired nonce",
            ),
            (Self::FlowStateNotFound, _) => {
                Kind(S::NOT_FOUND, "flow_state_not_found", "Unknown code")
            }
            (Self::FlowStateExpired, _) => Kind(S::FORBIDDEN, "flow_state_expired", "Expired code"),
            (Self::WebauthnChallengeNotFound, _) => Kind(
                S::BAD_REQUEST,
                "webauthn_challenge_not_found",
                "Unknown challenge",
            ),
            (Self::WebauthnChallengeExpired, _) => Kind(
                S::BAD_REQUEST,
                "webauthn_challenge_expired",
                "Expired challenge",
            ),
            (Self::WebauthnRefused(_), _) => Kind(
                S::BAD_REQUEST,
                "webauthn_verification_failed",
                "Credential refused",
            ),
            (Self::WebauthnCredentialExists, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "webauthn_credential_exists",
                "Credential exists",
            ),
            (Self::WebauthnCredentialNotFound, _) => Kind(
                S::NOT_FOUND,
                "webauthn_credential_not_found",
                "Passkey not found",
            ),
            (Self::TooManyPasskeys, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "too_many_passkeys",
                "Too many passkeys",
            ),
            (Self::TooManyApiKeys, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "too_many_api_keys",
                "Too many API keys",
            ),
            (Self::LastCredential, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "single_identity_not_deletable",
                "Last way to sign in",
            ),
            (Self::BadCodeVerifier, _) => {
                Kind(S::BAD_REQUEST, "bad_code_verifier", "Wrong code verifier")
            }
            (Self::MailRateLimited { .. }, _) => Kind(
                S::TOO_MANY_REQUESTS,
                "over_email_send_rate_limit",
                "Too many mails",
            ),
            (Self::InvalidIdToken, _) => {
                Kind(S::UNAUTHORIZED, "invalid_id_token", "Invalid ID token")
            }
            (Self::IdTokenReplayed, _) => {
                Kind(S::CONFLICT, "id_token_replayed", "ID token used before")
            }
            (Self::ProviderUnavailable, _) => Kind(
                S::SERVICE_UNAVAILABLE,
                "provider_unavailable",
                "Provider unavailable",
            ),
            (Self::ProviderDisabled, _) => {
                Kind(S::BAD_REQUEST, "provider_disabled", "Provider disabled")
            }
            (Self::AccountLinkRequired { .. }, _) => Kind(
                S::CONFLICT,
                "account_link_required",
                "Account has to be linked",
            ),
            (Self::MergeTokenExpired, _) => {
                Kind(S::GONE, "merge_token_expired", "Merge token expired")
            }
            (Self::IdentityAlreadyExists, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "identity_already_exists",
                "Identity already exists",
            ),
            (Self::BadOauthState, _) => Kind(S::BAD_REQUEST, "bad_oauth_state", "Bad OAuth state"),
            (Self::BadOauthCallback(_), _) => Kind(
                S::BAD_REQUEST,
                "bad_oauth_callback",
                "Bad answer of a provider",
            ),
            (Self::InvalidNotification, _) => Kind(
                S::BAD_REQUEST,
                "invalid_notification",
                "Invalid notification",
            ),
            (Self::ManualLinkingDisabled, _) => Kind(
                S::NOT_FOUND,
                "manual_linking_disabled",
                "Manual linking disabled",
            ),
            (Self::IdentityNotFound, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "identity_not_found",
                "Unknown identity",
            ),
            (Self::RateLimited { .. }, GoTrue) => Kind(
                S::TOO_MANY_REQUESTS,
                "over_request_rate_limit",
                "Too many requests",
            ),
            (Self::RateLimited { .. }, OpenAi) => Kind(
                S::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                "Too many requests",
            ),
            (Self::RateLimited { .. }, _) => {
                Kind(S::TOO_MANY_REQUESTS, "rate_limited", "Too many requests")
            }
            (Self::QuotaExceeded { .. }, OpenAi) => {
                Kind(S::TOO_MANY_REQUESTS, "insufficient_quota", "Quota exceeded")
            }
            (Self::QuotaExceeded { .. }, _) => {
                Kind(S::PAYMENT_REQUIRED, "quota_exceeded", "Quota exceeded")
            }
            (Self::ModelNotInPlan { .. }, _) => {
                Kind(S::FORBIDDEN, "model_not_in_plan", "Model not in plan")
            }
            (Self::ModelNotFound { .. }, _) => {
                Kind(S::NOT_FOUND, "model_not_found", "Model not found")
            }
            (Self::LlmUnavailable { .. } | Self::LlmSwitchedOff { .. }, _) => Kind(
                S::SERVICE_UNAVAILABLE,
                "llm_unavailable",
                "Language model unavailable",
            ),
            (Self::LlmRefused(_), _) => Kind(
                S::BAD_REQUEST,
                "llm_refused",
                "Request refused by the language model",
            ),
            (Self::ContentFlagged, OpenAi) => Kind(
                S::BAD_REQUEST,
                "content_policy_violation",
                "Content flagged",
            ),
            (Self::ContentFlagged, _) => Kind(S::BAD_REQUEST, "content_flagged", "Content flagged"),
            (Self::LlmTimeout, _) => {
                Kind(S::GATEWAY_TIMEOUT, "llm_timeout", "Language model timeout")
            }
            (Self::IdempotencyMismatch, _) => Kind(
                S::UNPROCESSABLE_ENTITY,
                "idempotency_mismatch",
                "Idempotency key reused",
            ),
            (Self::IdempotencyInFlight, _) => {
                Kind(S::CONFLICT, "idempotency_in_flight", "Request under way")
            }
            (Self::ConversationChanged, _) => {
                Kind(S::CONFLICT, "conversation_changed", "Conversation changed")
            }
            (Self::InvalidSignature(_), _) => {
                Kind(S::BAD_REQUEST, "invalid_signature", "Invalid signature")
            }
            (Self::InvalidAuthorization(_), _) => Kind(
                S::UNAUTHORIZED,
                "invalid_authorization",
                "Invalid authorization",
            ),
            (Self::UnreadableEvent(_), _) => {
                Kind(S::BAD_REQUEST, "unreadable_event", "Unreadable event")
            }
            (Self::WebhookNotConfigured, _) => Kind(
                S::SERVICE_UNAVAILABLE,
                "webhook_not_configured",
                "Webhook not configured",
            ),
            (Self::BillingNotConfigured, _) => Kind(
                S::SERVICE_UNAVAILABLE,
                "billing_not_configured",
                "Billing not configured",
            ),
            (Self::BillingUnavailable { .. }, _) => Kind(
                S::SERVICE_UNAVAILABLE,
                "billing_unavailable",
                "Billing unavailable",
            ),
            (Self::BillingRefused, _) => {
                Kind(S::BAD_GATEWAY, "billing_refused", "Refused by Stripe")
            }
            (Self::AlreadySubscribed { .. }, _) => {
                Kind(S::CONFLICT, "already_subscribed", "Already subscribed")
            }
            (Self::ManagedElsewhere { .. }, _) => {
                Kind(S::CONFLICT, "managed_elsewhere", "Managed by a store")
            }
            (Self::SubscriptionEnded, _) => {
                Kind(S::CONFLICT, "subscription_ended", "Subscription ended")
            }
            (Self::PaymentFailed(_), _) => {
                Kind(S::PAYMENT_REQUIRED, "payment_failed", "Payment failed")
            }
            (Self::DatabaseUnavailable, _) => Kind(
                S::SERVICE_UNAVAILABLE,
                "database_unavailable",
                "Database unavailable",
            ),
            (Self::Busy, _) => Kind(S::SERVICE_UNAVAILABLE, "busy", "Busy"),
            (Self::Internal(_), GoTrue) => Kind(
                S::INTERNAL_SERVER_ERROR,
                "unexpected_failure",
                "Internal error",
            ),
            (Self::Internal(_), _) => Kind(S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after }
            | Self::MailRateLimited { retry_after }
            | Self::FactorLocked { retry_after }
            | Self::RecoveryCodesLocked { retry_after }
            | Self::BillingUnavailable { retry_after }
            | Self::LlmUnavailable { retry_after }
            | Self::LlmSwitchedOff { retry_after } => Some(*retry_after),
            Self::DatabaseUnavailable
            | Self::Busy
            | Self::ProviderUnavailable
            | Self::IdempotencyInFlight => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whether the same request may fare better in a moment. OpenAI's SDKs do as they are told, also
    /// where by themselves they would not try again (400, 401) or would (409, every 429).
    fn worth_retrying(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::MailRateLimited { .. } | Self::RequestTimeout => true,
            Self::WebhookNotConfigured
            | Self::BillingNotConfigured
            | Self::LlmSwitchedOff { .. } => false,
            _ => self.status(Dialect::OpenAi).is_server_error(),
        }
    }

    /// The answer, in the dialect of the path it was asked on.
    pub fn render(&self, dialect: Dialect, request_id: &str) -> Response {
        let Kind(status, code, title) = self.kind(dialect);
        let detail = self.to_string();
        let (content_type, body) = match dialect {
            Dialect::OpenAi => ("application/json", openai(self, code, &detail)),
            Dialect::Problem | Dialect::GoTrue => (
                "application/problem+json",
                problem(self, status, code, title, &detail, request_id),
            ),
        };
        let mut response = (
            status,
            [(header::CONTENT_TYPE, content_type)],
            body.to_string(),
        )
            .into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after() {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            );
        }
        if status == StatusCode::UNAUTHORIZED && !matches!(self, Self::InvalidAuthorization(_)) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::ReauthenticationNeeded { max_age } | Self::InsufficientAal { max_age } = self {
            let acr = match self {
                Self::InsufficientAal { .. } => ", acr_values=\"aal2\"",
                _ => "",
            };
            let challenge = format!(
                "Bearer error=\"insufficient_user_authentication\"{acr}, max_age=\"{}\"",
                max_age.as_secs()
            );
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
        }
        if dialect == Dialect::OpenAi {
            headers.insert(
                "x-should-retry",
                HeaderValue::from_static(if self.worth_retrying() {
                    "true"
                } else {
                    "false"
                }),
            );
        }
        if dialect == Dialect::GoTrue {
            headers.insert(
                "x-supabase-api-version",
                HeaderValue::from_static("2024-01-01"),
            );
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE || status == StatusCode::REQUEST_TIMEOUT {
            // What is left of the body is not worth reading.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// RFC 9457, with the members that clients of other shapes read: `error` and `message` at the top, GoTrue's `weak_password`.
fn problem(
    error: &Error,
    status: StatusCode,
    code: &str,
    title: &str,
    detail: &str,
    request_id: &str,
) -> Value {
    let mut body = json!({
        "type": format!("urn:plinth:error:{code}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
        "message": detail,
        "error": title,
        "request_id": request_id,
    });
    match error {
        Error::Invalid(invalid) => body["errors"] = json!(invalid),
        Error::WeakPassword(reasons) => body["weak_password"] = json!({"reasons": reasons}),
        Error::AccountLinkRequired { provider, email } => {
            body["provider"] = json!(provider);
            body["email"] = json!(email);
        }
        Error::AlreadySubscribed { store, manage_url }
        | Error::ManagedElsewhere { store, manage_url } => {
            body["store"] = json!(store);
            body["manage_url"] = json!(manage_url);
        }
        Error::QuotaExceeded {
            what,
            model,
            resets_at,
        } => {
            body["quota"] = json!(what);
            body["model"] = json!(model);
            body["resets_at"] = json!(resets_at);
        }
        _ => {}
    }
    body
}

fn openai(error: &Error, code: &str, detail: &str) -> Value {
    let kind = match error {
        Error::NoToken | Error::InvalidToken | Error::SessionEnded => "authentication_error",
        Error::Forbidden
        | Error::NotAdmin
        | Error::UserBanned
        | Error::CrossSiteRequest
        | Error::PasswordExpired
        | Error::ModelNotInPlan { .. } => "permission_error",
        Error::RateLimited { .. } => "requests",
        Error::QuotaExceeded { .. } => "insufficient_quota",
        error if error.status(Dialect::OpenAi).is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    let param = match error {
        Error::Invalid(invalid) => invalid.first().map(|i| i.field.clone()),
        Error::ModelNotFound { .. } | Error::ModelNotInPlan { .. } => Some("model".into()),
        _ => None,
    };
    json!({"error": {"message": detail, "type": kind, "param": param, "code": code}})
}

/// Carried out of a handler by an otherwise empty response; the layer that knows the path and the
/// request id makes the body of it.
#[derive(Clone)]
pub struct Refusal(pub std::sync::Arc<Error>);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status(Dialect::Problem).into_response();
        response
            .extensions_mut()
            .insert(Refusal(std::sync::Arc::new(self)));
        response
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

#[cfg(test)]
mod tests {
    #[test]
    fn every_code_is_documented() {
        let codes = include_str!("error.rs")
            .split("\n    fn kind(")
            .nth(1)
            .and_then(|rest| rest.split("\n    }\n").next())
            .unwrap();
        let words = codes
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let documented = include_str!("../../../docs/api.md");
        let missing: Vec<_> = words
            .filter(|word| !documented.contains(&format!("`{word}`")))
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
