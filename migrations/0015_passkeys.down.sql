drop table webauthn_challenges;
drop table webauthn_credentials;
