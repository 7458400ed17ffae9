// Tokens of others, made by an issuer that is not ours.
import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { after, test } from "node:test";
import { OAuth2Server } from "oauth2-mock-server";
import OpenAI from "openai";
import { serve } from "./server.mjs";
import * as supabase from "./supabase.mjs";
import { address, data, password } from "./supabase.mjs";

async function issuer() {
  const server = new OAuth2Server();
  await server.issuer.keys.generate("RS256");
  await server.start(0, "localhost");
  after(() => server.stop());
  const { url } = server.issuer;
  const token = (claims) => server.issuer.buildToken({ scopesOrTransform: (_, payload) => Object.assign(payload, { jti: randomUUID() }, claims) });
  return { url, keys: `${url}/jwks`, token };
}

const client = "web.apps.googleusercontent.com";
const project = "demo-project";
const [google, firebase, stranger, elsewhere] = await Promise.all([issuer(), issuer(), issuer(), serve()]);
const { url } = await serve({
  SUPABASE_URL: elsewhere.url,
  GOOGLE_CLIENT_ID: client,
  GOOGLE_ISSUER: google.url,
  GOOGLE_JWKS_URL: google.keys,
  FIREBASE_PROJECT_ID: project,
  FIREBASE_ISSUER: firebase.url,
  FIREBASE_JWKS_URL: firebase.keys,
});
const device = () => supabase.device(url);
const provider = "google";

/** Somebody as Google knows them. */
const person = (claims) => ({ aud: client, sub: randomUUID(), email: address(), email_verified: true, name: "Ada Lovelace", ...claims });
const signIn = async (claims, besides) => device().auth.signInWithIdToken({ provider, token: await google.token(claims), ...besides });

test("who comes from Google is somebody new, and the same the next time", async () => {
  const ada = person();

  const { user, session } = data(await signIn(ada));

  assert.equal(user.email, ada.email);
  assert.equal(user.app_metadata.provider, "google");
  assert.deepEqual(user.identities.map(({ id, provider }) => [id, provider]), [[ada.sub, "google"]]);
  assert.equal(user.user_metadata.name, "Ada Lovelace");
  assert.equal(data(await device().auth.getUser(session.access_token)).user.id, user.id);
  assert.equal(data(await signIn({ ...ada, email: address() })).user.id, user.id);
});

test("invariant 15: a token serves once", async () => {
  const token = await google.token(person());
  data(await device().auth.signInWithIdToken({ provider, token }));

  const { error } = await device().auth.signInWithIdToken({ provider, token });

  assert.equal(error.code, "id_token_replayed");
});

test("invariant 16: a nonce is known raw and hashed, and no other is", async () => {
  const nonce = randomUUID();
  const hashed = createHash("sha256").update(nonce).digest("hex");

  data(await signIn({ ...person(), nonce }, { nonce }));
  data(await signIn({ ...person(), nonce: hashed }, { nonce }));

  for (const besides of [{}, { nonce: randomUUID() }]) {
    assert.equal((await signIn({ ...person(), nonce }, besides)).error.code, "invalid_id_token");
  }
});

test("invariant 14: what is not Google's, not for us, or not in time is refused", async () => {
  const now = Math.floor(Date.now() / 1000);
  const ada = person();
  const right = await google.token(ada);
  const [head, , signature] = right.split(".");
  const claims = Buffer.from(JSON.stringify({ ...ada, iss: google.url, iat: now, exp: now + 600 })).toString("base64url");
  const none = Buffer.from(JSON.stringify({ alg: "none" })).toString("base64url");
  const wrong = [
    await stranger.token({ ...ada, iss: google.url }),
    await stranger.token(ada),
    await google.token({ ...ada, iss: stranger.url }),
    await google.token({ ...ada, aud: "another.apps.googleusercontent.com" }),
    await google.token({ ...ada, aud: [client, "another"], azp: "another" }),
    await google.token({ ...ada, exp: now - 1 }),
    await google.token({ ...ada, iat: now - 7200 }),
    await google.token({ ...ada, sub: "" }),
    `${head}.${claims}.${signature}`,
    `${none}.${claims}.`,
    "nonsense",
  ];

  for (const [at, token] of wrong.entries()) {
    const { data, error } = await device().auth.signInWithIdToken({ provider, token });
    assert.equal(error?.code, "invalid_id_token", `token ${at}`);
    assert.equal(data.session, null);
  }
  data(await device().auth.signInWithIdToken({ provider, token: right }));
});

test("invariant 13: Google's word opens the account of its own mailbox, and of no other", async () => {
  for (const [domain, opens] of [["gmail.com", true], ["example.com", false]]) {
    const email = `${randomUUID()}@${domain}`;
    const { auth } = device();
    const { user } = data(await auth.signUp({ email, password }));

    const answer = await signIn(person({ email }));

    if (opens) {
      assert.equal(data(answer).user.id, user.id);
      assert.deepEqual(answer.data.user.app_metadata.providers, ["email", "google"]);
    } else {
      assert.equal(answer.error.code, "account_link_required");
    }
    data(await device().auth.signInWithPassword({ email, password }));
  }
});

test("who is signed in links Google, and unlinks it", async () => {
  const { auth } = device();
  const { user } = data(await auth.signUp({ email: address(), password }));
  const ada = person();

  data(await auth.linkIdentity({ provider, token: await google.token(ada) }));

  const { identities } = data(await auth.getUserIdentities());
  assert.deepEqual(identities.map(({ provider }) => provider), ["email", "google"]);
  assert.equal(data(await signIn(ada)).user.id, user.id);
  data(await auth.unlinkIdentity(identities[1]));
  assert.notEqual((await signIn(ada)).data.user?.id, user.id);
});

/** Who a bearer is here, by an SDK that takes any token for a key. */
const bearer = (token) => device().auth.getUser(token);

test("who is signed in at Firebase is a user here at the first request, and the same at the next", async () => {
  const now = Math.floor(Date.now() / 1000);
  const ada = { aud: project, sub: randomUUID(), user_id: "any", email: address(), email_verified: true, auth_time: now, firebase: { sign_in_provider: "password", identities: {} } };

  const { user } = data(await bearer(await firebase.token(ada)));

  assert.equal(user.email, ada.email);
  assert.equal(user.identities[0].provider, "firebase");
  assert.equal(data(await bearer(await firebase.token(ada))).user.id, user.id);
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: await firebase.token(ada) });
  const { choices } = await openai.chat.completions.create({ model: "gpt-4o-mini", messages: [{ role: "user", content: "Hello" }] });
  assert.ok(choices[0].message.content);

  for (const wrong of [{ aud: "another-project" }, { iss: google.url }, { exp: now - 1 }, { sub: "" }]) {
    assert.equal((await bearer(await firebase.token({ ...ada, ...wrong }))).error?.code, "bad_jwt", JSON.stringify(wrong));
  }
  assert.equal((await bearer(await stranger.token({ ...ada, iss: firebase.url }))).error?.code, "bad_jwt");
});

test("who is signed in at a project of Supabase is a user here, and its keys are not", async () => {
  const there = supabase.device(elsewhere.url);
  const email = address();
  const { session } = data(await there.auth.signUp({ email, password }));

  const { user } = data(await bearer(session.access_token));

  assert.notEqual(user.id, session.user.id);
  assert.equal(user.identities[0].provider, "supabase");
  assert.equal(user.identities[0].id, session.user.id);
  const renewed = data(await there.auth.refreshSession()).session;
  assert.equal(data(await bearer(renewed.access_token)).user.id, user.id);
  assert.equal((await device().auth.refreshSession(renewed)).error.code, "refresh_token_not_found");
});

test("a bearer of others signs nobody in for good", async () => {
  const token = await firebase.token({ aud: project, sub: randomUUID(), auth_time: Math.floor(Date.now() / 1000) });

  const { error } = await device().auth.signInWithIdToken({ provider: "firebase", token });

  assert.equal(error.code, "provider_disabled");
});
