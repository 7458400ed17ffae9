// A model that is silent for longer than proxies are patient, before its first word: every client hears that
// we are there, and none of them takes it for a word.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import * as react6 from "ai-react-v6";
import * as react7 from "ai-react-v7";
import * as v6 from "ai-v6";
import * as v7 from "ai-v7";
import { EventSource } from "eventsource";
import OpenAI from "openai";
import { model } from "./model.mjs";
import { signUp } from "./person.mjs";
import { serve } from "./server.mjs";

const llm = await model();
const server = await serve(llm.configuration);
const SILENCE = 12_000;
const said = "At last.";

const question = (client) => `Are you there? (${client}, ${crypto.randomUUID()})`;

const clients = {
  async "fetch, that sees the comments"(person, asked) {
    const since = Date.now();
    const answer = await person.ask("POST", "/api/chat", { message: asked, stream: true });
    assert.ok(Date.now() - since < 5000, "the head came at once");
    const beats = [];
    let text = "";
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
      if (piece.includes(": heartbeat")) beats.push(Date.now() - since);
      text += piece;
    }
    assert.ok(beats[0] <= 11_000, `after ${beats[0]} ms`);
    return [...text.matchAll(/^event: delta\ndata: (.*)$/gm)].map(([, data]) => JSON.parse(data).text).join("");
  },
  async "OpenAI's SDK"(person, asked) {
    const openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: person.token });
    const chunks = [];
    const messages = [{ role: "user", content: asked }];
    for await (const chunk of await openai.chat.completions.create({ model: "gpt-4o-mini", messages, stream: true })) chunks.push(chunk);
    assert.ok(chunks.every(({ choices }) => choices.length === 1), "no empty chunk");
    return chunks.map(({ choices }) => choices[0].delta.content ?? "").join("");
  },
  "ai 6": (person, asked) => chat(v6, react6, person, asked),
  "ai 7": (person, asked) => chat(v7, react7, person, asked),
  async EventSource(person, asked) {
    const { id: conversation } = await person.post("/api/conversations", {});
    const { generation_id: id } = await person.post(`/api/conversations/${conversation}/messages`, { content: asked }, { prefer: "respond-async" });
    const withToken = (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...person.headers } });
    const source = new EventSource(`${server.url}/api/generations/${id}/events`, { fetch: withToken });
    let text = "";
    source.addEventListener("delta", ({ data }) => (text += JSON.parse(data).text));
    await new Promise((resolve) => source.addEventListener("finish", resolve));
    source.close();
    return text;
  },
  async WebSocket(person, asked) {
    const { ticket } = await person.post("/api/chat/ws-ticket");
    const socket = new WebSocket(`${server.url.replace("http", "ws")}/api/chat/ws?ticket=${ticket}`);
    socket.addEventListener("open", () => socket.send(JSON.stringify({ type: "send", content: asked })));
    const text = await new Promise((resolve) => {
      let text = "";
      socket.addEventListener("message", ({ data }) => {
        const frame = JSON.parse(data);
        if (frame.event === "delta") text += frame.data.text;
        if (frame.event === "finish") resolve(text);
      });
    });
    socket.close();
    return text;
  },
};

async function chat({ DefaultChatTransport }, { Chat }, person, asked) {
  const transport = new DefaultChatTransport({ api: `${server.url}/api/chat`, headers: person.headers });
  const chat = new Chat({ transport });
  await chat.sendMessage({ text: asked });
  assert.equal(chat.status, "ready", String(chat.error));
  return chat.messages[1].parts.filter(({ type }) => type === "text").map(({ text }) => text).join("");
}

test("invariant 30: a long silence before the first word is borne by every client", { concurrency: true }, async (t) => {
  const listening = Object.entries(clients).map(([name, listen]) =>
    t.test(name, async () => {
      const asked = question(name);
      const heard = listen(await signUp(server), asked);
      const call = await llm.asked(asked);
      await pause(SILENCE);
      call.finish(said);
      assert.equal(await heard, said);
    }),
  );
  await Promise.all(listening);
});
