drop index signing_keys_standby;
alter table signing_keys drop column revoked_at;
