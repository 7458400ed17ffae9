-- People, how they prove who they are, and where they are signed in.

create table users (
    id                  uuid        not null primary key,
    email               text,
    email_confirmed_at  timestamptz,
    password_hash       text,
    role                text        not null check (role in ('authenticated', 'admin')),
    app_metadata        jsonb       not null,
    user_metadata       jsonb       not null,
    is_anonymous        boolean     not null,
    banned_until        timestamptz,
    last_sign_in_at     timestamptz,
    created_at          timestamptz not null,
    updated_at          timestamptz not null
);
-- Only who proved to own an address holds it: an unconfirmed sign-up blocks nobody.
create unique index users_confirmed_email on users (email) where email_confirmed_at is not null;
create index users_email on users (email);
create index users_unconfirmed on users (created_at) where email_confirmed_at is null;

create table identities (
    id               uuid        not null primary key,
    user_id          uuid        not null references users (id) on delete cascade,
    provider         text        not null,
    issuer           text        not null,
    subject          text        not null,
    profile          jsonb       not null,
    last_sign_in_at  timestamptz,
    created_at       timestamptz not null,
    updated_at       timestamptz not null
);
create unique index identities_subject on identities (issuer, subject);
create index identities_user on identities (user_id);

create table sessions (
    id                   uuid        not null primary key,
    user_id              uuid        not null references users (id) on delete cascade,
    -- Refresh tokens are derived from the counter and this secret; no token is stored.
    refresh_secret       bytea       not null,
    refresh_counter      bigint      not null,
    acked_counter        bigint      not null,
    rotated_at           timestamptz not null,
    aal                  text        not null check (aal in ('aal1', 'aal2')),
    amr                  jsonb       not null,
    ip                   text,
    user_agent           text,
    last_seen_at         timestamptz not null,
    idle_expires_at      timestamptz not null,
    absolute_expires_at  timestamptz not null,
    revoked_at           timestamptz,
    revoke_reason        text,
    created_at           timestamptz not null
);
create index sessions_user on sessions (user_id);
create index sessions_idle on sessions (idle_expires_at);

create table one_time_tokens (
    id           uuid        not null primary key,
    user_id      uuid        not null references users (id) on delete cascade,
    kind         text        not null,
    email        text        not null,
    secret_hash  bytea       not null,
    attempts     bigint      not null,
    expires_at   timestamptz not null,
    consumed_at  timestamptz,
    created_at   timestamptz not null
);
create index one_time_tokens_email on one_time_tokens (email, kind);
create index one_time_tokens_user on one_time_tokens (user_id);
create index one_time_tokens_expiry on one_time_tokens (expires_at);

create table signing_keys (
    kid             text        not null primary key,
    alg             text        not null,
    state           text        not null check (state in ('standby', 'active', 'retired')),
    public_jwk      jsonb       not null,
    private_sealed  bytea       not null,
    created_at      timestamptz not null,
    activated_at    timestamptz,
    retired_at      timestamptz
);
create unique index signing_keys_active on signing_keys (state) where state = 'active';
