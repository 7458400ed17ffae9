//! What each error is to a client: its status, its code and its short title, all part of the contract.
use super::{Dialect, Error};
use axum::http::StatusCode;

/// Every refusal once: its status, code and short title.
pub struct Kind(pub StatusCode, pub &'static str, pub &'static str);

impl Error {
    /// The status it is answered with.
    pub fn status(&self, dialect: Dialect) -> StatusCode {
        self.kind(dialect).0
    }

    /// The stable word for it.
    pub fn code(&self, dialect: Dialect) -> &'static str {
        self.kind(dialect).1
    }

    pub(super) fn kind(&self, dialect: Dialect) -> Kind {
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
}
