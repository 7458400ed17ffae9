// Sessions in cookies, over TLS, in a browser that decides by itself what it keeps and sends along.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { launch } from "./browser/chromium.mjs";
import { front } from "./browser/front.mjs";
import { serve } from "./server.mjs";
import { address, password } from "./supabase.mjs";

const { server: tls, ours, foreign } = await front((url) => serve({ PUBLIC_URL: url }));
const browser = await launch();
after(async () => {
  await browser.close();
  tls.close();
});

/** A browser with nothing in it yet, on a page at this origin. */
async function open(at) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  await page.goto(`${at}/page`);
  return { context, page };
}

/** What a script of the page is answered. */
const fetched = (page, path, init) =>
  page.evaluate(
    async ([path, init]) => {
      const answer = await fetch(path, { credentials: "include", ...init });
      return { status: answer.status, body: await answer.json().catch(() => null) };
    },
    [path, init],
  );

const post = (body, headers) => ({ method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) });
const wanted = { "x-session-transport": "cookie" };

async function signedUp() {
  const opened = await open(ours);
  const email = address();
  const { status, body } = await fetched(opened.page, "/auth/v1/signup", post({ email, password }, wanted));
  assert.equal(status, 200);
  return { ...opened, email, body };
}

const user = (page) => fetched(page, "/auth/v1/user");
const tokens = async (context) => (await context.cookies(ours)).filter(({ name }) => /(access|refresh)$/.test(name));

test("invariant 57: no script sees the tokens, and the browser keeps them to this host", async () => {
  const { context, page, email, body } = await signedUp();

  assert.equal(body.user.email, email);
  assert.equal(body.access_token, undefined);
  assert.equal(body.refresh_token, undefined);
  assert.equal(await page.evaluate(() => document.cookie), "");
  const kept = await tokens(context);
  assert.equal(kept.length, 2);
  for (const cookie of kept) {
    assert.ok(cookie.name.startsWith("__Host-"), cookie.name);
    const { httpOnly, secure, sameSite, domain, path } = cookie;
    assert.deepEqual({ httpOnly, secure, sameSite, domain, path }, { httpOnly: true, secure: true, sameSite: "Lax", domain: "localhost", path: "/" });
  }
  assert.equal((await user(page)).body.email, email);
  await context.close();
});

test("a session in cookies is refreshed and ended by the browser alone", async () => {
  const { context, page, email } = await signedUp();
  const before = await tokens(context);

  assert.equal((await fetched(page, "/auth/v1/token?grant_type=refresh_token", post({}, wanted))).status, 200);
  const later = await tokens(context);
  assert.notDeepEqual(later.map(({ value }) => value), before.map(({ value }) => value));
  assert.equal((await user(page)).body.email, email);

  assert.equal((await fetched(page, "/auth/v1/logout", { method: "POST", headers: wanted })).status, 204);
  assert.deepEqual(await tokens(context), []);
  assert.equal((await user(page)).status, 401);
  await context.close();
});

test("invariant 58: another site changes nothing with the cookies that its visitor has", async () => {
  const { context, page, email } = await signedUp();
  const elsewhere = await context.newPage();
  await elsewhere.goto(`${foreign}/page`);

  // What it is answered, its browser keeps from it.
  const blindly = (url) => fetch(url, { method: "POST", mode: "no-cors", credentials: "include" }).catch(() => null);
  await elsewhere.evaluate(blindly, `${ours}/auth/v1/logout`);
  await elsewhere.evaluate((action) => {
    const form = Object.assign(document.createElement("form"), { method: "post", action, enctype: "text/plain" });
    document.body.append(form);
    form.submit();
  }, `${ours}/auth/v1/logout`);
  await elsewhere.waitForURL(`${ours}/**`);

  assert.equal((await user(page)).body.email, email);
  assert.equal((await tokens(context)).length, 2);
  await context.close();
});

test("invariant 58: another site signs nobody in as somebody else", async () => {
  const { email } = await signedUp();
  const { context, page } = await open(foreign);

  const answer = await page.evaluate(
    ([url, init]) => fetch(url, init).then(({ status }) => status, () => "refused by the browser"),
    [`${ours}/auth/v1/token?grant_type=password`, { ...post({ email, password }, wanted), credentials: "include" }],
  );

  assert.ok([403, "refused by the browser"].includes(answer), String(answer));
  assert.deepEqual(await tokens(context), []);
  await context.close();
});
