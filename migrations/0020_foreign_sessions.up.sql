-- Whose tokens open it, where they are not ours.
alter table sessions add column issuer text;
