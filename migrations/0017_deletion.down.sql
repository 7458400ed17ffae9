drop table billing_cancellations;
drop index users_anonymous;
alter table users drop column password_expired_at;
alter table users drop column deleted_at;
