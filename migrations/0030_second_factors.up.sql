-- What stands for a second factor that was lost; each counts once.
create table mfa_recovery_codes (
    id          uuid        not null primary key,
    factor_id   uuid        not null references mfa_factors (id) on delete cascade,
    code_hash   bytea       not null,
    used_at     timestamptz,
    created_at  timestamptz not null
);
create unique index mfa_recovery_codes_code on mfa_recovery_codes (factor_id, code_hash);

-- Credentials of WebAuthn that are a second factor, and sign nobody in by themselves.
create table mfa_webauthn_credentials (
    factor_id        uuid        not null primary key references mfa_factors (id) on delete cascade,
    credential_id    bytea       not null,
    -- COSE, RFC 9052.
    public_key       bytea       not null,
    sign_count       bigint      not null,
    -- Whether it can be on several devices, and is.
    backup_eligible  boolean     not null,
    backed_up        boolean     not null,
    -- The model of the authenticator, as it says.
    aaguid           uuid        not null,
    transports       jsonb       not null,
    created_at       timestamptz not null,
    updated_at       timestamptz not null
);
create unique index mfa_webauthn_credentials_credential on mfa_webauthn_credentials (credential_id);

-- What an authenticator of WebAuthn has to sign; nothing for codes.
alter table mfa_challenges add column challenge bytea;
