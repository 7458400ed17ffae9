// supabase-js as the tests use it.
import assert from "node:assert/strict";
import { createHmac, randomUUID } from "node:crypto";
import { createClient } from "@supabase/supabase-js";

export const password = "correct horse battery";

export const address = () => `${randomUUID()}@example.com`;

/** A client on a device of its own, and the paths that it asked for. */
export function device(url, { key = "anon", ...options } = {}) {
  const asked = [];
  const fetchAndNote = (input, init) => {
    asked.push(new URL(input.url ?? input).pathname);
    return fetch(input, init);
  };
  const client = createClient(url, key, {
    auth: { autoRefreshToken: false, storageKey: randomUUID(), experimental: { recoveryCodes: true }, ...options },
    global: { fetch: fetchAndNote },
  });
  return { auth: client.auth, asked };
}

/** One that does PKCE, as apps do whose links come back to them. */
export function app(url) {
  const kept = new Map();
  const storage = {
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => void kept.set(name, value),
    removeItem: (name) => void kept.delete(name),
  };
  return device(url, { flowType: "pkce", persistSession: true, detectSessionInUrl: false, storage });
}

/** Both halves of an answer: nobody reads `data` who has not looked at `error`. */
export function data(answer) {
  assert.equal(answer.error, null);
  return answer.data;
}

/** The code that a mail asks to type. */
export function code({ text }) {
  return text.match(/\b\d{6}\b/)[0];
}

/** Where a mail leads. */
export function link({ text }) {
  return new URL(text.match(/https?:\/\/\S+/)[0]);
}

/** Follows a mailed link and presses the button of its page, as a browser does; where that leads. */
export async function follow(link) {
  const page = await fetch(link);
  assert.equal(page.status, 200);
  const html = await page.text();
  const field = ([, name, value]) => [name, value.replaceAll("&amp;", "&").replaceAll("&#x2f;", "/")];
  const fields = [...html.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)">/g)].map(field);
  const [, action] = html.match(/<form method="post" action="([^"]+)">/);
  return fetch(new URL(action, link), { method: "POST", body: new URLSearchParams(fields), redirect: "manual" });
}

/** Where an answer sends the browser. */
export function landing(answer) {
  assert.equal(answer.status, 303);
  return new URL(answer.headers.get("location"));
}

/** What an authenticator app shows: RFC 6238. */
export function totp(secret, steps = 0) {
  const bits = [...secret].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => Number.parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const mac = createHmac("sha1", key).update(step).digest();
  const number = mac.readUInt32BE(mac[19] & 0xf) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, "0");
}
