-- Sign-in with tokens that others issued.

-- What was presented once and is not taken again: hashes, until the thing itself expires.
create table seen_tokens (
    hash        bytea       not null primary key,
    expires_at  timestamptz not null
);
create index seen_tokens_expiry on seen_tokens (expires_at);

-- The client of ours that the identity was proved to, and what revokes it there, sealed.
alter table identities add column client_id text;
alter table identities add column refresh_token bytea;
