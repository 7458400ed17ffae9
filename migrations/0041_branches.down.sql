drop table profiles;
alter table conversations drop column version;
drop index messages_client_id;
alter table messages drop column client_id;
drop index conversations_client_id;
alter table conversations drop column client_id;
