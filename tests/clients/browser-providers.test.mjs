// Sign-in with others as people do it: a browser goes there, and comes back.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, afterEach, beforeEach, test } from "node:test";
import { OAuth2Server } from "oauth2-mock-server";
import Provider from "oidc-provider";
import { launch } from "./browser/chromium.mjs";
import { origin, put } from "./browser/page.mjs";
import { serve } from "./server.mjs";
import { address } from "./supabase.mjs";

const client = { client_id: "our-app", client_secret: "known to both" };
const certified = createServer();
await new Promise((resolve) => certified.listen(0, "localhost", resolve));
const issuer = `http://localhost:${certified.address().port}`;

const google = new OAuth2Server();
await google.issuer.keys.generate("RS256");
await google.start(0, "localhost");

const site = await origin();
const { url } = await serve({
  ISSUER_URL: issuer,
  REPL_ID: client.client_id,
  ISSUER_CLIENT_SECRET: client.client_secret,
  GOOGLE_CLIENT_ID: client.client_id,
  GOOGLE_CLIENT_SECRET: client.client_secret,
  GOOGLE_ISSUER: google.issuer.url,
  GOOGLE_JWKS_URL: `${google.issuer.url}/jwks`,
});
await put(site, url);
certified.on("request", provider().callback());

/** A certified provider, where whoever signs in is called by their address. */
function provider() {
  return new Provider(issuer, {
    clients: [{ ...client, redirect_uris: [`${url}/auth/v1/callback`] }],
    claims: { email: ["email", "email_verified"], profile: ["name"] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: id, email_verified: true, name: "Ada Lovelace" }) }),
    cookies: { keys: ["for this test alone"] },
  });
}

const browser = await launch();
after(async () => {
  await browser.close();
  certified.close();
  await google.stop();
});

let page;
beforeEach(async () => {
  const context = await browser.newContext();
  context.setDefaultTimeout(15_000);
  page = await context.newPage();
});
afterEach(() => page.context().close());

const press = (name) => page.getByRole("button", { name, exact: true }).click();
const reads = (text) => page.getByText(text, { exact: true }).waitFor();

test("who signs in at a certified provider is signed in here, and is the same the next time", async () => {
  const email = address();
  const ids = [];
  for (const time of ["first", "second"]) {
    await page.goto(site.url);
    await press("Sign in with OpenID Connect");
    if (time === "first") {
      await page.getByPlaceholder("Enter any login").fill(email);
      await page.getByPlaceholder("and password").fill("anything");
      await press("Sign-in");
      await press("Continue");
    }
    await reads(`Hello ${email}`);
    assert.equal(page.url(), `${site.url}/`);
    ids.push(await page.getByTestId("id").textContent());
    await press("Sign out");
    await page.getByLabel("E-mail", { exact: true }).waitFor();
  }
  assert.equal(ids[0], ids[1]);
});

test("who declines at the provider is told so, and signed in nowhere", async () => {
  await page.goto(site.url);
  await press("Sign in with OpenID Connect");
  await page.getByText("[ Cancel ]").click();

  await page.waitForURL((at) => at.origin === site.url && at.searchParams.has("error"));
  assert.equal(new URL(page.url()).searchParams.get("error"), "access_denied");
  await page.getByLabel("E-mail", { exact: true }).waitFor();
});

test("who signs in with Google is signed in here", async () => {
  const email = address();
  google.service.on("beforeTokenSigning", ({ payload }) => Object.assign(payload, { sub: email, email, email_verified: true }));
  await page.goto(site.url);
  await press("Sign in with Google");

  await reads(`Hello ${email}`);
});
