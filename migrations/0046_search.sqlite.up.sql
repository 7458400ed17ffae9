-- Whatever the language: words as they stand. The numbers of rows are our own: SQLite's change when a
-- file is vacuumed. An answer is found once it is whole.
create table searched_messages (
    number      integer not null primary key,
    message_id  uuid    not null references messages (id) on delete cascade
);
create unique index searched_messages_message on searched_messages (message_id);
create virtual table messages_search using fts5 (content, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 0');

create trigger searched_messages_insert after insert on messages when new.status <> 'streaming' begin
    insert into searched_messages (message_id) values (new.id);
    insert into messages_search (rowid, content) select number, new.content from searched_messages where message_id = new.id;
end;
create trigger searched_messages_whole after update of status on messages when old.status = 'streaming' and new.status <> 'streaming' begin
    insert into searched_messages (message_id) values (new.id);
    insert into messages_search (rowid, content) select number, new.content from searched_messages where message_id = new.id;
end;
create trigger searched_messages_delete before delete on messages begin
    delete from messages_search where rowid = (select number from searched_messages where message_id = old.id);
end;

insert into searched_messages (message_id) select id from messages where status <> 'streaming';
insert into messages_search (rowid, content) select s.number, m.content from searched_messages s join messages m on m.id = s.message_id;
