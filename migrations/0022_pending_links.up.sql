-- Links wait for their code: what a provider said, sealed, until the app that asked has the code.
alter table auth_codes add column link bytea;
