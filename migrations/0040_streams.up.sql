-- What a reader elsewhere, or after a crash, needs to go on from where it was.

-- The number of the last event that the stored words hold; of a settled answer, of its last event.
alter table messages add column seq bigint not null default 0;

alter table generations add column stop_requested_at timestamptz;
-- A reader on another instance wants to see it soon: it is put on disk more often until then.
alter table generations add column followed_until timestamptz;
-- Whether somebody was listening when it ended: one that nobody heard may be asked for again.
alter table generations add column delivered boolean not null default false;
create index generations_owner on generations (owner) where finished_at is null;

-- The answer that a second request with the key joins while the first is under way.
alter table idempotency_keys add column generation_id uuid;
