// aimock of npm, a model that others wrote: https://github.com/CopilotKit/aimock
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { LLMock } from "@copilotkit/aimock";
import OpenAI from "openai";
import { events, signUp } from "./person.mjs";
import { serve } from "./server.mjs";

const mock = await LLMock.create({ port: 0, chunkSize: 8 });
after(() => mock.stop());
const server = await serve({ OPENAI_API_KEY: "sk-test", OPENAI_BASE_URL: `${mock.url}/v1`, LLM_TIMEOUT: "3" });

const text = (heard) => heard.filter(({ event }) => event === "delta").map(({ data }) => data.text).join("");
const ends = (heard) => heard.filter(({ event }) => ["finish", "error"].includes(event)).map(({ data }) => data.reason ?? data.code);

/** A question of somebody new, and all that is heard of its answer. */
async function hear(message) {
  const person = await signUp(server);
  const heard = await Array.fromAsync(events(await person.ask("POST", "/api/chat", { message, stream: true })));
  return { person, heard };
}

test("its answers arrive word for word", async () => {
  const said = "Glaciers flow — slowly, like honey 🍯, und manchmal schnell.";
  mock.onMessage("glaciers", { content: said });

  const { heard } = await hear("How do glaciers flow?");

  assert.equal(text(heard), said);
  assert.deepEqual(ends(heard), ["stop"]);
  const asked = mock.getLastRequest().body;
  assert.equal(asked.model, "gpt-4o-mini");
  assert.equal(asked.stream, true);
  assert.equal(asked.stream_options.include_usage, true);
  assert.equal(asked.messages.at(-1).content, "How do glaciers flow?");
});

test("its tool calls arrive as OpenAI's SDK reads them", async () => {
  mock.onMessage("weather in Paris", { toolCalls: [{ name: "weather", arguments: JSON.stringify({ city: "Paris" }) }] });
  const person = await signUp(server);
  const openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: person.token });
  const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } } }];

  const stream = openai.chat.completions.stream({ model: "gpt-4o-mini", messages: [{ role: "user", content: "The weather in Paris?" }], tools });
  const [{ message, finish_reason }] = (await stream.finalChatCompletion()).choices;

  assert.equal(finish_reason, "tool_calls");
  assert.deepEqual(message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]), [["weather", { city: "Paris" }]]);
});

test("an error of its that passes is not heard of", async () => {
  mock.onMessage("avalanche", { content: "Snow that slides." });
  mock.nextRequestError(503, { message: "Try again.", type: "server_error", code: "unavailable" });

  const { person, heard } = await hear("What is an avalanche?");

  assert.equal(text(heard), "Snow that slides.");
  assert.equal(await person.charged(), 1);
});

for (const [how, options] of [
  ["ends too soon", { truncateAfterChunks: 3, latency: 30 }],
  ["hangs up", { disconnectAfterMs: 200, latency: 60 }],
]) {
  test(`when it ${how}, the answer is said to be cut off`, async () => {
    mock.onMessage(`a river that ${how}`, { content: "Rivers begin in the mountains and end in the sea." }, options);

    const { person, heard } = await hear(`Of a river that ${how}?`);

    assert.deepEqual(ends(heard), ["truncated"]);
    const { conversation_id } = heard[0].data;
    const [, kept] = await person.messages(conversation_id);
    assert.deepEqual([kept.status, kept.content], ["truncated", text(heard)]);
    assert.ok(text(heard).length > 0);
  });
}
