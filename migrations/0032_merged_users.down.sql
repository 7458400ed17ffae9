drop table merged_users;
