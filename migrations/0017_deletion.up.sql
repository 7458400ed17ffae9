-- What becomes of who leaves.

-- GoTrue's soft deletion leaves the id alone; a whole one leaves no row.
alter table users add column deleted_at timestamptz;
-- Until they choose a password of their own, they may do nothing else.
alter table users add column password_expired_at timestamptz;
create index users_anonymous on users (created_at) where is_anonymous;

-- Subscriptions that would go on charging someone who is gone. Outlives its user.
create table billing_cancellations (
    provider      text        not null,
    mode          text        not null,
    external_id   text        not null,
    customer      text,
    store         text        not null,
    requested_at  timestamptz not null,
    done_at       timestamptz,
    primary key (provider, mode, external_id)
);
create index billing_cancellations_waiting on billing_cancellations (requested_at) where done_at is null;
