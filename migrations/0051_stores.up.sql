-- Users as RevenueCat knows them, and what moves between them.

-- Names besides our own ids: aliases, and ids from before somebody signed in.
create table billing_identities (
    app_user_id  text        not null primary key,
    user_id      uuid        not null references users (id) on delete cascade,
    created_at   timestamptz not null
);
create index billing_identities_user on billing_identities (user_id);

-- Events that name nobody yet, by each name they have: they are applied again when it is somebody's.
create table billing_unlinked (
    name   text not null,
    event  uuid not null references webhook_events (id) on delete cascade,
    primary key (name, event)
);
create index billing_unlinked_event on billing_unlinked (event);

-- Purchases of one user that are another's from then on.
create table billing_transfers (
    event      text        not null,
    mode       text        not null,
    from_user  uuid        not null references users (id) on delete cascade,
    -- Null while nobody is known by `to_name`.
    to_user    uuid        references users (id) on delete cascade,
    to_name    text        not null,
    -- Stores whose receipts moved; null is all of them.
    stores     text,
    at         timestamptz not null,
    primary key (event, from_user)
);
create index billing_transfers_from on billing_transfers (from_user, at);
create index billing_transfers_to on billing_transfers (to_user);

-- Virtual currency, and what consumables are worth.
create table billing_credits (
    -- Names the transaction: it counts once.
    id          text        not null primary key,
    user_id     uuid        not null references users (id) on delete cascade,
    currency    text        not null,
    amount      bigint      not null,
    created_at  timestamptz not null
);
create index billing_credits_user on billing_credits (user_id, currency);
