drop table signing_keys;
drop table one_time_tokens;
drop table sessions;
drop table identities;
drop table users;
