alter table sessions drop column actor_session_id;
