alter table sessions drop column authenticated_at;
drop table audit_origins;
drop table audit_events;
drop function refuse_change();
