alter table mfa_challenges drop column challenge;
drop table mfa_webauthn_credentials;
drop table mfa_recovery_codes;
