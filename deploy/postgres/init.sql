-- A database and who may use it, no more: once, as a superuser, with the password in APP_PASSWORD.
--   APP_PASSWORD=… psql -v ON_ERROR_STOP=1 -f deploy/postgres/init.sql postgres
-- Since PostgreSQL 15 a database does not let everyone make tables: its owner may.
\set ON_ERROR_STOP on
\set app_password `echo "$APP_PASSWORD"`
select length(:'app_password') < 16 as too_short \gset
\if :too_short
  do $$ begin raise exception 'APP_PASSWORD has to have 16 characters or more'; end $$;
\endif

create role "plinth" login nosuperuser nocreatedb nocreaterole noreplication password :'app_password';
-- Of many instances' pools and of whoever looks by hand: below max_connections.
alter role "plinth" connection limit 80;
alter role "plinth" set idle_in_transaction_session_timeout = '60s';

create database "plinth" owner "plinth" encoding 'UTF8' template template0;
revoke connect, temporary on database "plinth" from public;
grant connect, temporary on database "plinth" to "plinth";

\connect "plinth"
revoke all on schema public from public;
alter schema public owner to "plinth";
