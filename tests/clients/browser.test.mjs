// A React page in a real browser: what no HTTP client can say of itself.
import assert from "node:assert/strict";
import { after, afterEach, beforeEach, test } from "node:test";
import { launch } from "./browser/chromium.mjs";
import { origin, put } from "./browser/page.mjs";
import { serve } from "./server.mjs";
import { address, code, link, password, totp } from "./supabase.mjs";

const site = await origin();
const { url, mails } = await serve({ AUTH_AUTOCONFIRM: "false", AUTH_ANONYMOUS: "true", AUTH_SECURE_EMAIL_CHANGE: "false", AUTH_PASSKEY_ORIGINS: site.url });
await put(site, url);
const browser = await launch();
after(() => browser.close());

const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
let page;
beforeEach(async () => {
  const context = await browser.newContext(phone);
  context.setDefaultTimeout(15_000);
  page = await context.newPage();
});
afterEach(() => page.context().close());

const press = (name) => page.getByRole("button", { name, exact: true }).click();
const reads = (text) => page.getByText(text, { exact: true }).waitFor();

/** Types what the form asks for. */
async function type(email, word = password) {
  await page.getByLabel("E-mail", { exact: true }).fill(email);
  await page.getByLabel("Password", { exact: true }).fill(word);
}

/** Somebody who signed up on this page and pressed the button of their mail's link, in this browser. */
async function signedUp() {
  const email = address();
  await page.goto(site.url);
  await type(email);
  await press("Sign up");
  await reads("Look into your mail");
  await page.goto(link((await mails(email))[0]).href);
  await press("Continue");
  await reads(`Hello ${email}`);
  return email;
}

test("who signs up and presses the button of the mail is signed in, until they sign out", async () => {
  const email = await signedUp();
  assert.equal(new URL(page.url()).hash, "");

  await page.reload();
  await reads(`Hello ${email}`);
  await press("Sign out");
  await page.getByLabel("E-mail", { exact: true }).waitFor();
  await page.reload();
  await page.getByLabel("E-mail", { exact: true }).waitFor();

  await type(email, "another password");
  await press("Sign in");
  await reads("Refused: invalid_credentials");
  await type(email);
  await press("Sign in");
  await reads(`Hello ${email}`);
});

/** Follows the newest mail's link in this browser, as its reader does. */
async function follow(email, count) {
  await page.goto(link((await mails(email, count)).at(-1)).href);
  await press("Continue");
  await page.waitForURL((at) => at.origin === site.url);
}

test("a mailed link signs in the browser that asked, by a code that is gone from its address", async () => {
  const email = address();
  await page.goto(site.url);
  await page.getByLabel("E-mail", { exact: true }).fill(email);
  await press("Mail me a link");
  await reads("Look into your mail");
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url())));

  await follow(email, 1);

  await reads(`Hello ${email}`);
  assert.equal(page.url(), `${site.url}/`);
  assert.ok(asked.some((to) => to.searchParams.has("code")));
  assert.ok(asked.every((to) => !to.href.includes("access_token")), "no token was ever in an address");
});

test("a mailed link that another browser opens signs nobody in there", async () => {
  const email = address();
  await page.goto(site.url);
  await page.getByLabel("E-mail", { exact: true }).fill(email);
  await press("Mail me a link");
  await reads("Look into your mail");
  const { href } = link((await mails(email))[0]);
  const elsewhere = await browser.newContext(phone);
  const other = await elsewhere.newPage();

  await other.goto(href);
  await other.getByRole("button", { name: "Continue" }).click();
  await other.waitForURL((at) => at.origin === site.url);

  await other.getByLabel("E-mail", { exact: true }).waitFor();
  assert.equal(await other.getByText(`Hello ${email}`).count(), 0);
  await elsewhere.close();
});

test("the code of a mail signs in, and another one does not", async () => {
  const email = address();
  await page.goto(site.url);
  await page.getByLabel("E-mail", { exact: true }).fill(email);
  await press("Mail me a link");
  await reads("Look into your mail");
  const right = code((await mails(email))[0]);

  await page.getByLabel("Code", { exact: true }).fill(right === "000000" ? "000001" : "000000");
  await press("Sign in with the code");
  await reads("Refused: otp_expired");
  await page.getByLabel("Code", { exact: true }).fill(right);
  await press("Sign in with the code");

  await reads(`Hello ${email}`);
});

test("who forgot the password opens the mail's link, presses its button and chooses another", async () => {
  const email = await signedUp();
  await press("Sign out");
  await page.getByLabel("E-mail", { exact: true }).fill(email);
  await press("I forgot my password");
  await reads("Look into your mail");

  await follow(email, 2);

  await reads("Choose a new password");
  await page.getByLabel("New password").fill("a better password");
  await press("Change the password");
  await reads("The password is changed");
  await press("Sign out");
  await type(email);
  await press("Sign in");
  await reads("Refused: invalid_credentials");
  await type(email, "a better password");
  await press("Sign in");
  await reads(`Hello ${email}`);
});

test("an authenticator app is scanned, and asked for again at the next sign-in", async () => {
  const email = await signedUp();
  await press("Add an authenticator app");
  await reads("Scan it");
  const secret = await page.getByTestId("secret").textContent();
  const width = await page.getByAltText("To scan").evaluate(async (image) => (await image.decode(), image.naturalWidth));
  assert.ok(width >= 200, "the code can be seen");
  await reads("Proved at aal1");

  await page.getByLabel("Code of the app").fill(totp(secret));
  await press("Prove the app");
  await reads("The app is proved");
  await reads("Proved at aal2");

  await press("Sign out");
  await type(email);
  await press("Sign in");
  await reads("Proved at aal1");
  await page.getByLabel("New password").fill("a better password");
  await press("Change the password");
  await reads("Refused: insufficient_aal");
  await page.getByLabel("Code of the app").fill("000000");
  await press("Prove the app");
  await reads("Refused: mfa_verification_failed");
  // Of the next half minute: that of this one was used.
  await page.getByLabel("Code of the app").fill(totp(secret, 1));
  await press("Prove the app");
  await reads("Proved at aal2");
});

test("who looked around first keeps who they are once they prove an address", async () => {
  const email = address();
  await page.goto(site.url);
  await press("Look around first");
  await reads("Hello stranger");
  const id = await page.getByTestId("id").textContent();
  await page.getByLabel("New e-mail").fill(email);
  await press("Change the e-mail");
  await reads("Look into your mail");
  await page.reload();
  await reads("Hello stranger");

  await follow(email, 1);

  await reads(`Hello ${email}`);
  assert.equal(await page.getByTestId("id").textContent(), id);
});

test("a new address counts once its mail's button was pressed", async () => {
  const [email, next] = [await signedUp(), address()];
  const id = await page.getByTestId("id").textContent();
  await page.getByLabel("New e-mail").fill(next);
  await press("Change the e-mail");
  await reads("Look into your mail");
  const { href } = link((await mails(next))[0]);
  await page.goto(href);
  await page.goto(site.url);
  await reads(`Hello ${email}`);

  await follow(next, 1);

  await reads(`Hello ${next}`);
  assert.equal(await page.getByTestId("id").textContent(), id);
  assert.equal((await mails(email, 2))[1].subject, "Your address was changed");
});

test("a session that was ended elsewhere is over in its browser", async () => {
  const email = await signedUp();
  const elsewhere = await browser.newContext(phone);
  const lost = await elsewhere.newPage();
  await lost.goto(site.url);
  await lost.getByLabel("E-mail", { exact: true }).fill(email);
  await lost.getByLabel("Password", { exact: true }).fill(password);
  await lost.getByRole("button", { name: "Sign in", exact: true }).click();
  await lost.getByText(`Hello ${email}`).waitFor();

  await press("Where am I signed in?");
  await page.getByText("(here)").waitFor();
  assert.equal(await page.getByRole("listitem").count(), 2);
  await press("End");
  await reads("It is ended");

  assert.equal(await page.getByRole("listitem").count(), 1);
  await lost.getByRole("button", { name: "Am I signed in?", exact: true }).click();
  await lost.getByLabel("E-mail", { exact: true }).waitFor();
  await press("Am I signed in?");
  await reads("Still signed in");
  await elsewhere.close();
});

test("the page of a mailed link fits a phone, and its button a thumb", async () => {
  const email = address();
  await page.goto(site.url);
  await type(email);
  await press("Sign up");
  await reads("Look into your mail");
  const refused = [];
  page.on("console", (message) => message.type() === "error" && refused.push(message.text()));

  await page.goto(link((await mails(email))[0]).href);

  const button = await page.getByRole("button", { name: "Continue" }).boundingBox();
  assert.ok(button.height >= 44, `${button.height} pixels high`);
  assert.ok(button.x >= 0 && button.x + button.width <= phone.viewport.width);
  assert.ok(button.y + button.height <= phone.viewport.height);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), phone.viewport.width);
  assert.equal(await page.evaluate(() => document.scripts.length), 0);
  assert.deepEqual(refused, []);
});

test("a mail fits a phone, and fetches nothing", async () => {
  const email = address();
  await page.goto(site.url);
  await type(email);
  await press("Sign up");
  const { html } = (await mails(email))[0];
  const reader = await page.context().newPage();
  const fetched = [];
  reader.on("request", (request) => fetched.push(request.url()));

  await reader.setContent(html);

  assert.equal(await reader.evaluate(() => document.documentElement.scrollWidth), phone.viewport.width);
  const button = await reader.getByRole("link").first().boundingBox();
  assert.ok(button.height >= 44, `${button.height} pixels high`);
  assert.deepEqual(fetched, []);
});

for (const colorScheme of ["light", "dark"]) {
  test(`the button of a mailed link's page is readable where the phone is ${colorScheme}`, async () => {
    await page.emulateMedia({ colorScheme });
    await page.goto(`${url}/auth/v1/verify?type=signup&token=any`);

    const button = page.getByRole("button", { name: "Continue" });
    const colors = await button.evaluate((button) => {
      const { color, backgroundColor } = getComputedStyle(button);
      return [color, backgroundColor];
    });

    // WCAG 2.2, success criterion 1.4.3.
    const [lighter, darker] = colors.map(luminance).sort((a, b) => b - a);
    assert.ok((lighter + 0.05) / (darker + 0.05) >= 4.5, String(colors));
  });
}

/** <https://www.w3.org/TR/WCAG22/#dfn-relative-luminance> */
function luminance(color) {
  const linear = (byte) => (byte / 255 <= 0.04045 ? byte / 255 / 12.92 : ((byte / 255 + 0.055) / 1.055) ** 2.4);
  const [red, green, blue] = color.match(/\d+/g).map(Number).map(linear);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** A fingerprint reader that keeps passkeys, and agrees to everything. */
async function authenticator(options) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const usual = { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true };
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: { ...usual, isUserVerified: true, automaticPresenceSimulation: true, ...options },
  });
  return async () => (await cdp.send("WebAuthn.getCredentials", { authenticatorId })).credentials;
}

test("a passkey is made and signs in, without a name and without a password", async () => {
  const credentials = await authenticator();
  const email = await signedUp();
  await press("Add a passkey");
  await page.getByText(/^Passkey [0-9a-f-]{36}$/).waitFor();
  const [made] = await credentials();
  assert.equal(made.rpId, "localhost");
  assert.equal(made.isResidentCredential, true);
  assert.equal((await mails(email, 2))[1].subject, "A passkey was added to your account");

  await press("Sign out");
  await press("Sign in with a passkey");

  await reads(`Hello ${email}`);
  assert.equal((await credentials())[0].signCount, made.signCount + 1);
});

test("an authenticator makes no second passkey of the same user", async () => {
  const credentials = await authenticator();
  await signedUp();
  await press("Add a passkey");
  await page.getByText(/^Passkey /).waitFor();

  await press("Add a passkey");

  await page.getByText(/^Refused: /).waitFor();
  assert.equal((await credentials()).length, 1);
});

test("a passkey of nobody signs nobody in", async () => {
  const credentials = await authenticator();
  await signedUp();
  await press("Add a passkey");
  await page.getByText(/^Passkey /).waitFor();
  await page.evaluate(async (url) => {
    const name = Object.keys(localStorage).find((name) => name.endsWith("-auth-token"));
    const { access_token } = JSON.parse(localStorage.getItem(name));
    const headers = { authorization: `Bearer ${access_token}` };
    const [passkey] = await (await fetch(`${url}/auth/v1/passkeys`, { headers })).json();
    const { status } = await fetch(`${url}/auth/v1/passkeys/${passkey.id}`, { method: "DELETE", headers });
    if (status >= 300) throw new Error(`not removed: ${status}`);
  }, url);
  assert.equal((await credentials()).length, 1);

  await press("Sign out");
  await press("Sign in with a passkey");

  await reads("Refused: webauthn_verification_failed");
  await page.reload();
  await page.getByLabel("E-mail", { exact: true }).waitFor();
});

test("a security key is a second factor, and is asked for at the next sign-in", async () => {
  const credentials = await authenticator({ transport: "usb", hasResidentKey: false, hasUserVerification: false, isUserVerified: false });
  const email = await signedUp();
  await press("Add a security key");
  await reads("The key counts");
  assert.equal((await credentials()).length, 1);
  assert.equal((await claims()).aal, "aal2");

  await press("Sign out");
  await type(email);
  await press("Sign in");
  await reads(`Hello ${email}`);
  assert.equal((await claims()).aal, "aal1");
  await press("Prove the security key");
  await reads("The key is proved");

  const { aal, amr } = await claims();
  assert.equal(aal, "aal2");
  assert.deepEqual(amr.map(({ method }) => method), ["mfa/webauthn", "password"]);
});

/** What the access token says that this browser keeps. */
async function claims() {
  const token = await page.evaluate(() => {
    const name = Object.keys(localStorage).find((name) => name.endsWith("-auth-token"));
    return JSON.parse(localStorage.getItem(name)).access_token;
  });
  return JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
}

for (const provider of ["Google", "Apple", "GitHub"]) {
  test(`who signs in with ${provider}, simulated, is signed in here`, async () => {
    const email = address();
    await page.goto(site.url);
    await press(`Sign in with ${provider}`);
    await page.getByLabel("Who are you?").fill(email);
    await press("Continue");

    await reads(`Hello ${email}`);
    assert.equal(page.url(), `${site.url}/`);
  });
}

test("who is signed in links GitHub, simulated, and hears of it by mail", async () => {
  const email = await signedUp();
  const id = await page.getByTestId("id").textContent();
  await reads("Known by email");

  await press("Link GitHub");
  await page.getByLabel("Who are you?").fill(address());
  await press("Continue");

  await reads("Known by email, github");
  assert.equal(await page.getByTestId("id").textContent(), id);
  assert.equal((await mails(email, 2))[1].subject, "GitHub was linked to your account");
});
