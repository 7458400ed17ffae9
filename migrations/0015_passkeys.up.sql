-- Credentials of WebAuthn that sign in by themselves, and the challenges they answer.
create table webauthn_credentials (
    id               uuid        not null primary key,
    user_id          uuid        not null references users (id) on delete cascade,
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
    name             text,
    last_used_at     timestamptz,
    created_at       timestamptz not null,
    updated_at       timestamptz not null
);
create unique index webauthn_credentials_credential on webauthn_credentials (credential_id);
create index webauthn_credentials_user on webauthn_credentials (user_id);

create table webauthn_challenges (
    id          uuid        not null primary key,
    -- Of a registration; who signs in is not known yet.
    user_id     uuid        references users (id) on delete cascade,
    kind        text        not null check (kind in ('registration', 'authentication')),
    challenge   bytea       not null,
    expires_at  timestamptz not null,
    created_at  timestamptz not null
);
create index webauthn_challenges_user on webauthn_challenges (user_id);
create index webauthn_challenges_expiry on webauthn_challenges (expires_at);
