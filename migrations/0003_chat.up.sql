-- Conversations, the answers being made, and what they cost.

create table conversations (
    id           uuid        not null primary key,
    user_id      uuid        not null references users (id) on delete cascade,
    title        text,
    assistant    text        not null,
    active_leaf  uuid,
    archived_at  timestamptz,
    created_at   timestamptz not null,
    updated_at   timestamptz not null
);
create index conversations_user on conversations (user_id, id);

create table messages (
    id                 uuid        not null primary key,
    conversation_id    uuid        not null references conversations (id) on delete cascade,
    parent_id          uuid        references messages (id) on delete cascade,
    role               text        not null check (role in ('user', 'assistant')),
    content            text        not null,
    status             text        not null check (status in ('streaming', 'complete', 'truncated', 'stopped', 'failed')),
    model              text,
    input_tokens       bigint,
    output_tokens      bigint,
    created_at         timestamptz not null
);
create index messages_conversation on messages (conversation_id, id);
create index messages_parent on messages (parent_id);

create table generations (
    id                  uuid        not null primary key,
    user_id             uuid        not null references users (id) on delete cascade,
    -- Deleting what an answer is for does not undo what was set aside for it: that is still settled.
    conversation_id     uuid        references conversations (id) on delete set null,
    message_id          uuid        references messages (id) on delete set null,
    model               text        not null,
    owner               text        not null,
    lease_until         timestamptz not null,
    window_start        timestamptz not null,
    reserved_tokens     bigint      not null,
    prompt_tokens       bigint      not null,
    finished_at         timestamptz,
    finish_reason       text,
    error_code          text,
    created_at          timestamptz not null
);
create unique index generations_message on generations (message_id);
create index generations_user on generations (user_id, id);
create index generations_conversation on generations (conversation_id);
create index generations_lease on generations (lease_until) where finished_at is null;

create table quota_windows (
    subject       text        not null,
    metric        text        not null check (metric in ('messages', 'tokens')),
    window_start  timestamptz not null,
    used          bigint      not null check (used >= 0),
    reserved      bigint      not null check (reserved >= 0),
    primary key (subject, metric, window_start)
);

-- Append only. Outlives its user: what was spent stays spent.
create table usage_ledger (
    generation_id   uuid        not null primary key,
    user_id         uuid        references users (id) on delete set null,
    provider        text        not null,
    model           text        not null,
    input_tokens    bigint      not null,
    output_tokens   bigint      not null,
    cost_microusd   bigint      not null,
    usage_source    text        not null check (usage_source in ('provider', 'estimated', 'none')),
    created_at      timestamptz not null
);
create index usage_ledger_user on usage_ledger (user_id, created_at);

create table idempotency_keys (
    user_id        uuid        not null references users (id) on delete cascade,
    scope          text        not null,
    key            text        not null,
    request_hash   bytea       not null,
    answer         text,
    expires_at     timestamptz not null,
    created_at     timestamptz not null,
    primary key (user_id, scope, key)
);
create index idempotency_keys_expiry on idempotency_keys (expires_at);
