// A model that says what the test has it say, when it has it say it; it speaks OpenAI's protocol.
import { once } from "node:events";
import { createServer } from "node:http";
import { until } from "./server.mjs";

const piece = (delta, finish_reason = null) => ({
  id: "chatcmpl-test",
  object: "chat.completion.chunk",
  created: 0,
  model: "gpt-4o-mini",
  choices: [{ index: 0, delta, finish_reason }],
});

/** A model, the configuration that has a server ask it, and the calls it got. */
export async function model() {
  const calls = [];
  const server = createServer(async (request, response) => {
    const text = (await request.toArray()).join("");
    if (!request.url.endsWith("/chat/completions")) return response.writeHead(404).end();
    calls.push(new Call(JSON.parse(text), response));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  server.unref();
  const base = `http://127.0.0.1:${server.address().port}/v1`;
  // It says what it is told to say, and nobody tells it a title: asked for one, it would keep who asks, and us, waiting.
  const configuration = { OPENAI_API_KEY: "sk-test", OPENAI_BASE_URL: base, CHAT_TITLES: "false" };
  /** The call whose question this is, as soon as there is one; the newest of several. */
  const asked = (question) => until(`the model is asked: ${question}`, () => calls.findLast((call) => call.question === question));
  /** How often that was asked. */
  const count = (question) => calls.filter((call) => call.question === question).length;
  return { configuration, calls, asked, count };
}

class Call {
  #response;
  /** Whether who asked hung up before the end. */
  left = false;

  constructor(body, response) {
    this.#response = response;
    this.messages = body.messages;
    this.question = body.messages.findLast(({ role }) => role === "user")?.content;
    response.on("close", () => (this.left = !response.writableFinished));
    response.writeHead(200, { "content-type": "text/event-stream" });
    this.#send(piece({ role: "assistant", content: "" }));
  }

  #send(data) {
    this.#response.write(`data: ${JSON.stringify(data)}\n\n`);
  }

  /** Says these words, each as a piece of its own. */
  say(text) {
    for (const word of text.split(/(?<= )/)) this.#send(piece({ content: word }));
  }

  /** Hangs up, with nothing finished. */
  breakOff() {
    this.#response.destroy();
  }

  /** Says these words and that it is done. */
  finish(text = "") {
    if (text) this.say(text);
    this.#send(piece({}, "stop"));
    this.#send({ ...piece({}), choices: [], usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 } });
    this.#response.end("data: [DONE]\n\n");
  }
}
