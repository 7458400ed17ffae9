// Stripe's SDK for Node, unmodified, against the simulated Stripe of a server of its own.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, beforeEach, test } from "node:test";
import Stripe from "stripe";
import { serve, until } from "./server.mjs";

const { world } = await serve();
const { hostname: host, port } = new URL(world);
// An answer that the SDK does not read to its end holds its connection for so long.
const patience = { timeout: 3_000 };
const account = (key, more) => new Stripe(key, { host, port, protocol: "http", ...patience, ...more });
const stripe = account("sk_test_simulated", { maxNetworkRetries: 2 });
const old = account("sk_test_simulated", { apiVersion: "2024-06-20" });

const board = async (path, body) => {
  const answer = await fetch(`${world}/payments/${path}`, { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  assert.equal(answer.status, 200);
};
beforeEach(() => board("faults", {}));

/** Where events arrive, and how they are answered. */
const arrived = [];
let answer = 200;
const hook = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  arrived.push({ body: Buffer.concat(chunks), signature: request.headers["stripe-signature"] });
  response.writeHead(answer).end();
});
await new Promise((resolve) => hook.listen(0, "127.0.0.1", resolve));
after(() => {
  hook.close();
  hook.closeAllConnections();
});

const customer = (more = {}) =>
  stripe.customers.create({ email: "ann@example.com", metadata: { user_id: "u1" }, invoice_settings: { default_payment_method: "pm_card_visa" }, ...more });
const subscription = async (price = "price_standard") => {
  const { id } = await customer();
  return stripe.subscriptions.create({ customer: id, items: [{ price }] });
};

test("a customer is made, found, changed and deleted", async () => {
  const made = await customer();
  const changed = await stripe.customers.update(made.id, { name: "Ann", metadata: { user_id: "", plan: "pro" } });
  const deleted = await stripe.customers.del(made.id);

  assert.match(made.lastResponse.requestId, /^req_/);
  assert.equal(made.lastResponse.apiVersion, "2026-10-28.endive");
  assert.deepEqual([changed.name, changed.metadata], ["Ann", { plan: "pro" }]);
  assert.equal(deleted.deleted, true);
  assert.equal((await stripe.customers.retrieve(made.id)).deleted, true);
});

test("a checkout is opened, paid by nobody, and expires", async () => {
  const session = await stripe.checkout.sessions.create({
    mode: "subscription",
    success_url: "https://app.example/done?session_id={CHECKOUT_SESSION_ID}",
    client_reference_id: "u1",
    line_items: [{ price: "price_pro", quantity: 2 }],
    subscription_data: { trial_period_days: 7, metadata: { user_id: "u1" } },
    expand: ["line_items"],
  });
  const items = await stripe.checkout.sessions.listLineItems(session.id);
  const page = await fetch(session.url);
  const expired = await stripe.checkout.sessions.expire(session.id);

  assert.deepEqual([session.status, session.payment_status, session.amount_total], ["open", "unpaid", 0]);
  assert.equal(session.line_items.data[0].quantity, 2);
  assert.equal(items.data[0].price.id, "price_pro");
  assert.equal(page.status, 200);
  assert.deepEqual([expired.status, expired.url], ["expired", null]);
});

test("a subscription is changed, left, kept and ended", async () => {
  const made = await subscription();
  const item = made.items.data[0].id;
  const preview = await stripe.invoices.createPreview({
    subscription: made.id,
    subscription_details: { items: [{ id: item, price: "price_pro" }], proration_behavior: "always_invoice" },
  });
  const changed = await stripe.subscriptions.update(made.id, {
    items: [{ id: item, price: "price_pro" }],
    proration_behavior: "always_invoice",
    expand: ["latest_invoice.payments.data.payment.payment_intent"],
  });
  const leaving = await stripe.subscriptions.update(made.id, { cancel_at_period_end: true });
  const staying = await stripe.subscriptions.update(made.id, { cancel_at_period_end: false });
  const ended = await stripe.subscriptions.cancel(made.id);

  assert.equal(preview.total, 2000);
  const { latest_invoice: invoice } = changed;
  assert.deepEqual([invoice.total, invoice.status], [2000, "paid"]);
  assert.equal(invoice.payments.data[0].payment.payment_intent.status, "succeeded");
  assert.deepEqual([leaving.cancel_at_period_end, staying.cancel_at_period_end], [true, false]);
  assert.equal(leaving.cancel_at, made.items.data[0].current_period_end);
  assert.equal(ended.status, "canceled");
  assert.equal((await stripe.subscriptions.list({ customer: made.customer })).data.length, 0);
  assert.equal((await stripe.subscriptions.list({ customer: made.customer, status: "all" })).data.length, 1);
});

test("an old version is shown what it knew", async () => {
  const made = await subscription();

  const [before, now] = await Promise.all([old.subscriptions.retrieve(made.id), stripe.subscriptions.retrieve(made.id)]);
  const invoice = await old.invoices.retrieve(made.latest_invoice, { expand: ["payment_intent"] });

  assert.equal(before.current_period_end, now.items.data[0].current_period_end);
  assert.equal(now.current_period_end, undefined);
  assert.deepEqual([invoice.subscription, invoice.payment_intent.status], [made.id, "succeeded"]);
});

test("pages are turned by the SDK itself, in either direction", async () => {
  const name = `turned ${Date.now()}`;
  for (let number = 0; number < 12; number++) await stripe.products.create({ name: `${name} ${number}` });

  const names = [];
  for await (const product of stripe.products.list({ limit: 5 })) if (product.name.startsWith(name)) names.push(product.name);
  const last = (await stripe.products.list({ limit: 100 })).data.at(-1).id;
  const back = await stripe.products.list({ limit: 3, ending_before: last });

  assert.deepEqual(names, [...Array(12).keys()].reverse().map((number) => `${name} ${number}`));
  assert.equal(back.data.length, 3);
  assert.equal(back.has_more, true);
});

test("one idempotency key does one thing", async () => {
  const key = `once ${Date.now()}`;
  const first = await stripe.customers.create({ email: "a@example.com" }, { idempotencyKey: key });
  const again = await stripe.customers.create({ email: "a@example.com" }, { idempotencyKey: key });

  assert.equal(again.id, first.id);
  assert.equal(again.lastResponse.headers["idempotent-replayed"], "true");
  await assert.rejects(stripe.customers.create({ email: "b@example.com" }, { idempotencyKey: key }), Stripe.errors.StripeIdempotencyError);
});

test("a refusal is the error that the SDK has for it", async () => {
  const { StripeInvalidRequestError, StripeAuthenticationError, StripeCardError } = Stripe.errors;
  const unlucky = await customer({ invoice_settings: { default_payment_method: "pm_card_visa_chargeDeclined" } });

  await assert.rejects(stripe.customers.retrieve("cus_none"), (error) => error instanceof StripeInvalidRequestError && error.code === "resource_missing" && error.param === "id");
  await assert.rejects(stripe.prices.create({ currency: "usd" }), { code: "parameter_missing", param: "unit_amount" });
  await assert.rejects(account("sk_live_1").customers.list(), StripeAuthenticationError);
  const bought = stripe.subscriptions.create({ customer: unlucky.id, items: [{ price: "price_pro" }], payment_behavior: "error_if_incomplete" });
  await assert.rejects(bought, (error) => error instanceof StripeCardError && error.decline_code === "generic_decline");
});

test("what fails in between is asked for again by the SDK, and done once", async () => {
  const email = `${Date.now()}@example.com`;
  await board("faults", { api: "500", api_times: 2 });

  await stripe.customers.create({ email });

  assert.equal((await stripe.customers.list({ email })).data.length, 1);
  await board("faults", { api: "429", api_times: 1 });
  await assert.rejects(account("sk_test_1", { maxNetworkRetries: 0 }).customers.list(), Stripe.errors.StripeRateLimitError);
});

test("an event that was delivered is verified by the SDK, and one that was not is found", async () => {
  const { port: at } = hook.address();
  const endpoint = await stripe.webhookEndpoints.create({ url: `http://127.0.0.1:${at}/`, enabled_events: ["customer.subscription.created"], api_version: "2024-06-20" });
  const made = await subscription();

  await until("the event arrives", () => arrived.length > 0);
  const { body, signature } = arrived.pop();
  const event = stripe.webhooks.constructEvent(body, signature, endpoint.secret);
  assert.deepEqual([event.type, event.data.object.id, event.api_version], ["customer.subscription.created", made.id, "2024-06-20"]);
  assert.throws(() => stripe.webhooks.constructEvent(body, signature, "whsec_other"), Stripe.errors.StripeSignatureVerificationError);

  answer = 500;
  const refused = await subscription();
  await until("the next arrives", () => arrived.length > 0);
  const missed = await stripe.events.list({ delivery_success: false, types: ["customer.subscription.created"] });
  assert.equal(missed.data[0].data.object.id, refused.id);
  await stripe.webhookEndpoints.del(endpoint.id);
});

test("a test clock brings renewals, and a card that fails", async () => {
  const now = Math.floor(Date.now() / 1000);
  const clock = await stripe.testHelpers.testClocks.create({ frozen_time: now });
  const ann = await customer({ test_clock: clock.id });
  const made = await stripe.subscriptions.create({ customer: ann.id, items: [{ price: "price_pro" }] });
  const end = made.items.data[0].current_period_end;

  await stripe.testHelpers.testClocks.advance(clock.id, { frozen_time: end + 3700 });
  const renewed = await stripe.invoices.list({ subscription: made.id });
  await stripe.customers.update(ann.id, { invoice_settings: { default_payment_method: "pm_card_chargeCustomerFail" } });
  await stripe.testHelpers.testClocks.advance(clock.id, { frozen_time: end + 35 * 86_400 });

  assert.deepEqual(renewed.data.map((invoice) => invoice.status), ["paid", "paid"]);
  assert.equal((await stripe.subscriptions.retrieve(made.id)).status, "past_due");
});

test("a refund names its payment, which names its invoice", async () => {
  const made = await subscription();
  const [paid] = (await stripe.invoicePayments.list({ invoice: made.latest_invoice })).data;

  const refund = await stripe.refunds.create({ payment_intent: paid.payment.payment_intent, amount: 400 });
  const intent = await stripe.paymentIntents.retrieve(paid.payment.payment_intent, { expand: ["latest_charge"] });

  assert.deepEqual([refund.status, refund.amount], ["succeeded", 400]);
  assert.deepEqual([intent.latest_charge.amount_refunded, intent.latest_charge.refunded], [400, false]);
  await assert.rejects(stripe.refunds.create({ payment_intent: intent.id, amount: 600 }), /greater than unrefunded/);
});

test("a portal opens, as it is configured", async () => {
  const { id } = await customer();
  const configuration = await stripe.billingPortal.configurations.create({ features: { invoice_history: { enabled: true } } });
  const session = await stripe.billingPortal.sessions.create({ customer: id, configuration: configuration.id, return_url: "https://app.example/account" });

  const page = await (await fetch(session.url)).text();

  assert.equal(configuration.features.subscription_cancel.enabled, false);
  assert.match(page, /Return to/);
  assert.doesNotMatch(page, /Cancel plan/);
});
