// supabase-js where an address has to be proved first: everything that goes by mail.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AuthApiError } from "@supabase/supabase-js";
import { serve, until } from "./server.mjs";
import * as supabase from "./supabase.mjs";
import { address, code, data, follow, landing, link, password } from "./supabase.mjs";

const { url, mails } = await serve({ AUTH_AUTOCONFIRM: "false", AUTH_ANONYMOUS: "true" });
const device = () => supabase.device(url);
const app = () => supabase.app(url);
const back = "http://localhost:3000/welcome";

async function confirmed() {
  const phone = device();
  const email = address();
  data(await phone.auth.signUp({ email, password }));
  const token = code((await mails(email))[0]);
  const { session } = data(await phone.auth.verifyOtp({ email, token, type: "signup" }));
  return { ...phone, email, session };
}

/** Has the address of now agree to a change by the code of its newest mail. */
async function agree(auth, email, count) {
  const token = code((await mails(email, count)).at(-1));
  data(await auth.verifyOtp({ email, token, type: "email_change" }));
}

const signIn = (email, word = password) => device().auth.signInWithPassword({ email, password: word });

test("signing up waits for the code of the mail", async () => {
  const { auth } = device();
  const email = address();

  const { user, session } = data(await auth.signUp({ email, password, options: { data: { name: "Ada" } } }));

  assert.equal(session, null);
  assert.equal(user.email, email);
  assert.equal(user.email_confirmed_at, null);
  assert.equal(user.identities.length, 1);
  assert.equal((await signIn(email)).error.code, "email_not_confirmed");

  const token = code((await mails(email))[0]);
  const verified = data(await auth.verifyOtp({ email, token, type: "email" }));
  assert.equal(verified.user.id, user.id);
  assert.equal(data(await auth.getUser()).user.user_metadata.name, "Ada");
  assert.equal(data(await signIn(email)).user.id, user.id);
});

test("signing up with an address that is in use reads like any other, and tells its owner", async () => {
  const { email, session } = await confirmed();

  const { user } = data(await device().auth.signUp({ email, password: "another battery horse" }));

  assert.notEqual(user.id, session.user.id);
  assert.deepEqual(user.identities.map(({ provider }) => provider), ["email"]);
  const [, notice] = await mails(email, 2);
  assert.equal(notice.subject, "You already have an account");
  assert.equal((await signIn(email, "another battery horse")).error.code, "invalid_credentials");
});

test("a mail that was lost is sent again, and only its newest code counts", async () => {
  const { auth } = device();
  const email = address();
  data(await auth.signUp({ email, password }));
  data(await auth.resend({ email, type: "signup" }));
  const [first, second] = (await mails(email, 2)).map(code);

  if (first !== second) {
    const { error } = await auth.verifyOtp({ email, token: first, type: "signup" });
    assert.equal(error.code, "otp_expired");
  }
  assert.ok(data(await auth.verifyOtp({ email, token: second, type: "signup" })).session);
});

test("a code signs in who is new and who is known, once", async () => {
  const email = address();
  const sessions = [];
  for (const count of [1, 2]) {
    const { auth } = device();
    assert.deepEqual(data(await auth.signInWithOtp({ email })), { user: null, session: null });
    const token = code((await mails(email, count)).at(-1));
    sessions.push(data(await auth.verifyOtp({ email, token, type: "email" })).session);

    const again = await device().auth.verifyOtp({ email, token, type: "email" });
    assert.ok(again.error instanceof AuthApiError);
    assert.equal(again.error.code, "otp_expired");
    assert.equal(again.error.status, 403);
  }
  assert.equal(sessions[0].user.id, sessions[1].user.id);
});

test("whether an address is known is not told to who only wants to sign in", async () => {
  const unknown = address();

  data(await device().auth.signInWithOtp({ email: unknown, options: { shouldCreateUser: false } }));
  data(await device().auth.resetPasswordForEmail(unknown));

  const { email } = await confirmed();
  data(await device().auth.signInWithOtp({ email }));
  await mails(email, 2);
  assert.deepEqual(await mails(unknown, 0), []);
});

test("a link brings an app a code that only the app can exchange", async () => {
  const { auth } = app();
  const email = address();
  data(await auth.signInWithOtp({ email, options: { emailRedirectTo: back } }));
  const followed = link((await mails(email))[0]);

  const landed = landing(await follow(followed));

  assert.equal(landed.origin + landed.pathname, back);
  assert.deepEqual([...landed.searchParams.keys()], ["code"]);
  assert.equal(landed.hash, "");
  const authCode = landed.searchParams.get("code");
  const other = await app().auth.exchangeCodeForSession(authCode);
  assert.equal(other.error.name, "AuthPKCECodeVerifierMissingError");
  const { session } = data(await auth.exchangeCodeForSession(authCode));
  assert.equal(session.user.email, email);
  assert.equal(data(await auth.getUser()).user.id, session.user.id);

  const again = landing(await follow(followed));
  assert.equal(again.searchParams.get("error_code"), "otp_expired");
});

test("invariant 46: a link's secret signs in as token_hash, however often the link was looked at", async () => {
  const { auth } = app();
  const email = address();
  data(await auth.signInWithOtp({ email, options: { emailRedirectTo: back } }));
  const followed = link((await mails(email))[0]);
  for (const method of ["GET", "HEAD", "GET", "HEAD", "GET"]) assert.equal((await fetch(followed, { method })).status, 200);

  const token_hash = followed.searchParams.get("token");
  const { session } = data(await device().auth.verifyOtp({ token_hash, type: "email" }));

  assert.equal(session.user.email, email);
  assert.equal((await device().auth.verifyOtp({ token_hash, type: "email" })).error.code, "otp_expired");
});

test("the link of a sign-up confirms and leads to a sign-in", async () => {
  const { auth } = app();
  const email = address();
  data(await auth.signUp({ email, password, options: { emailRedirectTo: back } }));

  const landed = landing(await follow(link((await mails(email))[0])));
  const { session } = data(await auth.exchangeCodeForSession(landed.searchParams.get("code")));

  assert.equal(session.user.email, email);
  assert.ok(session.user.email_confirmed_at);
});

test("a forgotten password is replaced by who reads the mail", async () => {
  const { email, session } = await confirmed();
  const { auth } = device();
  data(await auth.resetPasswordForEmail(email));
  const token = code((await mails(email, 2))[1]);
  data(await auth.verifyOtp({ email, token, type: "recovery" }));

  data(await auth.updateUser({ password: "a better password" }));

  assert.equal((await device().auth.getUser(session.access_token)).error.name, "AuthSessionMissingError");
  assert.equal((await signIn(email)).error.code, "invalid_credentials");
  data(await signIn(email, "a better password"));
  assert.equal((await mails(email, 3))[2].subject, "Your password was changed");
});

test("an app hears that its link was for a new password", async () => {
  const { email } = await confirmed();
  const { auth } = app();
  const heard = [];
  auth.onAuthStateChange((event) => void heard.push(event));
  data(await auth.resetPasswordForEmail(email, { redirectTo: back }));

  const landed = landing(await follow(link((await mails(email, 2))[1])));
  data(await auth.exchangeCodeForSession(landed.searchParams.get("code")));

  assert.ok(heard.includes("PASSWORD_RECOVERY"), String(heard));
  data(await auth.updateUser({ password: "a better password" }));
  data(await signIn(email, "a better password"));
});

test("invariant 50: a new address counts once both have confirmed, and the old one can take it back", async () => {
  const { auth, email, session } = await confirmed();
  const next = address();

  const { user } = data(await auth.updateUser({ email: next }));

  assert.equal(user.email, email);
  assert.equal(user.new_email, next);
  const token = code((await mails(next))[0]);
  const first = data(await auth.verifyOtp({ email: next, token, type: "email_change" }));
  assert.equal(first.session, null);
  assert.equal(first.user, null);
  assert.equal(data(await auth.getUser()).user.email, email);
  await agree(auth, email, 2);
  const moved = data(await auth.getUser()).user;
  assert.equal(moved.email, next);
  assert.equal(moved.new_email, undefined);
  data(await signIn(next));
  assert.equal((await signIn(email)).error.code, "invalid_credentials");

  const notice = (await mails(email, 3))[2];
  assert.equal(notice.subject, "Your address was changed");
  assert.equal((await follow(link(notice))).status, 200);
  assert.equal(data(await signIn(email)).user.id, session.user.id);
  assert.equal((await signIn(next)).error.code, "invalid_credentials");
  assert.equal((await auth.getUser()).error.name, "AuthSessionMissingError");
});

test("an app hears which of two links is missing", async () => {
  const { email } = await confirmed();
  const { auth } = app();
  data(await auth.signInWithPassword({ email, password }));
  const next = address();
  data(await auth.updateUser({ email: next }, { emailRedirectTo: back }));

  const first = landing(await follow(link((await mails(email, 2))[1])));
  assert.match(first.searchParams.get("message"), /proceed to confirm link sent to the other email/);
  assert.equal(first.searchParams.get("code"), null);

  const second = landing(await follow(link((await mails(next))[0])));
  const { user } = data(await auth.exchangeCodeForSession(second.searchParams.get("code")));
  assert.equal(user.email, next);
});

test("the codes for a new address are sent again to who asks from the old one", async () => {
  const { auth, email } = await confirmed();
  const next = address();
  data(await auth.updateUser({ email: next }));

  data(await device().auth.resend({ email, type: "email_change" }));

  await agree(auth, email, 3);
  const token = code((await mails(next, 2))[1]);
  assert.equal(data(await auth.verifyOtp({ email: next, token, type: "email_change" })).user.email, next);
});

test("what an anonymous user has goes to their account for two proofs", async () => {
  const { email, session } = await confirmed();
  const { auth } = device();
  const guest = data(await auth.signInAnonymously());
  const post = (path, token, body) =>
    fetch(`${url}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const said = await post("/api/chat", guest.session.access_token, { message: "Whose is this?" });
  assert.equal(said.status, 200);
  const { merge_token } = await (await post("/auth/v1/guest/merge-token", guest.session.access_token, {})).json();

  const owner = data(await auth.signInWithPassword({ email, password })).session;
  const merged = await post("/auth/v1/guest/merge", owner.access_token, { merge_token });

  assert.deepEqual(await merged.json(), { merged: true });
  assert.equal(owner.user.id, session.user.id);
  const headers = { authorization: `Bearer ${owner.access_token}` };
  const { data: conversations } = await (await fetch(`${url}/api/conversations`, { headers })).json();
  assert.equal(conversations.length, 1);
  assert.equal((await device().auth.refreshSession(guest.session)).error.code, "refresh_token_not_found");
  assert.equal((await post("/auth/v1/guest/merge", owner.access_token, { merge_token })).status, 410);
});

test("who wants to have a number is refused", async () => {
  const { auth } = await confirmed();

  assert.equal((await auth.updateUser({ phone: "+14155550100" })).error.code, "phone_provider_disabled");
});

test("an anonymous user becomes one with an address, and stays who they are", async () => {
  const { auth } = device();
  const { user } = data(await auth.signInAnonymously({ options: { data: { theme: "dark" } } }));
  assert.equal(user.is_anonymous, true);
  const email = address();

  data(await auth.updateUser({ email }));
  const token = code((await mails(email))[0]);
  data(await auth.verifyOtp({ email, token, type: "email_change" }));
  data(await auth.updateUser({ password }));

  const known = data(await signIn(email)).user;
  assert.equal(known.id, user.id);
  assert.equal(known.is_anonymous, false);
  assert.deepEqual(known.user_metadata, { theme: "dark" });
  assert.equal(data(await auth.refreshSession()).user.is_anonymous, false);
});

test("who wants to sign up with a number is not made anonymous", async () => {
  const { data, error } = await device().auth.signUp({ phone: "+14155550100", password });

  assert.equal(error.code, "phone_provider_disabled");
  assert.equal(data.user, null);
});

test("a sign-in that is long ago is made good by a mailed code", async () => {
  const { url, mails } = await serve({ AUTH_STEP_UP_TTL: "1" });
  const { auth } = supabase.device(url);
  const email = address();
  data(await auth.signUp({ email, password }));
  await until("the sign-in is long ago", async () => {
    const { error } = await auth.updateUser({ password });
    assert.ok(["same_password", "reauthentication_needed"].includes(error.code), error.code);
    return error.code === "reauthentication_needed";
  });

  data(await auth.reauthenticate());
  const nonce = code((await mails(email)).at(-1));
  const wrong = await auth.updateUser({ password: "a better password", nonce: "nothing" });
  assert.equal(wrong.error.code, "reauthentication_not_valid");
  data(await auth.updateUser({ password: "a better password", nonce }));

  data(await supabase.device(url).auth.signInWithPassword({ email, password: "a better password" }));
});
