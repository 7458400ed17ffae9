-- What is done once in the life of an installation, however many instances start, and however often.
create table done_once (
    what     text        not null primary key,
    done_at  timestamptz not null
);
