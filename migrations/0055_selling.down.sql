drop table billing_checkouts;
drop index billing_customers_checkout;
alter table billing_customers drop column checkout;
