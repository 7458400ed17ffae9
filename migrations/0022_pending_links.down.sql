alter table auth_codes drop column link;
