-- What is told of a subscription's money, by events that come in any order, and what came of each event.

-- All it opens, as a JSON list of names; where it is null, the plan alone.
alter table billing_subscriptions add column entitlements jsonb;
-- `trial` or `promo`; else it is paid for.
alter table billing_subscriptions add column kind text;
alter table billing_subscriptions add column started_at timestamptz;
alter table billing_subscriptions add column latest_invoice text;
-- What becomes of invoices while collection is paused, in Stripe's word.
alter table billing_subscriptions add column paused text;
-- When it was last told to be paid up: what failed before is over.
alter table billing_subscriptions add column paid_up_at timestamptz;
-- Until when a store forgives a failed charge.
alter table billing_subscriptions add column grace_until timestamptz;
alter table billing_subscriptions add column refunded_at timestamptz;

-- Of two that end at the same time, what is paid for is shown.
alter table entitlement_grants add column kind text not null default 'paid';

create table billing_invoices (
    provider        text        not null,
    mode            text        not null,
    external_id     text        not null,
    subscription    text,
    billing_reason  text,
    amount_paid     bigint      not null,
    currency        text,
    -- Until when it pays.
    period_end      timestamptz,
    -- When a charge of it was first told to have failed.
    failed_at       timestamptz,
    -- When its customer was first told to have to confirm it.
    action_at       timestamptz,
    -- Where its customer pays or sees it.
    url             text,
    paid_at         timestamptz,
    primary key (provider, mode, external_id)
);
create index billing_invoices_subscription on billing_invoices (subscription);

-- A payment of an invoice, or of something that is bought once.
create table billing_payments (
    provider     text        not null,
    mode         text        not null,
    external_id  text        not null,
    invoice      text,
    amount       bigint      not null,
    currency     text,
    customer     text,
    user_id      uuid        references users (id) on delete cascade,
    -- What is bought once.
    plan         text,
    paid_at      timestamptz,
    primary key (provider, mode, external_id)
);
create index billing_payments_invoice on billing_payments (invoice);
create index billing_payments_user on billing_payments (user_id);
create index billing_payments_customer on billing_payments (customer);

-- Money that goes back, as of `basis_at`.
create table billing_reversals (
    provider     text        not null,
    mode         text        not null,
    external_id  text        not null,
    kind         text        not null check (kind in ('charge', 'refund', 'dispute')),
    payment      text        not null,
    amount       bigint      not null,
    status       text        not null,
    basis_at     timestamptz not null,
    primary key (provider, mode, external_id)
);
create index billing_reversals_payment on billing_reversals (payment);

-- Receipts: which event, by which rule, changed what.
create table billing_timeline (
    id           uuid        not null primary key,
    user_id      uuid        references users (id) on delete cascade,
    provider     text        not null,
    mode         text        not null,
    object       text        not null,
    event        text        not null,
    kind         text        not null,
    rule         text        not null,
    before       jsonb       not null,
    after        jsonb       not null,
    occurred_at  timestamptz not null,
    created_at   timestamptz not null
);
create index billing_timeline_user on billing_timeline (user_id, id);
create index billing_timeline_object on billing_timeline (object, id);

-- What users were told by mail, once each.
create table billing_notices (
    key         text        not null primary key,
    user_id     uuid        not null references users (id) on delete cascade,
    created_at  timestamptz not null
);
create index billing_notices_user on billing_notices (user_id);
