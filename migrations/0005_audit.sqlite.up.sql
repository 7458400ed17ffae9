-- Every decision of sign-in, refusals too. Rows are added and never changed; an id of a user who is
-- gone names nobody any more.
create table audit_events (
    id          uuid        not null primary key,
    subject_id  uuid,
    actor_id    uuid,
    actor_kind  text        not null check (actor_kind in ('user', 'admin', 'system')),
    action      text        not null,
    outcome     text        not null check (outcome in ('succeeded', 'refused')),
    request_id  text,
    detail      jsonb       not null,
    created_at  timestamptz not null
);
create index audit_events_subject on audit_events (subject_id, id);

-- Where from. Personal, and so apart: it goes with its user.
create table audit_origins (
    event_id    uuid        not null primary key references audit_events (id),
    subject_id  uuid        references users (id) on delete cascade,
    ip          text,
    user_agent  text
);
create index audit_origins_subject on audit_origins (subject_id);

create trigger audit_events_final before update on audit_events
begin
    select raise(abort, 'audit_events is only ever added to');
end;
create trigger audit_events_whole before delete on audit_events
begin
    select raise(abort, 'audit_events is only ever added to');
end;

-- When the user last proved who they are, not only that they hold tokens.
alter table sessions add column authenticated_at timestamptz not null default 0;
update sessions set authenticated_at = created_at;
