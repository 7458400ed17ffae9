alter table webhook_events drop column source;
drop table billing_cursors;
