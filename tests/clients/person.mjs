// Somebody who is signed in, and what they ask of the API.
import assert from "node:assert/strict";
import { address, password } from "./supabase.mjs";
import { until } from "./server.mjs";

/** Someone new. Where several servers share what they know, they are known at all of them. */
export async function signUp({ url }) {
  const signedUp = await fetch(`${url}/auth/v1/signup`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email: address(), password }),
  });
  assert.equal(signedUp.status, 200, await signedUp.clone().text());
  return at({ url }, (await signedUp.json()).access_token);
}

/** The same person at another server. */
export function at({ url }, token) {
  const headers = { authorization: `Bearer ${token}` };
  const ask = (method, path, body, more = {}) =>
    fetch(url + path, {
      method,
      headers: { ...headers, ...(body && { "content-type": "application/json" }), ...more },
      body: body && JSON.stringify(body),
    });
  const json = async (method, path, body, more) => {
    const answer = await ask(method, path, body, more);
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
    return answer.json();
  };
  return {
    token,
    headers,
    url,
    ask,
    get: (path) => json("GET", path),
    post: (path, body, more) => json("POST", path, body, more),
    messages: async (conversation) => (await json("GET", `/api/conversations/${conversation}/messages`)).data,
    /** The answer that is being made, once there is one. */
    running: () => until("an answer is being made", async () => (await json("GET", "/api/generations?active=1")).data[0]),
    /** Messages that were paid for. */
    charged: async () => (await json("GET", "/api/usage")).messages.used,
  };
}

/** Reads server-sent events, one by one: `{id, event, data}`. Comments are left out. */
export async function* events(answer) {
  assert.match(answer.headers.get("content-type") ?? "", /^text\/event-stream/);
  let text = "";
  for await (const bytes of answer.body.pipeThrough(new TextDecoderStream())) {
    text += bytes;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.match(/^(\w*): ?(.*)$/).slice(1)));
      if (fields.data) yield { id: fields.id, event: fields.event, data: JSON.parse(fields.data) };
    }
  }
}
