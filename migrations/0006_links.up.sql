-- Codes that a redirect carries to a client, which shows with its verifier that it is the one who
-- asked (PKCE, RFC 7636).
create table auth_codes (
    id                      uuid        not null primary key,
    user_id                 uuid        not null references users (id) on delete cascade,
    code_hash               bytea       not null,
    challenge               text        not null,
    method                  text        not null,
    -- What an OAuth provider gave for its own API, sealed.
    provider_token          bytea,
    provider_refresh_token  bytea,
    -- The session it opened: a second use of the code ends it.
    session_id              uuid,
    expires_at              timestamptz not null,
    consumed_at             timestamptz,
    created_at              timestamptz not null
);
create unique index auth_codes_hash on auth_codes (code_hash);
create index auth_codes_user on auth_codes (user_id);
create index auth_codes_expiry on auth_codes (expires_at);

-- A mail has a code to type and a link to follow; the link is long, cannot be guessed, and lives longer.
alter table one_time_tokens add column link_hash bytea;
alter table one_time_tokens add column link_expires_at timestamptz;
-- Of the client that asked, when it wants an auth code at the end of the link.
alter table one_time_tokens add column challenge text;
create unique index one_time_tokens_link on one_time_tokens (link_hash);
