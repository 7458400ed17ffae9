drop table webhook_keys;
alter table webhook_events drop column key_id;
alter table webhook_events add column key_index bigint not null default 0;
