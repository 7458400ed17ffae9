-- The order of decisions, and a hash of each with everything before it: who changes one has to change
-- all that follow. Written by a job, not by whoever decides: see docs/decisions/0009.
create table audit_seals (
    event_id  uuid    not null primary key references audit_events (id),
    seq       bigint  not null,
    hash      bytea   not null
);
create unique index audit_seals_seq on audit_seals (seq);

create trigger audit_seals_final before update on audit_seals
begin
    select raise(abort, 'audit_seals is only ever added to');
end;
create trigger audit_seals_whole before delete on audit_seals
begin
    select raise(abort, 'audit_seals is only ever added to');
end;
