-- Anonymous users who turned out to be somebody: stores go on naming them by the id they had.
create table merged_users (
    id         uuid        not null primary key,
    user_id    uuid        not null references users (id) on delete cascade,
    merged_at  timestamptz not null
);
create index merged_users_user on merged_users (user_id);
