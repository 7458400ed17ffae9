// Chat at two instances that share PostgreSQL, with Redis and without.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { model } from "./model.mjs";
import { at, events, signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

const { TEST_DATABASE_URL, TEST_REDIS_URL } = process.env;
const llm = await model();
const shared = { PUBLIC_URL: "http://localhost:3000", JWT_SECRET: randomBytes(32).toString("hex"), ...llm.configuration };
const question = (text) => `${text} (${crypto.randomUUID()})`;

/** What a reader has heard in the end, who had this much of it before: a snapshot says all of it anew. */
const after = (text, heard) =>
  heard.reduce((text, { event, data }) => (event === "snapshot" ? data.text : event === "delta" ? text + data.text : text), text);
const number = ({ id }) => Number(id.split(".").at(-1));
const last = (heard) => heard.at(-1);

/** Reads what comes after an event, to the end. */
const read = async (person, id, from = 0) => Array.fromAsync(events(await person.ask("GET", `/api/generations/${id}/events?after=${from}`)));

const kinds = [
  ["PostgreSQL and Redis", !(TEST_DATABASE_URL && TEST_REDIS_URL) && "TEST_DATABASE_URL and TEST_REDIS_URL name them", {}],
  ["PostgreSQL alone", !TEST_DATABASE_URL && "TEST_DATABASE_URL names it", { REDIS_URL: undefined }],
];
describe("two instances", { concurrency: true }, () => {
  for (const [kind, skip, more] of kinds) describe(`over ${kind}`, { skip, concurrency: true }, () => agree(skip ? null : pair(more)));
});

/** Two instances, and how to begin another beside them. */
async function pair(more) {
  const one = await serve({ ...shared, ...more });
  const beside = () => serve({ ...shared, ...one.kept, ...more });
  return { one, other: await beside(), beside };
}

function agree(instances) {
  /** An answer that an instance makes for somebody who is known at both. */
  async function begun(maker) {
    const { one, other } = await instances;
    const here = await signUp(maker ?? one);
    const there = at(other, here.token);
    const asked = question("What is a glacier?");
    const { id: conversation } = await here.post("/api/conversations", {});
    const sent = { prefer: "respond-async" };
    const { generation_id: id } = await here.post(`/api/conversations/${conversation}/messages`, { content: asked }, sent);
    return { here, there, asked, conversation, id, call: await llm.asked(asked) };
  }

  test("invariants 11 and 12: what one instance makes is read at the other, and goes on there after any event", async () => {
    const { here, there, conversation, id, call } = await begun();
    const early = [read(here, id), read(there, id)];
    call.say("Ice that flows ");
    await until("it is heard at the other", async () => {
      const { data } = await there.get(`/api/generations/${id}/events?wait=5`);
      return after("", data) === "Ice that flows ";
    });
    const late = [1, 2, 3].map((from) => read(there, id, from));
    call.finish("downhill, slowly.");
    const [whole, elsewhere] = await Promise.all(early);
    const resumed = await Promise.all(late);

    const text = "Ice that flows downhill, slowly.";
    assert.equal(after("", whole), text);
    const prefix = (seq) => after("", whole.filter((event) => number(event) <= seq));
    const places = [[0, elsewhere], ...resumed.map((heard, i) => [i + 1, heard])];
    for (let from = 0; from < number(last(whole)); from++) {
      places.push([from, await read(there, id, from)], [from, await read(here, id, from)]);
    }
    for (const [from, heard] of places) {
      assert.equal(after(prefix(from), heard), text, `after ${from}: ${JSON.stringify(heard)}`);
      const seqs = heard.map(number);
      assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b), "no number twice, none out of order");
      assert.deepEqual([last(heard).event, number(last(heard))], ["finish", number(last(whole))]);
    }
    const [, kept] = await there.messages(conversation);
    assert.deepEqual([kept.content, kept.status], [text, "complete"]);
    assert.equal(llm.count(call.question), 1);
  });

  test("words that were said before a pause are heard at the other while it lasts", async () => {
    const { there, id, call } = await begun();
    const reader = events(await there.ask("GET", `/api/generations/${id}/events`));
    call.say("Ice ");
    let heard = [];
    while (after("", heard) !== "Ice ") heard.push((await reader.next()).value);
    call.say("that ");
    call.say("flows ");
    const since = Date.now();
    while (after("", heard) !== "Ice that flows ") heard.push((await reader.next()).value);

    assert.ok(Date.now() - since < 3000, `${Date.now() - since} ms`);
    call.finish();
    await reader.return();
  });

  test("invariant 34: a stop at the other instance reaches the model within a second, and stays the end", async () => {
    const { here, there, conversation, id, call } = await begun();
    const heard = read(here, id);
    call.say("Ice that ");
    await until("the first words are on their way", async () => (await here.get(`/api/generations/${id}/events?after=1&wait=5`)).next === 2);

    const since = Date.now();
    assert.equal((await there.ask("POST", `/api/generations/${id}/stop`)).status, 202);
    await until("the model is told", () => call.left);
    const took = Date.now() - since;

    assert.ok(took < 1000, `${took} ms`);
    assert.equal(last(await heard).data.reason, "stopped");
    const { state } = await until("it is settled", async () => {
      const generation = await there.get(`/api/generations/${id}`);
      return generation.state !== "running" && generation;
    });
    assert.equal(state, "stopped");
    assert.equal((await there.ask("POST", `/api/generations/${id}/stop`)).status, 200);
    const [, kept] = await there.messages(conversation);
    assert.deepEqual([kept.status, kept.content], ["stopped", "Ice that "]);
    assert.equal(await there.charged(), 1);
  });

  test("invariant 5: the same key at both at once is one answer and one charge", async () => {
    const { one, other } = await instances;
    const here = await signUp(one);
    const there = at(other, here.token);
    const asked = question("Once?");
    const key = { "idempotency-key": crypto.randomUUID() };
    const answers = Array.from({ length: 6 }, (_, i) => (i % 2 ? here : there).post("/api/chat", { message: asked }, key));
    const call = await llm.asked(asked);
    call.finish("Once.");

    const told = await Promise.all(answers);

    assert.deepEqual(new Set(told.map(({ response }) => response)), new Set(["Once."]));
    assert.equal(new Set(told.map(({ messageId }) => messageId)).size, 1);
    assert.equal(llm.count(asked), 1);
    assert.equal(await there.charged(), 1);
    assert.equal((await there.get("/api/conversations")).data.length, 1);
  });

  test("invariant 13: when the instance that makes it is killed, the other says so within the lease, and keeps what was said", async () => {
    const doomed = await (await instances).beside();
    const { there, conversation, id, call, asked } = await begun(doomed);
    const heard = read(there, id);
    call.say("Ice that flows ");
    await until("it is heard at the other", async () => {
      const { data } = await there.get(`/api/generations/${id}/events?wait=5`);
      return after("", data) === "Ice that flows ";
    });
    const since = Date.now();
    await doomed.end("SIGKILL");

    const end = last(await heard);
    const seconds = (Date.now() - since) / 1000;

    assert.ok(seconds < 35, `${seconds} s`);
    assert.equal(end.event, "error");
    assert.deepEqual([end.data.code, end.data.retryable], ["interrupted", true]);
    assert.equal(after("", await heard), "Ice that flows ");
    const [, kept] = await there.messages(conversation);
    assert.deepEqual([kept.status, kept.content], ["truncated", "Ice that flows "]);
    assert.equal((await there.get(`/api/generations/${id}`)).state, "failed");
    assert.equal(llm.count(asked), 1, "nobody asks anew by themselves");

    const next = question("Go on?");
    const answer = there.post(`/api/conversations/${conversation}/messages`, { content: next });
    (await llm.asked(next)).finish("Downhill.");
    assert.equal((await answer).content, "Downhill.");
  });
}
