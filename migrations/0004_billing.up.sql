-- What providers told us, what they sold, and what it opens.

create table webhook_events (
    id            uuid        not null primary key,
    provider      text        not null check (provider in ('stripe', 'revenuecat')),
    mode          text        not null check (mode in ('live', 'test')),
    external_id   text        not null,
    kind          text        not null,
    api_version   text,
    subject       text        not null,
    occurred_at   timestamptz not null,
    received_at   timestamptz not null,
    -- Which of the configured secrets matched, counted from 0.
    key_index     bigint      not null,
    body          bytea       not null,
    status        text        not null check (status in ('received', 'processed', 'ignored', 'parked', 'dead')),
    reason        text,
    processed_at  timestamptz
);
create unique index webhook_events_external on webhook_events (provider, mode, external_id);
create index webhook_events_status on webhook_events (status, received_at);

create table billing_customers (
    provider     text        not null,
    mode         text        not null,
    external_id  text        not null,
    user_id      uuid        not null references users (id) on delete cascade,
    created_at   timestamptz not null,
    primary key (provider, mode, external_id)
);
create index billing_customers_user on billing_customers (user_id);

-- A snapshot of the provider's object, as of `basis_at`.
create table billing_subscriptions (
    provider              text        not null,
    mode                  text        not null,
    external_id           text        not null,
    user_id               uuid        references users (id) on delete cascade,
    customer              text,
    store                 text        not null,
    status                text        not null,
    plan                  text,
    product               text,
    quantity              bigint      not null,
    will_renew            boolean     not null,
    period_start          timestamptz,
    period_end            timestamptz,
    trial_end             timestamptz,
    cancel_at             timestamptz,
    ended_at              timestamptz,
    basis_at              timestamptz not null,
    basis_rank            bigint      not null,
    basis_event           text        not null,
    created_at            timestamptz not null,
    updated_at            timestamptz not null,
    primary key (provider, mode, external_id)
);
create index billing_subscriptions_user on billing_subscriptions (user_id);
create index billing_subscriptions_customer on billing_subscriptions (customer);

-- One row a source and entitlement; what a user may do is a function of these and the clock.
create table entitlement_grants (
    user_id      uuid        not null references users (id) on delete cascade,
    entitlement  text        not null,
    source       text        not null,
    source_ref   text        not null,
    starts_at    timestamptz not null,
    ends_at      timestamptz,
    revoked_at   timestamptz,
    reason       text,
    in_grace     boolean     not null,
    will_renew   boolean     not null,
    updated_at   timestamptz not null,
    primary key (source, source_ref, entitlement)
);
create index entitlement_grants_user on entitlement_grants (user_id);
