alter table identities drop column refresh_token;
alter table identities drop column client_id;
drop table seen_tokens;
