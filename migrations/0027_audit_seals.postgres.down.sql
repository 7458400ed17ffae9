drop table audit_seals;
