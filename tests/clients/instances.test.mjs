// Two instances behind one name, that share PostgreSQL and Redis and nothing else.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { serve, until } from "./server.mjs";
import * as supabase from "./supabase.mjs";
import { address, code, data, password } from "./supabase.mjs";

const { TEST_DATABASE_URL, TEST_REDIS_URL } = process.env;
const skip = !(TEST_DATABASE_URL && TEST_REDIS_URL) && "TEST_DATABASE_URL and TEST_REDIS_URL name what they share";

const shared = { PUBLIC_URL: "http://localhost:3000", JWT_SECRET: randomBytes(32).toString("hex"), AUTH_AUTOCONFIRM: "false" };
const one = skip ? null : await serve(shared);
const other = skip ? null : await serve({ ...shared, ...one.kept });
const at = ({ url }) => supabase.device(url).auth;

/** A mail, whichever of them sent it. */
const mailed = (email) =>
  until(`a mail to ${email}`, async () => {
    const found = await Promise.all([one, other].map(({ mails }) => mails(email, 0)));
    return found.flat()[0];
  });

/** Somebody who signed up at one, and proved their address at the other. */
async function signedUp() {
  const email = address();
  data(await at(one).signUp({ email, password }));
  const auth = at(other);
  const { session } = data(await auth.verifyOtp({ email, token: code(await mailed(email)), type: "signup" }));
  return { auth, email, session };
}

test("what one instance began the other goes on with", { skip }, async () => {
  const { auth, email, session } = await signedUp();

  assert.equal(data(await at(one).getUser(session.access_token)).user.email, email);
  assert.equal(data(await at(one).signInWithPassword({ email, password })).user.id, session.user.id);
  const { claims, header } = data(await auth.getClaims());
  assert.equal(claims.iss, "http://localhost:3000/auth/v1");
  const keys = await Promise.all([one, other].map(({ url }) => fetch(`${url}/auth/v1/.well-known/jwks.json`).then((answer) => answer.json())));
  assert.deepEqual(keys[0], keys[1]);
  assert.ok(keys[0].keys.some(({ kid }) => kid === header.kid));
});

test("invariant 30: twenty refreshes at both instances at once give one token", { skip }, async () => {
  const { session } = await signedUp();

  const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => at(i % 2 ? one : other).refreshSession(session)));

  assert.equal(new Set(answers.map((answer) => data(answer).session.refresh_token)).size, 1);
});

test("invariant 44: what ends a session at one instance has ended it at the other by the next request", { skip }, async () => {
  for (const end of [
    ({ auth }) => auth.signOut(),
    ({ auth }) => auth.updateUser({ password: "a better password" }),
    ({ auth }) => auth.signOut({ scope: "others" }),
  ]) {
    const person = await signedUp();
    const laptop = at(one);
    const { session } = data(await laptop.signInWithPassword({ email: person.email, password }));
    data(await laptop.getUser());

    assert.equal((await end(person)).error, null);

    assert.equal((await at(one).getUser(session.access_token)).error?.name, "AuthSessionMissingError");
  }
});

test("invariant 65: both instances count against one budget", { skip }, async () => {
  const limited = { ...shared, RATE_LIMITS: "sign_in_account=4/1h" };
  const first = await serve(limited);
  const second = await serve({ ...limited, ...first.kept });
  const email = address();

  const codes = [];
  for (let i = 0; i < 8; i++) codes.push((await at(i % 2 ? first : second).signInWithPassword({ email, password })).error.code);

  assert.deepEqual(new Set(codes.slice(0, 4)), new Set(["invalid_credentials"]));
  assert.ok(codes.slice(4).every((code) => code === "over_request_rate_limit"), String(codes));
});
