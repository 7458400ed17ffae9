-- Parts of the product that not everyone has yet. One that has no row is as the code says.
create table features (
    name       text        not null primary key,
    percentage bigint      not null check (percentage between 0 and 100),
    updated_at timestamptz not null
);

-- Who has one, or has it not, whatever the percentage.
create table feature_overrides (
    feature    text        not null,
    user_id    uuid        not null references users (id) on delete cascade,
    enabled    boolean     not null,
    updated_at timestamptz not null,
    primary key (feature, user_id)
);
create index feature_overrides_user on feature_overrides (user_id);
