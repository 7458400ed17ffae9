-- Personal API keys: what a user's own programs ask with.
create table api_keys (
    id            uuid        not null primary key,
    user_id       uuid        not null references users (id) on delete cascade,
    name          text        not null,
    -- SHA-256: a key is 256 random bits, which nobody finds by trying.
    hash          bytea       not null,
    -- The first characters, to tell keys apart by.
    hint          text        not null,
    expires_at    timestamptz,
    last_used_at  timestamptz,
    created_at    timestamptz not null
);
create unique index api_keys_hash on api_keys (hash);
create index api_keys_user on api_keys (user_id, id);
