-- Sign-ins that are away at a provider: from the redirect there to the one back.
create table oauth_flows (
    state_hash    bytea       not null primary key,
    provider      text        not null,
    -- Our own proof for the provider's token endpoint, sealed.
    verifier      bytea       not null,
    nonce         text        not null,
    redirect_to   text        not null,
    -- Of the client that asked: what our code at the end is good for.
    challenge     text        not null,
    -- Who wants to link what comes back, when it is not a sign-in.
    link_user_id  uuid        references users (id) on delete cascade,
    -- Of the cookie in the browser that went.
    binding_hash  bytea       not null,
    expires_at    timestamptz not null,
    used_at       timestamptz,
    created_at    timestamptz not null
);
create index oauth_flows_link_user on oauth_flows (link_user_id);
create index oauth_flows_expiry on oauth_flows (expires_at);
