drop table billing_credits;
drop table billing_transfers;
drop table billing_unlinked;
drop table billing_identities;
