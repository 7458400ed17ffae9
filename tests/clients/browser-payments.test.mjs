// A subscription as people buy it: a browser pays, changes plans, leaves and stays, on a phone and on a desk.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { launch } from "./browser/chromium.mjs";
import { serve, until } from "./server.mjs";
import { address } from "./supabase.mjs";

const { url } = await serve();
const browser = await launch();
after(() => browser.close());

const screens = [
  { name: "a phone", viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
  { name: "a desk", viewport: { width: 1280, height: 800 } },
];

for (const { name, ...screen } of screens) {
  test(`on ${name}, a plan is bought, made dearer, cancelled and kept`, async (t) => {
    const ask = await someone();
    const context = await browser.newContext(screen);
    context.setDefaultTimeout(15_000);
    t.after(() => context.close());
    const page = await context.newPage();
    const press = (button) => page.getByRole("button", { name: button, exact: true }).click();
    const open = async (path, body) => {
      await page.goto((await ask(path, body)).url);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.equal(wide, screen.viewport.width, "nothing is wider than the screen");
    };

    await open("/api/billing/checkout", { plan: "standard" });
    await page.getByText("Simulated.").waitFor();
    await pay(page, "4000 0000 0000 0002");
    await page.getByText("Your card was declined.").waitFor();
    assert.equal((await ask("/api/entitlements")).plan, "free");
    await pay(page, "4000 0025 0000 3155");
    await press("Yes, confirm");
    await page.waitForURL(/\/subscriptions\/success\?session_id=cs_test_/);
    await holds(ask, "standard");

    await open("/api/billing/portal", {});
    await page.getByText("Change plan").click();
    await page.getByLabel(/^Pro .*month/).check();
    await press("Continue");
    await page.getByRole("heading", { name: "Change to Pro" }).waitFor();
    await press("Confirm");
    await page.getByText("Your plan is changed.").waitFor();
    await holds(ask, "pro");

    await page.getByText("Cancel plan", { exact: true }).click();
    await press("Cancel plan now");
    await page.getByText(/Available until/).waitFor();
    await until("it is cancelled", async () => (await subscription(ask)).will_renew === false);
    assert.equal((await ask("/api/entitlements")).plan, "pro", "until the end of what is paid");

    await press("Keep the plan");
    await page.getByText("Your plan goes on.").waitFor();
    await until("it goes on", async () => (await subscription(ask)).will_renew === true);
  });
}

/** Somebody new, and what they ask the backend. */
async function someone() {
  const headers = { "content-type": "application/json" };
  const ask = async (path, body) => {
    const answer = await fetch(url + path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
    const text = await answer.text();
    assert.ok(answer.ok, `${path}: ${answer.status} ${text}`);
    return JSON.parse(text);
  };
  const session = await ask("/auth/v1/signup", { email: address(), password: "correct horse battery" });
  headers.authorization = `Bearer ${session.access_token}`;
  return ask;
}

async function pay(page, number) {
  await page.getByLabel("Card number").fill(number);
  await page.getByLabel("Expires").fill("12 / 34");
  await page.getByLabel("Security code").fill("123");
  await page.getByLabel("Name on card").fill("Ada Lovelace");
  await page.getByRole("button", { name: "Subscribe", exact: true }).click();
}

const holds = (ask, plan) => until(`the plan is ${plan}`, async () => (await ask("/api/entitlements")).plan === plan);

async function subscription(ask) {
  const { subscriptions } = await ask("/api/billing");
  assert.equal(subscriptions.length, 1);
  return subscriptions[0];
}
