// The browser's own EventSource, with a session in cookies: nothing but an address is given to it.
import assert from "node:assert/strict";
import { after, test } from "node:test";
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

test("a connection that is cut is made again, every word is heard once, and after the last one it stays away", async () => {
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
  const { id: conversation } = await post("/api/conversations", {});
  const asked = "What is a glacier?";
  const { generation_id: id } = await post(`/api/conversations/${conversation}/messages`, { content: asked }, { prefer: "respond-async" });
  const call = await llm.asked(asked);
  const asks = [];
  page.on("response", async (answer) => {
    if (!answer.url().endsWith("/events")) return;
    const { "last-event-id": from } = await answer.request().allHeaders();
    asks.push({ from, status: answer.status() });
  });

  await page.evaluate((path) => {
    window.heard = [];
    window.source = new EventSource(path);
    for (const name of ["start", "delta", "snapshot", "finish"]) {
      source.addEventListener(name, ({ type, data, lastEventId }) => heard.push({ type, id: lastEventId, data: JSON.parse(data) }));
    }
  }, `/api/generations/${id}/events`);
  const heard = () => page.evaluate(() => heard);
  const text = async () => (await heard()).filter(({ type }) => type === "delta").map(({ data }) => data.text).join("");
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
  await context.close();
});
