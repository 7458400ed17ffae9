-- Where an admin looks at the service as a user does: their own session, with which this one ends.
alter table sessions add column actor_session_id uuid;
