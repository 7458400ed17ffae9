-- Hearing of what no webhook told.

-- How far what happened elsewhere was read.
create table billing_cursors (
    name     text        not null primary key,
    read_to  timestamptz not null
);

alter table webhook_events add column source text not null default 'hook' check (source in ('hook', 'poll'));
