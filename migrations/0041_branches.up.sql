-- Ids that clients give to what they begin: the AI SDK's are no UUIDs.
alter table conversations add column client_id text;
create unique index conversations_client_id on conversations (user_id, client_id) where client_id is not null;
alter table messages add column client_id text;
create unique index messages_client_id on messages (conversation_id, client_id) where client_id is not null;

-- How often what is shown of a conversation changed: of two who change it at once, one hears of the other.
alter table conversations add column version bigint not null default 0;

-- What a user tells assistants of themself.
create table profiles (
    user_id     uuid        not null primary key references users (id) on delete cascade,
    data        jsonb       not null,
    updated_at  timestamptz not null
);
