-- Side effects that wait to happen.

create table jobs (
    id           uuid        not null primary key,
    kind         text        not null,
    subject      text,
    payload      jsonb       not null,
    dedupe_key   text,
    due_at       timestamptz not null,
    attempts     bigint      not null,
    worker       text,
    lease_until  timestamptz,
    error        text,
    done_at      timestamptz,
    dead_at      timestamptz,
    created_at   timestamptz not null
);
create unique index jobs_dedupe on jobs (dedupe_key);
create index jobs_due on jobs (due_at) where done_at is null and dead_at is null;
-- One at a time for each subject: the database itself refuses a second lease.
create unique index jobs_leased_subject on jobs (subject) where lease_until is not null;
create index jobs_lease on jobs (lease_until) where lease_until is not null;
create index jobs_subject on jobs (subject, due_at) where done_at is null and dead_at is null;
create index jobs_done on jobs (done_at) where done_at is not null;
create index jobs_dead on jobs (dead_at) where dead_at is not null;
