-- What the owner of an account's address agrees to: that the account moves to this one.
alter table one_time_tokens add column moves_to text;
