-- Whatever the language: words as they stand.
create index messages_search on messages using gin (to_tsvector('simple', content)) where status <> 'streaming';
