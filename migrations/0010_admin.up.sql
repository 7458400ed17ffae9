-- Admins list users, newest first.
create index users_created on users (created_at, id);
