drop table feature_overrides;
drop table features;
