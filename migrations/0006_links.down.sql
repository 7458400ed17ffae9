drop index one_time_tokens_link;
alter table one_time_tokens drop column challenge;
alter table one_time_tokens drop column link_expires_at;
alter table one_time_tokens drop column link_hash;
drop table auth_codes;
