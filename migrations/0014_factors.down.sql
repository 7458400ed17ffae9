drop table mfa_challenges;
drop table mfa_factors;
