// llmock of PyPI, a model that fails on purpose and judges whoever asks it: https://github.com/JulienRabault/LLMock
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { beforeEach, test } from "node:test";
import { events, signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

/** A port that was free a moment ago. */
async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

const port = await freePort();
const judge = spawn(".venv/bin/llmock", ["serve", "--port", String(port), "--log-level", "warning"], { stdio: "ignore" });
judge.unref();
process.on("exit", () => judge.kill());
const court = `http://127.0.0.1:${port}`;
await until("the judge sits", async () => (await fetch(`${court}/health`).catch(() => null))?.ok);

const configuration = { OPENAI_API_KEY: "sk-test", OPENAI_BASE_URL: `${court}/v1`, LLM_TIMEOUT: "3" };
let person;
beforeEach(async () => {
  // A provider that failed before is left alone for a while: each case has a server of its own.
  person = await signUp(await serve({ ...configuration, CHAT_TITLES: "false" }));
  await fetch(`${court}/_llmock/reset`, { method: "POST" });
});

/** What it says of us when it does this, and what whoever asked us has heard. */
async function tried(...behaviors) {
  const headers = { "content-type": "application/json" };
  if (behaviors.length > 0) {
    const queued = await fetch(`${court}/_llmock/scenario`, { method: "POST", headers, body: JSON.stringify({ behaviors }) });
    assert.ok(queued.ok, await queued.clone().text());
  }
  const answer = await person.ask("POST", "/api/chat", { message: "How do glaciers flow?", stream: true });
  assert.equal(answer.status, 200);
  const heard = await Array.fromAsync(events(answer));
  // It knows how a call ended a moment after it did.
  const verdict = await until("it has judged", async () => {
    const requests = await (await fetch(`${court}/_llmock/requests`)).json();
    const verdict = await (await fetch(`${court}/_llmock/verdict`)).json();
    return verdict.attempts > 0 && { ...verdict, requests };
  });
  const end = heard.at(-1);
  const text = heard.filter(({ event }) => event === "delta").map(({ data }) => data.text).join("");
  const found = verdict.findings.map(({ severity, code }) => `${severity} ${code}`);
  return { ...verdict, end, text, found, terminal: heard.filter(({ event }) => ["finish", "error"].includes(event)) };
}

for (const [name, behavior, attempts, found, end] of [
  ["nothing wrong", [], 1, [], "stop"],
  ["two refusals for the rate, with Retry-After", [{ type: "fail", status: 429, retry_after: 1, times: 2 }], 3, [], "stop"],
  ["two moments without service", [{ type: "fail", status: 503, times: 2 }], 3, [], "stop"],
  ["a request that it does not take", [{ type: "fail", status: 400, times: null }], 1, [], "llm_refused"],
  ["a key that it does not take", [{ type: "fail", status: 401, times: null }], 1, [], "llm_unavailable"],
  ["an outage", [{ type: "fail", status: 503, times: null }], 3, [], "llm_unavailable"],
  // It would have whoever hears a broken stream ask again, and cannot see what they say of it. We never ask
  // again once a client has heard words, and say of them that they were cut off.
  ["a stream that breaks off", [{ type: "stream_fault", kind: "disconnect", after_chunks: 4 }], 1, ["warning gave_up"], "truncated"],
  ["a stream that ends without a word", [{ type: "stream_fault", kind: "truncate", after_chunks: 4 }], 1, ["error truncated_stream_accepted"], "truncated"],
  ["a stream with a piece that cannot be read", [{ type: "stream_fault", kind: "malformed", after_chunks: 4 }], 1, ["warning malformed_chunk_ignored"], "truncated"],
  ["a stream that falls silent", [{ type: "stream_fault", kind: "stall", after_chunks: 4, stall_seconds: 8 }], 1, [], "llm_timeout"],
]) {
  test(`invariant 57: the judge's verdict of ${name}`, async () => {
    const said = await tried(...behavior);

    assert.equal(said.attempts, attempts, JSON.stringify(said.requests));
    assert.equal(said.terminal.length, 1);
    assert.equal(said.end.data.reason ?? said.end.data.code, end);
    assert.deepEqual(said.found, found);
  });
}
