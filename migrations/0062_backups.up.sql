-- What was backed up, and when: every instance and every start tells the same.
create table backups (
    name        text        not null primary key,
    size_bytes  bigint      not null,
    finished_at timestamptz not null
);
create index backups_finished on backups (finished_at);
