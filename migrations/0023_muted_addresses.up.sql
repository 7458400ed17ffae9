-- Relay addresses whose owner wants no more mail through them, as Apple told us.
create table muted_addresses (
    email     text        not null primary key,
    muted_at  timestamptz not null
);
