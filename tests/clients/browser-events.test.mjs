// Server-sent events in a browser, with a session in cookies: its own EventSource, to which nothing but an
// address is given, and react-native-sse, which posts.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { build } from "esbuild";
import { launch } from "./browser/chromium.mjs";
import { front } from "./browser/front.mjs";
import { model } from "./model.mjs";
import { serve, until } from "./server.mjs";
import { address, password } from "./supabase.mjs";

const llm = await model();
const { server: tls, ours } = await front((url) => serve({ ...llm.configuration, PUBLIC_URL: url }));
const browser = await launch();
after(async () => {
  await browser.close();
  tls.close();
});

const question = () => `What is a glacier? (${crypto.randomUUID()})`;

/** A page of somebody new, and what it posts. */
async function open() {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  await page.goto(`${ours}/page`);
  const post = (path, body, more = {}) =>
    page.evaluate(
      async ([path, body, more]) => {
        const headers = { "content-type": "application/json", ...more };
        const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
        return answer.json();
      },
      [path, body, more],
    );
  await post("/auth/v1/signup", { email: address(), password }, { "x-session-transport": "cookie" });
  /** What is answered where an address ends so, and from where on it was asked for. */
  const asks = (end) => {
    const seen = [];
    page.on("response", async (answer) => {
      if (!answer.url().endsWith(end)) return;
      const { "last-event-id": from } = await answer.request().allHeaders();
      seen.push({ from, status: answer.status() });
    });
    return seen;
  };
  const heard = () => page.evaluate(() => heard);
  const text = async () => (await heard()).filter(({ type }) => type === "delta").map(({ data }) => data.text).join("");
  return { page, post, asks, heard, text };
}

test("a connection that is cut is made again, every word is heard once, and after the last one it stays away", async () => {
  const { page, post, asks: ask, heard, text } = await open();
  const { id: conversation } = await post("/api/conversations", {});
  const asked = question();
  const { generation_id: id } = await post(`/api/conversations/${conversation}/messages`, { content: asked }, { prefer: "respond-async" });
  const call = await llm.asked(asked);
  const asks = ask("/events");

  await page.evaluate((path) => {
    window.heard = [];
    window.source = new EventSource(path);
    for (const name of ["start", "delta", "snapshot", "finish"]) {
      source.addEventListener(name, ({ type, data, lastEventId }) => heard.push({ type, id: lastEventId, data: JSON.parse(data) }));
    }
  }, `/api/generations/${id}/events`);
  call.say("Ice that ");
  await until("the first words are heard", async () => (await text()) === "Ice that ");
  tls.closeAllConnections();
  call.say("flows downhill ");
  await until("the next words are heard", async () => (await text()) === "Ice that flows downhill ");
  call.finish("by its own weight.");
  await until("it has given up for good", () => page.evaluate(() => source.readyState === EventSource.CLOSED));

  assert.equal(await text(), "Ice that flows downhill by its own weight.");
  const all = await heard();
  assert.deepEqual(all.map(({ id: heard }) => heard), all.map((_, seq) => `${id}.${seq}`));
  assert.deepEqual([all[0].type, all.at(-1).type], ["start", "finish"]);
  assert.deepEqual(asks, [
    { from: undefined, status: 200 },
    { from: `${id}.2`, status: 200 },
    { from: `${id}.${all.length - 1}`, status: 204 },
  ]);
  await page.context().close();
});

test("invariant 10: react-native-sse posts again after every end, and hears the rest of the one answer", async () => {
  const { page, post, asks: ask, heard, text } = await open();
  const entry = { contents: 'export { default } from "react-native-sse"', resolveDir: import.meta.dirname };
  const { outputFiles } = await build({ stdin: entry, bundle: true, write: false, globalName: "reactNativeSse" });
  await page.addScriptTag({ content: outputFiles[0].text });
  const { id: conversation } = await post("/api/conversations", {});
  const asked = question();
  const asks = ask("/messages");

  await page.evaluate(
    ([path, content]) => {
      window.heard = [];
      const body = JSON.stringify({ content });
      const source = new reactNativeSse.default(path, { method: "POST", headers: { "Content-Type": "application/json" }, body, pollingInterval: 500 });
      // It comes again by itself after an end, not after a cut.
      source.addEventListener("error", () => setTimeout(() => source.open(), 500));
      for (const name of ["start", "delta", "snapshot", "finish"]) {
        source.addEventListener(name, ({ type, data, lastEventId }) => heard.push({ type, id: lastEventId, data: JSON.parse(data) }));
      }
    },
    [`/api/conversations/${conversation}/messages`, asked],
  );
  const call = await llm.asked(asked);
  call.say("Ice that ");
  await until("the first words are heard", async () => (await text()) === "Ice that ");
  tls.closeAllConnections();
  call.say("flows downhill ");
  await until("the next words are heard", async () => (await text()) === "Ice that flows downhill ");
  call.finish("by its own weight.");
  await until("it has posted twice after the end", () => asks.filter(({ status }) => status === 204).length >= 2);

  assert.equal(await text(), "Ice that flows downhill by its own weight.");
  const all = await heard();
  assert.equal(all.filter(({ type }) => type === "finish").length, 1);
  assert.deepEqual(asks.slice(0, 2).map(({ status }) => status), [200, 200]);
  assert.ok(asks.slice(2).every(({ status }) => status === 204), JSON.stringify(asks));
  assert.equal(llm.count(asked), 1);
  const usage = await page.evaluate(async () => (await fetch("/api/usage")).json());
  assert.equal(usage.messages.used, 1);
  await page.context().close();
});
