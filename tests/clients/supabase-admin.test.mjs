// supabase.auth.admin with a service-role key that others signed.
import assert from "node:assert/strict";
import { generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { AuthApiError } from "@supabase/supabase-js";
import { serve } from "./server.mjs";
import * as supabase from "./supabase.mjs";
import { address, data, follow, landing, link, password } from "./supabase.mjs";

const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const kid = randomUUID();
const folder = mkdtempSync(join(tmpdir(), "keys-"));
const file = join(folder, "keys.json");
writeFileSync(file, JSON.stringify({ keys: [{ ...privateKey.export({ format: "jwk" }), kid, alg: "ES256" }] }), { mode: 0o600 });
after(() => rmSync(folder, { recursive: true }));

const { url, mails } = await serve({ AUTH_AUTOCONFIRM: "false", AUTH_JWT_KEYS_FILE: file });
const device = () => supabase.device(url);
const back = "http://localhost:3000/welcome";

/** A JWT as Supabase's own command line makes one. */
function key(claims) {
  const part = (of) => Buffer.from(JSON.stringify(of)).toString("base64url");
  const signed = `${part({ alg: "ES256", typ: "JWT", kid })}.${part(claims)}`;
  const signature = sign("sha256", Buffer.from(signed), { key: privateKey, dsaEncoding: "ieee-p1363" });
  return `${signed}.${signature.toString("base64url")}`;
}

const now = Math.floor(Date.now() / 1000);
const { admin } = supabase.device(url, { key: key({ role: "service_role", iat: now, exp: now + 600 }) }).auth;
const signIn = (email) => device().auth.signInWithPassword({ email, password });

async function created(attributes) {
  const email = address();
  const { user } = data(await admin.createUser({ email, password, email_confirm: true, ...attributes }));
  return user;
}

test("a user who is made can sign in, and carries what was said of them", async () => {
  const said = { user_metadata: { name: "Ada" }, app_metadata: { plan: "pro" } };

  const user = await created(said);

  const { session } = data(await signIn(user.email));
  assert.equal(session.user.id, user.id);
  assert.deepEqual(session.user.user_metadata, said.user_metadata);
  assert.equal(session.user.app_metadata.plan, "pro");
  const again = await admin.createUser({ email: user.email, password, email_confirm: true });
  assert.ok(again.error instanceof AuthApiError);
  assert.equal(again.error.code, "email_exists");
  assert.equal(again.error.status, 422);
});

test("access tokens are signed with the given key", async () => {
  const user = await created();
  const { auth } = device();
  data(await auth.signInWithPassword({ email: user.email, password }));

  const { claims, header } = data(await auth.getClaims());

  assert.equal(header.kid, kid);
  assert.equal(claims.sub, user.id);
});

test("users are listed page by page", async () => {
  for (let i = 0; i < 3; i++) await created();

  const first = data(await admin.listUsers({ page: 1, perPage: 2 }));
  const second = data(await admin.listUsers({ page: first.nextPage, perPage: 2 }));

  assert.equal(first.users.length, 2);
  assert.ok(first.total >= 3);
  assert.equal(first.lastPage, Math.ceil(first.total / 2));
  const ids = [...first.users, ...second.users].map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length);
  assert.equal(data(await admin.listUsers()).aud, "authenticated");
});

test("a user is shown, changed and deleted", async () => {
  const user = await created();
  assert.equal(data(await admin.getUserById(user.id)).user.email, user.email);
  const email = address();

  const changed = data(await admin.updateUserById(user.id, { email, user_metadata: { name: "Bea" }, app_metadata: { seats: 3 } })).user;

  assert.equal(changed.email, email);
  assert.deepEqual(changed.user_metadata, { name: "Bea" });
  assert.equal(changed.app_metadata.seats, 3);
  const { session } = data(await signIn(email));

  assert.equal(data(await admin.deleteUser(user.id)).user.id, user.id);
  const gone = await admin.getUserById(user.id);
  assert.equal(gone.error.code, "user_not_found");
  assert.equal(gone.error.status, 404);
  assert.notEqual((await device().auth.getUser(session.access_token)).error, null);
  assert.equal((await signIn(email)).error.code, "invalid_credentials");
});

test("a password that the key sets ends every session", async () => {
  const user = await created();
  const { session } = data(await signIn(user.email));

  data(await admin.updateUserById(user.id, { password: "a better password" }));

  assert.equal((await device().auth.getUser(session.access_token)).error.name, "AuthSessionMissingError");
  data(await device().auth.signInWithPassword({ email: user.email, password: "a better password" }));
});

test("a banned user is kept out until the ban is lifted", async () => {
  const user = await created();
  const { session } = data(await signIn(user.email));

  const banned = data(await admin.updateUserById(user.id, { ban_duration: "24h" })).user;

  assert.ok(Date.parse(banned.banned_until) > Date.now());
  assert.equal((await signIn(user.email)).error.code, "user_banned");
  assert.equal((await device().auth.refreshSession(session)).error.code, "user_banned");
  data(await admin.updateUserById(user.id, { ban_duration: "none" }));
  data(await signIn(user.email));
});

test("a session is ended by its token", async () => {
  const user = await created();
  const { session } = data(await signIn(user.email));

  assert.equal((await admin.signOut(session.access_token, "global")).error, null);

  assert.equal((await device().auth.getUser(session.access_token)).error.name, "AuthSessionMissingError");
});

test("who is invited confirms by the mail and chooses a password", async () => {
  const email = address();
  const { user } = data(await admin.inviteUserByEmail(email, { data: { team: "blue" }, redirectTo: back }));
  assert.equal(user.email, email);

  const landed = landing(await follow(link((await mails(email))[0])));

  const token_hash = landed.searchParams.get("token_hash");
  const { auth } = device();
  const { session } = data(await auth.verifyOtp({ token_hash, type: landed.searchParams.get("type") }));
  assert.equal(session.user.id, user.id);
  assert.deepEqual(session.user.user_metadata, { team: "blue" });
  data(await auth.updateUser({ password }));
  data(await signIn(email));
  assert.equal((await admin.inviteUserByEmail(email)).error.code, "email_exists");
});

for (const type of ["signup", "magiclink", "recovery", "invite"]) {
  test(`a link of type ${type} is handed over, and nothing is mailed`, async () => {
    const email = type === "recovery" ? (await created()).email : address();

    const { properties, user } = data(await admin.generateLink({ type, email, password, options: { redirectTo: back } }));

    assert.equal(user.email, email);
    assert.equal(properties.verification_type, type);
    assert.equal(properties.redirect_to, back);
    assert.equal(new URL(properties.action_link).origin, url);
    const { session } = data(await device().auth.verifyOtp({ token_hash: properties.hashed_token, type }));
    assert.equal(session.user.id, user.id);
    const spent = await device().auth.verifyOtp({ email, token: properties.email_otp, type });
    assert.equal(spent.error.code, "otp_expired");
    assert.deepEqual(await mails(email, 0), []);
  });
}

test("links for both sides of a change of address move it", async () => {
  const user = await created();
  const newEmail = address();
  const made = async (type) => data(await admin.generateLink({ type, email: user.email, newEmail })).properties;
  const [current, next] = [await made("email_change_current"), await made("email_change_new")];

  assert.equal(current.verification_type, "email_change_current");
  const first = data(await device().auth.verifyOtp({ token_hash: current.hashed_token, type: "email_change" }));
  assert.equal(first.session, null);
  data(await device().auth.verifyOtp({ token_hash: next.hashed_token, type: "email_change" }));

  assert.equal(data(await signIn(newEmail)).user.id, user.id);
});

test("passkeys are listed, and one that is nobody's is not removed", async () => {
  const user = await created();

  assert.deepEqual(data(await admin.passkey.listPasskeys({ userId: user.id })), []);
  const { error } = await admin.passkey.deletePasskey({ userId: user.id, passkeyId: randomUUID() });
  assert.equal(error.code, "webauthn_credential_not_found");
});

test("nobody else administers", async () => {
  const user = await created();
  const { session } = data(await signIn(user.email));
  const expired = key({ role: "service_role", iat: now - 600, exp: now - 60 });
  const ordinary = key({ role: "anon", iat: now, exp: now + 600 });
  const [head, body] = key({ role: "service_role" }).split(".");

  for (const wrong of ["anon", session.access_token, expired, ordinary, `${head}.${body}.${"A".repeat(86)}`]) {
    const { auth } = supabase.device(url, { key: wrong });
    const { error } = await auth.admin.listUsers();
    assert.ok(error instanceof AuthApiError, wrong);
    assert.ok([401, 403].includes(error.status), `${wrong}: ${error.status}`);
    assert.equal((await auth.admin.deleteUser(user.id)).data.user, null);
  }
  assert.equal(data(await admin.getUserById(user.id)).user.id, user.id);
});
