// supabase-js, as it is published, has to be content with our sign-in.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AuthApiError } from "@supabase/supabase-js";
import { anyServer } from "./server.mjs";
import * as supabase from "./supabase.mjs";
import { address, data, password, totp } from "./supabase.mjs";

const { url } = await anyServer();
const device = () => supabase.device(url);

async function signedUp(options) {
  const phone = device();
  const email = address();
  const { session } = data(await phone.auth.signUp({ email, password, options }));
  return { ...phone, email, session };
}

async function signedIn(email) {
  const laptop = device();
  const { session } = data(await laptop.auth.signInWithPassword({ email, password }));
  return { ...laptop, session };
}

test("signing up signs in", async () => {
  const { auth, email, session } = await signedUp({ data: { name: "Ada" } });

  const { user } = data(await auth.getUser());

  assert.deepEqual(user, session.user);
  assert.equal(user.email, email);
  assert.equal(user.role, "authenticated");
  assert.deepEqual(user.user_metadata, { name: "Ada" });
  assert.equal(user.identities[0].provider, "email");
  assert.equal(session.token_type, "bearer");
  assert.equal(data(await auth.getSession()).session.access_token, session.access_token);
});

test("signing up twice is told apart", async () => {
  const { email } = await signedUp();

  const { error } = await device().auth.signUp({ email, password });

  assert.equal(error.code, "user_already_exists");
  assert.equal(error.status, 422);
});

test("invariant 1: a wrong password and an unknown address are one error", async () => {
  const { email } = await signedUp();
  const { auth } = device();

  const wrong = await auth.signInWithPassword({ email, password: "another password" });
  const unknown = await auth.signInWithPassword({ email: address(), password });

  for (const { data, error } of [wrong, unknown]) {
    assert.ok(error instanceof AuthApiError);
    assert.equal(error.code, "invalid_credentials");
    assert.equal(error.status, 400);
    assert.equal(error.message, "Invalid login credentials");
    assert.equal(data.session, null);
  }
});

test("a weak password says why", async () => {
  const { error } = await device().auth.signUp({ email: address(), password: "password1" });

  assert.equal(error.name, "AuthWeakPasswordError");
  assert.deepEqual(error.reasons, ["pwned"]);
});

test("what is turned off says so", async () => {
  const { error } = await device().auth.signInAnonymously();

  assert.equal(error.code, "anonymous_provider_disabled");
});

test("a listener hears every change", async () => {
  const { email } = await signedUp();
  const { auth } = device();
  const heard = [];
  const initial = new Promise((resolve) => {
    auth.onAuthStateChange((event, session) => {
      heard.push([event, session?.user.email]);
      resolve();
    });
  });
  await initial;

  data(await auth.signInWithPassword({ email, password }));
  data(await auth.refreshSession());
  data(await auth.updateUser({ data: { theme: "dark" } }));
  await auth.signOut();

  assert.deepEqual(heard, [
    ["INITIAL_SESSION", undefined],
    ["SIGNED_IN", email],
    ["TOKEN_REFRESHED", email],
    ["USER_UPDATED", email],
    ["SIGNED_OUT", undefined],
  ]);
  assert.equal(data(await auth.getSession()).session, null);
});

test("a refresh gives a new pair that works", async () => {
  const { auth, session } = await signedUp();

  const refreshed = data(await auth.refreshSession()).session;

  assert.notEqual(refreshed.refresh_token, session.refresh_token);
  assert.notEqual(refreshed.access_token, session.access_token);
  assert.equal(data(await auth.getUser()).user.id, session.user.id);
});

test("two clients that share a token may refresh at once", async () => {
  const { session } = await signedUp();
  const tabs = [device(), device()];
  for (const { auth } of tabs) data(await auth.setSession(session));

  const answers = await Promise.all(tabs.map(({ auth }) => auth.refreshSession()));

  const [one, other] = answers.map((answer) => data(answer).session);
  assert.equal(one.refresh_token, other.refresh_token);
  for (const { auth } of tabs) assert.equal(data(await auth.getUser()).user.id, session.user.id);
});

test("invariant 30: twenty clients that share a token may refresh at once, and get one token", async () => {
  const { session } = await signedUp();
  const tabs = Array.from({ length: 20 }, device);

  const answers = await Promise.all(tabs.map(({ auth }) => auth.refreshSession(session)));

  const sessions = answers.map((answer) => data(answer).session);
  assert.equal(new Set(sessions.map((session) => session.refresh_token)).size, 1);
  for (const { access_token } of sessions) assert.equal(data(await device().auth.getUser(access_token)).user.id, session.user.id);
});

test("invariant 31: a refresh token of long ago ends the session", async () => {
  const { auth, session } = await signedUp();
  data(await auth.refreshSession());
  const newest = data(await auth.refreshSession()).session;

  const thief = await device().auth.refreshSession(session);

  assert.equal(thief.error.code, "refresh_token_already_used");
  const { error } = await device().auth.getUser(newest.access_token);
  assert.equal(error.name, "AuthSessionMissingError");
});

test("an invented token is no session", async () => {
  const { error } = await device().auth.refreshSession({ refresh_token: "invented" });
  assert.equal(error.code, "refresh_token_not_found");

  const { session } = await signedUp();
  const forged = `${session.access_token.slice(0, -4)}AAAA`;
  assert.equal((await device().auth.getUser(forged)).error.code, "bad_jwt");
});

test("a user changes what they say of themself", async () => {
  const { auth } = await signedUp({ data: { name: "Ada" } });

  const { user } = data(await auth.updateUser({ data: { theme: "dark" } }));

  assert.deepEqual(user.user_metadata, { name: "Ada", theme: "dark" });
  assert.deepEqual(data(await auth.getUser()).user.user_metadata, user.user_metadata);
});

test("a new password takes the place of the old", async () => {
  const { auth, email } = await signedUp();
  const other = await signedIn(email);

  data(await auth.updateUser({ password: "a better password", current_password: password }));

  assert.equal((await other.auth.getUser()).error.name, "AuthSessionMissingError");
  const old = await device().auth.signInWithPassword({ email, password });
  assert.equal(old.error.code, "invalid_credentials");
  data(await device().auth.signInWithPassword({ email, password: "a better password" }));
});

test("claims are verified without asking for the user", async () => {
  const { auth, asked, session } = await signedUp();
  asked.length = 0;

  const { claims, header } = data(await auth.getClaims());

  assert.equal(header.alg, "ES256");
  assert.equal(claims.sub, session.user.id);
  assert.equal(claims.iss, `${url}/auth/v1`);
  assert.deepEqual(asked, ["/auth/v1/.well-known/jwks.json"]);

  const [head, , signature] = session.access_token.split(".");
  const other = Buffer.from(JSON.stringify({ ...claims, role: "admin" })).toString("base64url");
  const { error } = await auth.getClaims(`${head}.${other}.${signature}`);
  assert.equal(error.message, "Invalid JWT signature");
});

for (const [scope, standing] of [
  ["local", [false, true]],
  ["others", [true, false]],
  ["global", [false, false]],
]) {
  test(`signing out of ${scope}`, async () => {
    const { email } = await signedUp();
    const sessions = [await signedIn(email), await signedIn(email)];

    const { error } = await sessions[0].auth.signOut({ scope });

    assert.equal(error, null);
    const tokens = sessions.map(({ session }) => session.access_token);
    const answers = await Promise.all(tokens.map((token) => device().auth.getUser(token)));
    assert.deepEqual(answers.map(({ error }) => error === null), standing);
  });
}

const levels = async ({ mfa }) => {
  const { currentLevel, nextLevel } = data(await mfa.getAuthenticatorAssuranceLevel());
  return [currentLevel, nextLevel];
};

test("a second factor is added, asked for and removed", async () => {
  const { auth, email } = await signedUp();
  assert.deepEqual(await levels(auth), ["aal1", "aal1"]);

  const factor = data(await auth.mfa.enroll({ factorType: "totp", friendlyName: "phone", issuer: "Plinth" }));
  assert.match(factor.totp.qr_code, /^data:image\/svg\+xml;utf-8,/);
  assert.deepEqual(data(await auth.mfa.listFactors()).totp, []);
  const challenge = data(await auth.mfa.challenge({ factorId: factor.id }));
  const wrong = await auth.mfa.verify({ factorId: factor.id, challengeId: challenge.id, code: "nothing" });
  assert.equal(wrong.error.code, "mfa_verification_failed");
  const code = totp(factor.totp.secret, -1);
  data(await auth.mfa.verify({ factorId: factor.id, challengeId: challenge.id, code }));

  assert.deepEqual(await levels(auth), ["aal2", "aal2"]);
  assert.deepEqual(data(await auth.mfa.listFactors()).totp.map(({ id, status }) => [id, status]), [[factor.id, "verified"]]);

  const laptop = await signedIn(email);
  assert.deepEqual(await levels(laptop.auth), ["aal1", "aal2"]);
  const early = await laptop.auth.mfa.unenroll({ factorId: factor.id });
  assert.equal(early.error.code, "insufficient_aal");
  data(await laptop.auth.mfa.challengeAndVerify({ factorId: factor.id, code: totp(factor.totp.secret) }));
  assert.deepEqual(await levels(laptop.auth), ["aal2", "aal2"]);
  data(await laptop.auth.refreshSession());
  assert.deepEqual(await levels(laptop.auth), ["aal2", "aal2"]);

  assert.equal(data(await laptop.auth.mfa.unenroll({ factorId: factor.id })).id, factor.id);
  assert.equal((await auth.getUser()).error.name, "AuthSessionMissingError");
  data(await laptop.auth.refreshSession());
  assert.deepEqual(await levels(laptop.auth), ["aal1", "aal1"]);
});

test("invariant 52: a recovery code stands for the second factor that is lost, once", async () => {
  const { auth, email } = await signedUp();
  const factor = data(await auth.mfa.enroll({ factorType: "totp" }));
  data(await auth.mfa.challengeAndVerify({ factorId: factor.id, code: totp(factor.totp.secret) }));

  const { codes, total } = data(await auth.mfa.recoveryCodes.generate());

  assert.equal(total, 10);
  assert.equal(new Set(codes).size, 10);
  const laptop = await signedIn(email);
  assert.deepEqual(await levels(laptop.auth), ["aal1", "aal2"]);
  assert.equal((await laptop.auth.mfa.recoveryCodes.verify({ code: "nonsense" })).error.code, "mfa_verification_failed");
  data(await laptop.auth.mfa.recoveryCodes.verify({ code: codes[0] }));
  assert.deepEqual(await levels(laptop.auth), ["aal2", "aal2"]);
  assert.equal(data(await laptop.auth.mfa.recoveryCodes.getStatus()).remaining, 9);
  const again = (await signedIn(email)).auth;
  assert.equal((await again.mfa.recoveryCodes.verify({ code: codes[0] })).error.code, "mfa_verification_failed");

  const { codes: newer } = data(await laptop.auth.mfa.recoveryCodes.regenerate());
  assert.equal((await again.mfa.recoveryCodes.verify({ code: codes[1] })).error.code, "mfa_verification_failed");
  data(await again.mfa.recoveryCodes.verify({ code: newer[1] }));
  data(await again.mfa.recoveryCodes.unenroll());
  assert.deepEqual(data(await again.mfa.listFactors()).all.map(({ factor_type }) => factor_type), ["totp"]);
});
