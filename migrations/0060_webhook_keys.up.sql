-- Which secret signed an event: the beginning of its hash, which stays true when the list is reordered.
alter table webhook_events drop column key_index;
alter table webhook_events add column key_id text;

-- When a secret was last signed with, so that an old one can be retired with confidence.
create table webhook_keys (
    provider     text        not null,
    key_id       text        not null,
    last_used_at timestamptz not null,
    primary key (provider, key_id)
);
