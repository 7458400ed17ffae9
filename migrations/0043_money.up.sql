-- Money beside messages and tokens: limits, dated prices, budgets, and what may have been billed.

-- Micro-dollars for a million tokens, from then on. Append only: what was charged can be computed again.
create table model_prices (
    id                     uuid        not null primary key,
    model                  text        not null,
    effective_from         timestamptz not null,
    input_microusd         bigint      not null check (input_microusd >= 0),
    -- Of input that the provider had at hand.
    cached_input_microusd  bigint      not null check (cached_input_microusd >= 0),
    output_microusd        bigint      not null check (output_microusd >= 0)
);
create unique index model_prices_model on model_prices (model, effective_from);

-- One row. Read by whoever is about to ask the model, in the transaction that accepts the question.
create table llm_settings (
    id                     text        not null primary key check (id = 'llm'),
    enabled                boolean     not null,
    budget_day_microusd    bigint      check (budget_day_microusd >= 0),
    budget_month_microusd  bigint      check (budget_month_microusd >= 0),
    updated_at             timestamptz
);
insert into llm_settings (id, enabled) values ('llm', true);

-- One row for each subject, so that it is locked, read and written once. The empty model is all of them.
create table windows (
    subject            text        not null,
    model              text        not null,
    window_start       timestamptz not null,
    messages_used      bigint      not null check (messages_used >= 0),
    messages_reserved  bigint      not null check (messages_reserved >= 0),
    tokens_used        bigint      not null check (tokens_used >= 0),
    tokens_reserved    bigint      not null check (tokens_reserved >= 0),
    cost_used          bigint      not null check (cost_used >= 0),
    cost_reserved      bigint      not null check (cost_reserved >= 0),
    primary key (subject, model, window_start)
);
insert into windows (subject, model, window_start, messages_used, messages_reserved, tokens_used, tokens_reserved,
                     cost_used, cost_reserved)
select subject, '', window_start,
       sum(case when metric = 'messages' then used else 0 end),
       sum(case when metric = 'messages' then reserved else 0 end),
       sum(case when metric = 'tokens' then used else 0 end),
       sum(case when metric = 'tokens' then reserved else 0 end),
       0, 0
from quota_windows group by subject, window_start;
drop table quota_windows;
alter table windows rename to quota_windows;

alter table generations add column reserved_microusd bigint not null default 0;
-- What its tokens cost, whatever they cost by the time that it ends.
alter table generations add column price_id uuid references model_prices (id);
-- Which windows besides the user's it was set aside in.
alter table generations add column in_model_window boolean not null default false;
alter table generations add column in_budget boolean not null default false;

-- Append only. Outlives its user: what was spent stays spent. Nothing heard of a provider that was
-- asked is `maybe_billed`: the question, as estimated, counts for budgets and not for the user.
create table ledger (
    generation_id     uuid        not null primary key,
    user_id           uuid        references users (id) on delete set null,
    provider          text        not null,
    model             text        not null,
    price_id          uuid        references model_prices (id),
    input_tokens      bigint      not null,
    -- Of the input.
    cached_tokens     bigint      not null,
    output_tokens     bigint      not null,
    -- Of the output.
    reasoning_tokens  bigint      not null,
    cost_microusd     bigint      not null check (cost_microusd >= 0),
    usage_source      text        not null check (usage_source in ('provider', 'estimated', 'maybe_billed', 'none')),
    created_at        timestamptz not null
);
insert into ledger (generation_id, user_id, provider, model, input_tokens, cached_tokens, output_tokens,
                    reasoning_tokens, cost_microusd, usage_source, created_at)
select generation_id, user_id, provider, model, input_tokens, 0, output_tokens, 0, cost_microusd, usage_source, created_at
from usage_ledger;
drop table usage_ledger;
alter table ledger rename to usage_ledger;
create index usage_ledger_user on usage_ledger (user_id, created_at);
create index usage_ledger_created on usage_ledger (created_at);
