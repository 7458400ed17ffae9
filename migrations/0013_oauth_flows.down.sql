drop table oauth_flows;
