-- Selling on the web.

-- The customer that a user's checkouts are for. There is one; a user who was merged, or paid by a link, may
-- have others besides.
alter table billing_customers add column checkout boolean not null default false;
create unique index billing_customers_checkout on billing_customers (provider, mode, user_id) where checkout;

create table billing_checkouts (
    id            text        not null primary key,
    user_id       uuid        not null references users (id) on delete cascade,
    mode          text        not null,
    -- Of the request: the same key is the same checkout.
    key           text        not null,
    request_hash  bytea       not null,
    plan          text        not null,
    url           text        not null,
    expires_at    timestamptz not null,
    created_at    timestamptz not null
);
create unique index billing_checkouts_key on billing_checkouts (user_id, key);
create index billing_checkouts_expires on billing_checkouts (expires_at);
