-- What a user proves besides the first proof: a session that saw one of these is at aal2.
create table mfa_factors (
    id                  uuid        not null primary key,
    user_id             uuid        not null references users (id) on delete cascade,
    factor_type         text        not null check (factor_type in ('totp', 'webauthn', 'recovery_code')),
    friendly_name       text        not null,
    status              text        not null check (status in ('unverified', 'verified')),
    -- TOTP's shared secret, sealed.
    secret_sealed       bytea,
    -- Of RFC 6238, of the newest code that was taken: neither it nor an older one is taken again.
    last_used_step      bigint,
    failed_attempts     bigint      not null,
    locked_until        timestamptz,
    last_challenged_at  timestamptz,
    created_at          timestamptz not null,
    updated_at          timestamptz not null
);
create unique index mfa_factors_name on mfa_factors (user_id, friendly_name) where friendly_name <> '';
create unique index mfa_factors_recovery on mfa_factors (user_id) where factor_type = 'recovery_code';
create index mfa_factors_user on mfa_factors (user_id, status);
create index mfa_factors_unverified on mfa_factors (created_at) where status = 'unverified';

-- A question that one session was asked; answered once.
create table mfa_challenges (
    id           uuid        not null primary key,
    factor_id    uuid        not null references mfa_factors (id) on delete cascade,
    session_id   uuid        not null references sessions (id) on delete cascade,
    expires_at   timestamptz not null,
    answered_at  timestamptz,
    created_at   timestamptz not null
);
create index mfa_challenges_factor on mfa_challenges (factor_id);
create index mfa_challenges_session on mfa_challenges (session_id);
create index mfa_challenges_expiry on mfa_challenges (expires_at);
