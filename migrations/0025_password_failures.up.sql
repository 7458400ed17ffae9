-- Wrong passwords in a row; too many, and the right one counts no more until there is a new one.
alter table users add column password_failures bigint not null default 0;
