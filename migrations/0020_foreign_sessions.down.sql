delete from sessions where issuer is not null;
alter table sessions drop column issuer;
