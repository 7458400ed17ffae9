drop table muted_addresses;
