-- What a user's browser asked for when they last signed in: mails are written in it.
alter table users add column language text;
