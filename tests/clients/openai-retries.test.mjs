// OpenAI's SDK repeats what got no answer, without a word to whoever uses it: one answer, one charge.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { APIConnectionError } from "openai";
import { cable } from "./cable.mjs";
import { model } from "./model.mjs";
import { signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

const llm = await model();
const server = await serve(llm.configuration);
const question = (text) => `${text} (${crypto.randomUUID()})`;
const asking = (content) => ({ model: "gpt-4o-mini", messages: [{ role: "user", content }] });

/** A client of somebody new, at the end of a cable of its own; what it really sends. */
async function client(options = {}) {
  const [person, line] = [await signUp(server), await cable(server)];
  const sent = [];
  const note = (to, init) => {
    sent.push(new Headers(init.headers).get("x-stainless-retry-count"));
    return fetch(to, init);
  };
  return { person, line, sent, openai: new OpenAI({ baseURL: `${line.url}/v1`, apiKey: person.token, fetch: note, ...options }) };
}

test("invariant 8: an answer that was lost on its way is not asked for again, nor paid for", async () => {
  const { person, line, sent, openai } = await client();
  const asked = question("Once?");
  line.swallow(1);

  const answer = openai.chat.completions.create(asking(asked));
  (await llm.asked(asked)).finish("Once.");

  assert.equal((await answer).choices[0].message.content, "Once.");
  assert.deepEqual(sent, ["0", "1"]);
  assert.equal(llm.count(asked), 1);
  assert.equal(await person.charged(), 1);
});

test("invariant 8: a connection that dies while the answer is made is made again, and joins it", async () => {
  const { person, line, sent, openai } = await client();
  const asked = question("Once?");

  const answer = openai.chat.completions.create(asking(asked));
  const call = await llm.asked(asked);
  line.cut();
  await until("it is asked again", () => sent.length === 2 && line.state.connections === 2);
  call.finish("Once.");

  assert.equal((await answer).choices[0].message.content, "Once.");
  assert.equal(llm.count(asked), 1);
  assert.equal(await person.charged(), 1);
});

test("invariant 8: so does a stream whose first response was lost", async () => {
  const { person, line, sent, openai } = await client();
  const asked = question("Once?");
  line.swallow(1);

  const stream = openai.chat.completions.create({ ...asking(asked), stream: true });
  const call = await llm.asked(asked);
  await until("it is asked again", () => sent.length === 2);
  call.finish("Once and again.");
  let text = "";
  for await (const { choices } of await stream) text += choices[0]?.delta.content ?? "";

  assert.equal(text, "Once and again.");
  assert.equal(llm.count(asked), 1);
  assert.equal(await person.charged(), 1);
});

test("the same question, asked twice by its user, is two answers", async () => {
  const { person, openai } = await client();
  const asked = question("Twice?");

  for (const said of ["Once.", "Twice."]) {
    const before = llm.count(asked);
    const answer = openai.chat.completions.create(asking(asked));
    await until("the model is asked", () => llm.count(asked) === before + 1);
    (await llm.asked(asked)).finish(said);
    assert.equal((await answer).choices[0].message.content, said);
  }

  assert.equal(await person.charged(), 2);
});

test("who sends a key of their own gets one answer, whoever asks and how often", async () => {
  const { person, openai, line } = await client({ maxRetries: 0 });
  const asked = question("Once?");
  const options = { headers: { "Idempotency-Key": crypto.randomUUID() } };
  line.swallow(1);
  const lost = openai.chat.completions.create(asking(asked), options);
  (await llm.asked(asked)).finish("Once.");
  await assert.rejects(lost, APIConnectionError);

  const [first, second] = [await openai.chat.completions.create(asking(asked), options), await openai.chat.completions.create(asking(asked), options)];

  assert.equal(first.choices[0].message.content, "Once.");
  assert.deepEqual([second.id, second.choices], [first.id, first.choices]);
  await assert.rejects(openai.chat.completions.create(asking(question("Another?")), options), (error) => error.status === 422 && error.code === "idempotency_mismatch");
  assert.equal(llm.count(asked), 1);
  assert.equal(await person.charged(), 1);
});
