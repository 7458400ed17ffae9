create table ledger (
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
insert into ledger (generation_id, user_id, provider, model, input_tokens, output_tokens, cost_microusd, usage_source, created_at)
select generation_id, user_id, provider, model, input_tokens, output_tokens, cost_microusd,
       case when usage_source = 'maybe_billed' then 'estimated' else usage_source end, created_at
from usage_ledger;
drop table usage_ledger;
alter table ledger rename to usage_ledger;
create index usage_ledger_user on usage_ledger (user_id, created_at);

alter table generations drop column in_budget;
alter table generations drop column in_model_window;
alter table generations drop column price_id;
alter table generations drop column reserved_microusd;

create table windows (
    subject       text        not null,
    metric        text        not null check (metric in ('messages', 'tokens')),
    window_start  timestamptz not null,
    used          bigint      not null check (used >= 0),
    reserved      bigint      not null check (reserved >= 0),
    primary key (subject, metric, window_start)
);
insert into windows (subject, metric, window_start, used, reserved)
select subject, 'messages', window_start, messages_used, messages_reserved from quota_windows where model = '' and subject like 'user:%'
union all
select subject, 'tokens', window_start, tokens_used, tokens_reserved from quota_windows where model = '' and subject like 'user:%';
drop table quota_windows;
alter table windows rename to quota_windows;

drop table llm_settings;
drop table model_prices;
