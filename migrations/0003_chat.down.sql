drop table idempotency_keys;
drop table usage_ledger;
drop table quota_windows;
drop table generations;
drop table messages;
drop table conversations;
