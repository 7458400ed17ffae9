// The AI SDK of Vercel, both versions that are in use: its chat class and its transport, without a page.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as v6 from "ai-v6";
import * as v7 from "ai-v7";
import * as react6 from "ai-react-v6";
import * as react7 from "ai-react-v7";
import { model } from "./model.mjs";
import { signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

const llm = await model();
const server = await serve(llm.configuration);

const text = ({ parts }) => parts.filter(({ type }) => type === "text").map(({ text }) => text).join("");
const texts = ({ messages }) => messages.map(text);

for (const [version, { DefaultChatTransport, readUIMessageStream }, { Chat }] of [
  [6, v6, react6],
  [7, v7, react7],
]) {
  /** A chat of somebody new, and what it came to in the end. */
  async function begin(options = {}) {
    const person = await signUp(server);
    const transport = new DefaultChatTransport({ api: `${server.url}/api/chat`, headers: person.headers });
    const ends = [];
    const errors = [];
    const open = (options) => new Chat({ transport, onFinish: (end) => ends.push(end), onError: (error) => errors.push(error), ...options });
    return { person, transport, ends, errors, open, chat: open(options) };
  }

  /** A question that nobody else asks. */
  const question = (text) => `${text} (${version}, ${crypto.randomUUID()})`;

  test(`ai ${version}: an answer comes word by word, and says why it ended`, async () => {
    const { person, chat, ends, errors } = await begin();
    const asked = question("How do I sleep better?");

    const sent = chat.sendMessage({ text: asked });
    const call = await llm.asked(asked);
    call.say("Go to ");
    await until("the first words are shown", () => chat.messages.length === 2 && text(chat.messages[1]) === "Go to ");
    assert.equal(chat.status, "streaming");
    call.finish("bed early.");
    await sent;

    assert.deepEqual(errors, []);
    assert.equal(chat.status, "ready");
    assert.deepEqual(texts(chat), [asked, "Go to bed early."]);
    assert.equal(ends[0].finishReason, "stop");
    const { metadata, id } = chat.messages[1];
    const kept = await person.messages(metadata.conversationId);
    assert.deepEqual(kept.map(({ role, content, status }) => [role, content, status]), [
      ["user", asked, "complete"],
      ["assistant", "Go to bed early.", "complete"],
    ]);
    assert.equal(kept[1].id, id);
    assert.equal(metadata.usage.completion_tokens, 5);
  });

  test(`ai ${version}: a stream is read into messages by the SDK's own reader`, async () => {
    const { transport } = await begin();
    const asked = question("Hello?");
    const message = { id: "first", role: "user", parts: [{ type: "text", text: asked }] };

    const stream = await transport.sendMessages({ chatId: crypto.randomUUID(), messages: [message], trigger: "submit-message" });
    (await llm.asked(asked)).finish("Hello to you.");
    let last;
    for await (const message of readUIMessageStream({ stream })) last = message;

    assert.equal(last.role, "assistant");
    assert.deepEqual(last.parts.map(({ type, state }) => [type, state].join(" ").trim()), ["step-start", "text done"]);
    assert.equal(text(last), "Hello to you.");
  });

  test(`ai ${version}: of a second question the model is shown the first, as it is kept here`, async () => {
    const { chat } = await begin();
    const [first, second] = [question("My name is Ada."), question("What is my name?")];
    let sent = chat.sendMessage({ text: first });
    (await llm.asked(first)).finish("Hello Ada.");
    await sent;

    sent = chat.sendMessage({ text: second });
    const call = await llm.asked(second);
    call.finish("Ada.");
    await sent;

    assert.deepEqual(call.messages.slice(1).map(({ role, content }) => [role, content]), [
      ["user", first],
      ["assistant", "Hello Ada."],
      ["user", second],
    ]);
    assert.deepEqual(texts(chat), [first, "Hello Ada.", second, "Ada."]);
  });

  test(`ai ${version}: another answer is asked for, and both are kept`, async () => {
    const { person, chat } = await begin();
    const asked = question("Heads or tails?");
    let sent = chat.sendMessage({ text: asked });
    (await llm.asked(asked)).finish("Heads.");
    await sent;
    const { conversationId } = chat.messages[1].metadata;

    sent = chat.regenerate();
    await until("the model is asked again", () => llm.count(asked) === 2);
    const call = await llm.asked(asked);
    call.finish("Tails.");
    await sent;

    assert.deepEqual(texts(chat), [asked, "Tails."]);
    assert.equal(call.messages.length, 2, "the first answer is not shown to the model");
    const kept = await person.messages(conversationId);
    assert.deepEqual(kept.map(({ content }) => content), [asked, "Heads.", "Tails."]);
    assert.deepEqual(new Set(kept.slice(1).map(({ parent_id }) => parent_id)), new Set([kept[0].id]));
    assert.equal(await person.charged(), 2);
  });

  test(`ai ${version}: a question is edited, and the old one stays on its branch`, async () => {
    const { person, chat } = await begin();
    const [asked, edited] = [question("Paris?"), question("London?")];
    let sent = chat.sendMessage({ text: asked });
    (await llm.asked(asked)).finish("In France.");
    await sent;
    const [{ id }, { metadata }] = chat.messages;

    sent = chat.sendMessage({ text: edited, messageId: id });
    const call = await llm.asked(edited);
    call.finish("In England.");
    await sent;

    assert.deepEqual(texts(chat), [edited, "In England."]);
    assert.deepEqual(call.messages.slice(1).map(({ content }) => content), [edited]);
    const kept = await person.messages(metadata.conversationId);
    assert.deepEqual(kept.map(({ content, parent_id }) => [content, parent_id]), [
      [asked, null],
      ["In France.", kept[0].id],
      [edited, null],
      ["In England.", kept[2].id],
    ]);
  });

  test(`ai ${version}: who leaves the stream loses nothing, and the answer is stopped by its own address`, async () => {
    const { person, chat } = await begin();
    const asked = question("Tell me a long story.");
    const sent = chat.sendMessage({ text: asked });
    const call = await llm.asked(asked);
    call.say("Once upon ");
    await until("the first words are shown", () => chat.messages.length === 2 && text(chat.messages[1]) === "Once upon ");
    const { conversationId } = chat.messages[1].metadata;

    // What its stop() does is to hang up: the answer goes on without it.
    await chat.stop();
    await sent;
    call.say("a time ");
    assert.equal(call.left, false);
    assert.deepEqual(await person.post(`/api/chat/${chat.id}/stop`), { stopped: true });

    const since = Date.now();
    await until("the model is told", () => call.left);
    assert.ok(Date.now() - since < 1000, "within a second");
    const kept = await until("the answer is settled", async () => {
      const [, answer] = await person.messages(conversationId);
      return answer.status !== "streaming" && answer;
    });
    assert.deepEqual([kept.status, kept.content], ["stopped", "Once upon a time "]);
    assert.deepEqual(await person.post(`/api/chat/${chat.id}/stop`), { stopped: false });
  });

  test(`ai ${version}: a chat that is opened again hears the answer from its beginning to its end`, async () => {
    const { chat, open, errors } = await begin();
    const asked = question("What is a fjord?");
    const left = chat.sendMessage({ text: asked });
    const call = await llm.asked(asked);
    call.say("A long, ");
    await until("the first words are shown", () => chat.messages.length === 2 && text(chat.messages[1]) === "A long, ");

    const again = open({ id: chat.id, messages: chat.messages.slice(0, 1) });
    const resumed = again.resumeStream();
    await until("what was said is there", () => again.messages.length === 2 && text(again.messages[1]) === "A long, ");
    call.finish("deep, narrow inlet.");
    await Promise.all([left, resumed]);

    for (const each of [chat, again]) {
      assert.deepEqual(texts(each), [asked, "A long, deep, narrow inlet."]);
      assert.equal(each.status, "ready");
    }
    assert.equal(again.messages[1].id, chat.messages[1].id);
    assert.equal(llm.count(asked), 1);
    assert.deepEqual(errors, []);
  });

  test(`ai ${version}: where no answer is being made there is nothing to resume`, async () => {
    const { person, transport, chat, open } = await begin();
    const asked = question("Hello?");
    const sent = chat.sendMessage({ text: asked });
    (await llm.asked(asked)).finish("Hello.");
    await sent;

    const again = open({ id: chat.id, messages: chat.messages });
    await again.resumeStream();

    assert.equal(await transport.reconnectToStream({ chatId: chat.id }), null);
    assert.equal((await person.ask("GET", `/api/chat/${chat.id}/stream`)).status, 204);
    assert.deepEqual(texts(again), [asked, "Hello."]);
    assert.equal(again.status, "ready");
    assert.equal(llm.count(asked), 1, "looking starts nothing");
  });

  test(`ai ${version}: an answer that is cut off is an error, with what was said still there`, async () => {
    const { person, chat, ends, errors } = await begin();
    const asked = question("Count to ten.");
    const sent = chat.sendMessage({ text: asked });
    const call = await llm.asked(asked);
    call.say("One, two, ");
    await until("the first words are shown", () => chat.messages.length === 2 && text(chat.messages[1]) === "One, two, ");
    call.breakOff();
    await sent;

    assert.equal(chat.status, "error");
    assert.equal(errors[0].message, "The answer was cut off.");
    assert.equal(ends[0].isError, true);
    assert.equal(text(chat.messages[1]), "One, two, ");
    const [, kept] = await person.messages(chat.messages[1].metadata.conversationId);
    assert.deepEqual([kept.status, kept.content], ["truncated", "One, two, "]);
  });

  test(`ai ${version}: what is refused can be read`, async () => {
    const { person, chat, errors } = await begin();

    await chat.sendMessage({ text: "x".repeat(1001) });
    assert.equal(chat.status, "error");
    const problem = JSON.parse(errors[0].message);
    assert.deepEqual([problem.status, problem.code], [400, "validation_failed"]);
    assert.match(problem.errors[0].problem, /1 to 1000 characters/);

    const stranger = new DefaultChatTransport({ api: `${server.url}/api/chat`, headers: { authorization: "Bearer none" } });
    const outside = new Chat({ transport: stranger, onError: (error) => errors.push(error) });
    await outside.sendMessage({ text: "Hello?" });
    assert.equal(JSON.parse(errors[1].message).status, 401);
    assert.equal(await person.charged(), 0);
  });
}
