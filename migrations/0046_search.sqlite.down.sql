drop trigger searched_messages_delete;
drop trigger searched_messages_whole;
drop trigger searched_messages_insert;
drop table messages_search;
drop table searched_messages;
