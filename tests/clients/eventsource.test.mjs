// EventSource, as npm has it for who has to send a token along.
import assert from "node:assert/strict";
import { test } from "node:test";
import { EventSource } from "eventsource";
import { cable } from "./cable.mjs";
import { model } from "./model.mjs";
import { signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

const llm = await model();
const server = await serve(llm.configuration);

/** Somebody who has asked, and listens over a cable. */
async function listening(after = "") {
  const person = await signUp(server);
  const asked = `What is a glacier? (${crypto.randomUUID()})`;
  const { id: conversation } = await person.post("/api/conversations", {});
  const { generation_id: id } = await person.post(`/api/conversations/${conversation}/messages`, { content: asked }, { prefer: "respond-async" });
  const call = await llm.asked(asked);
  const line = await cable(server);
  const asks = [];
  const source = new EventSource(`${line.url}/api/generations/${id}/events${after}`, {
    fetch: async (url, init) => {
      const headers = { ...init.headers, ...person.headers };
      const answer = await fetch(url, { ...init, headers });
      asks.push({ from: headers["Last-Event-ID"], status: answer.status });
      return answer;
    },
  });
  const heard = [];
  for (const event of ["start", "delta", "snapshot", "finish"]) {
    source.addEventListener(event, ({ type, data, lastEventId }) => heard.push({ type, id: lastEventId, data: JSON.parse(data) }));
  }
  const text = () => heard.filter(({ type }) => type === "delta").map(({ data }) => data.text).join("");
  return { person, conversation, id, call, line, asks, source, heard, text };
}

test("a connection that is cut is made again, every word is heard once, and after the last one it stays away", async () => {
  const { person, conversation, id, call, line, asks, source, heard, text } = await listening();
  call.say("Ice that ");
  await until("the first words are heard", () => text() === "Ice that ");

  line.cut();
  call.say("flows downhill ");
  await until("the next words are heard", () => text() === "Ice that flows downhill ");
  line.cut();
  call.finish("by its own weight.");
  await until("it has given up for good", () => source.readyState === EventSource.CLOSED);

  assert.equal(text(), "Ice that flows downhill by its own weight.");
  assert.deepEqual(heard.map(({ id: heard }) => heard), heard.map((_, seq) => `${id}.${seq}`));
  assert.deepEqual([heard[0].type, heard.at(-1).type], ["start", "finish"]);
  assert.deepEqual(asks, [
    { from: undefined, status: 200 },
    { from: `${id}.2`, status: 200 },
    { from: `${id}.4`, status: 200 },
    { from: `${id}.${heard.length - 1}`, status: 204 },
  ]);
  const [, kept] = await person.messages(conversation);
  assert.equal(kept.content, text());
});

test("who begins after an event of their own hears what follows it", async () => {
  const { call, source, heard, text } = await listening("?after=1");
  call.say("Ice that ");
  await until("the second word is heard", () => text() === "that ");
  call.finish("flows.");
  await until("the end is heard", () => heard.at(-1).type === "finish");
  source.close();

  assert.equal(text(), "that flows.");
  assert.ok(heard.every(({ type }) => type !== "start"));
});

test("a foreign answer is as absent as none", async () => {
  const { id, call, source } = await listening();
  const stranger = await signUp(server);
  const statuses = [];
  for (const wanted of [id, crypto.randomUUID()]) {
    const refused = new EventSource(`${server.url}/api/generations/${wanted}/events`, {
      fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...stranger.headers } }),
    });
    refused.addEventListener("error", ({ code }) => statuses.push(code));
    await until("it has given up for good", () => refused.readyState === EventSource.CLOSED);
  }

  assert.deepEqual(statuses, [404, 404]);
  call.finish("Ice.");
  source.close();
});
