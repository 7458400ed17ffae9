drop table done_once;
