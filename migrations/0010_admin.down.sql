drop index users_created;
