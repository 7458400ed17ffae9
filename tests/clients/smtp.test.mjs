// Mail through an SMTP server that is not ours.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { after, test } from "node:test";
import { SMTPServer } from "smtp-server";
import { selfSigned } from "./certificate.mjs";
import { serve, until } from "./server.mjs";
import { address, code, data, device, password } from "./supabase.mjs";

/** A mail server for whom it knows, and what happened there. */
async function mailServer(options) {
  const heard = { mails: [], attempts: [] };
  const server = new SMTPServer({
    closeTimeout: 1,
    disableReverseLookup: true,
    onAuth: ({ username, password, method }, session, done) => {
      heard.attempts.push({ username, method, secure: session.secure });
      const known = username === "mailer@example.com" && password === "p@ss/word";
      done(known ? null : new Error("Invalid username or password"), { user: username });
    },
    onData: (stream, session, done) => {
      const chunks = [];
      stream.on("data", (chunk) => chunks.push(chunk));
      stream.on("end", () => {
        const { mailFrom, rcptTo } = session.envelope;
        heard.mails.push({ from: mailFrom.address, to: rcptTo.map(({ address }) => address), source: Buffer.concat(chunks).toString() });
        done();
      });
    },
    ...selfSigned(),
    ...options,
  });
  // Whoever breaks off is an error to it.
  server.on("error", () => {});
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  after(() => server.close());
  return { port: server.server.address().port, heard };
}

const credentials = `mailer%40example.com:${encodeURIComponent("p@ss/word")}`;
const settings = { AUTH_AUTOCONFIRM: "false", MAIL_FROM: "Plinth <hello@example.org>" };

/** Its headers, unfolded, and its parts, decoded. */
function read(source) {
  const [, head, body] = source.match(/^([\s\S]*?)\r\n\r\n([\s\S]*)$/);
  const headers = new Map();
  for (const line of head.replaceAll(/\r\n[ \t]+/g, " ").split("\r\n")) {
    const [, name, value] = line.match(/^([^:]+): *(.*)$/);
    assert.ok(!headers.has(name.toLowerCase()), `${name} stands there twice`);
    headers.set(name.toLowerCase(), value);
  }
  const boundary = headers.get("content-type")?.match(/boundary="?([^";]+)"?/)?.[1];
  const parts = boundary ? body.split(`--${boundary}`).slice(1, -1).map((part) => read(part.replace(/^\r\n/, ""))) : [];
  return { headers, parts, text: decoded(headers.get("content-transfer-encoding"), body) };
}

function decoded(encoding, body) {
  if (encoding === "base64") return Buffer.from(body, "base64").toString();
  if (encoding !== "quoted-printable") return body;
  const bytes = body.replaceAll(/=\r\n/g, "").replaceAll(/=([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, "latin1").toString();
}

test("a mail arrives once, from whom it says, in both parts", async () => {
  const { port, heard } = await mailServer({ allowInsecureAuth: true });
  const { url } = await serve({ ...settings, SMTP_URL: `smtp://${credentials}@127.0.0.1:${port}` });
  const { auth } = device(url);
  const email = address();

  data(await auth.signUp({ email, password }));
  await until("the mail is there", () => heard.mails.length);

  assert.ok(heard.attempts.length > 0);
  const [mail] = heard.mails;
  assert.equal(mail.from, "hello@example.org");
  assert.deepEqual(mail.to, [email]);
  const { headers, parts } = read(mail.source);
  assert.equal(headers.get("from"), "Plinth <hello@example.org>");
  assert.equal(headers.get("to"), email);
  assert.equal(headers.get("mime-version"), "1.0");
  assert.match(headers.get("message-id"), /^<[^@>]+@example\.org>$/);
  assert.equal(headers.get("auto-submitted"), "auto-generated");
  assert.ok(Math.abs(Date.parse(headers.get("date")) - Date.now()) < 60_000);
  assert.match(headers.get("content-type"), /^multipart\/alternative;/);
  const kinds = parts.map((part) => part.headers.get("content-type"));
  assert.match(kinds[0], /^text\/plain; *charset=utf-8$/i);
  assert.match(kinds[1], /^text\/html; *charset=utf-8$/i);
  const token = code(parts[0]);
  assert.ok(parts[1].text.includes(token));
  assert.ok(headers.get("subject").startsWith(token));
  assert.ok(data(await auth.verifyOtp({ email, token, type: "signup" })).session);
  assert.equal(heard.mails.length, 1);
});

test("a server whose certificate nobody vouches for gets neither the password nor a mail", async () => {
  const { port, heard } = await mailServer();
  const { url, said } = await serve({ ...settings, SMTP_URL: `smtp://${credentials}@127.0.0.1:${port}?tls=required` });

  data(await device(url).auth.signUp({ email: address(), password }));
  await until("the server is left", () => said(/(invalid peer certificate: \w+)/));

  assert.deepEqual(heard.attempts, []);
  assert.deepEqual(heard.mails, []);
});

test("invariant 3: who signs up does not wait for a mail server that says nothing", async () => {
  const mute = createServer();
  const called = new Promise((resolve) => mute.once("connection", resolve));
  await new Promise((resolve) => mute.listen(0, "127.0.0.1", resolve));
  const { url } = await serve({ ...settings, SMTP_URL: `smtp://127.0.0.1:${mute.address().port}` });
  const before = Date.now();

  data(await device(url).auth.signUp({ email: address(), password }));

  assert.ok(Date.now() - before < 5_000);
  const connection = await called;
  connection.destroy();
  mute.close();
});
