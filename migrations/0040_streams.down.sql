alter table idempotency_keys drop column generation_id;
drop index generations_owner;
alter table generations drop column delivered;
alter table generations drop column followed_until;
alter table generations drop column stop_requested_at;
alter table messages drop column seq;
