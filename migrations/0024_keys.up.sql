-- A key is rotated in by way of a standby, of which there is one at most, and revoked in the end.
alter table signing_keys add column revoked_at timestamptz;
create unique index signing_keys_standby on signing_keys (state) where state = 'standby';
