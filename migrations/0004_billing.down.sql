drop table entitlement_grants;
drop table billing_subscriptions;
drop table billing_customers;
drop table webhook_events;
