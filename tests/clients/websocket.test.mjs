// The WebSocket that Node and browsers have, unmodified.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { model } from "./model.mjs";
import { events, signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

const llm = await model();
const server = await serve(llm.configuration);
const question = (text) => `${text} (${crypto.randomUUID()})`;

const ticket = async (person) => (await person.post("/api/chat/ws-ticket")).ticket;
const place = (ticket) => `${server.url.replace("http", "ws")}/api/chat/ws?ticket=${encodeURIComponent(ticket)}`;

const sockets = [];
after(() => sockets.forEach((socket) => socket.close()));

/** A socket of this person's, all that it hears, and how it was closed. */
async function open(person, pass) {
  const socket = new WebSocket(place(pass ?? (await ticket(person))));
  sockets.push(socket);
  const heard = [];
  const ended = new Promise((resolve) => socket.addEventListener("close", ({ code, reason }) => resolve({ code, reason })));
  socket.addEventListener("message", ({ data }) => heard.push(JSON.parse(data)));
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve);
    socket.addEventListener("error", reject);
  });
  const say = (frame) => socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  const hear = (so) => until("it is heard", () => heard.find(so));
  /** What answers a frame. */
  const answer = (frame) => {
    const ref = crypto.randomUUID();
    say({ ref, ...frame });
    return hear((frame) => frame.ref === ref);
  };
  return { socket, heard, ended, say, hear, answer };
}

const refused = (pass) => assert.rejects(open(null, pass));
const isLast = ({ event }) => ["finish", "error"].includes(event);
const told = ({ seq, event, data }) => ({ seq, event, data });

/** An answer that is being made, of which the socket has heard these words. */
async function begun(person, words) {
  const opened = await open(person);
  const asked = question("What is a glacier?");
  const start = await opened.answer({ type: "send", content: asked });
  const call = await llm.asked(asked);
  call.say(words);
  await opened.hear(({ event, data }) => event === "delta" && words.endsWith(data.text));
  return { ...opened, call, asked, id: start.generation_id, start };
}

test("a question is answered in events, from the first to the last", async () => {
  const person = await signUp(server);
  const { heard, hear, call, start, asked } = await begun(person, "Ice that ");
  call.finish("flows.");
  await hear(isLast);

  assert.deepEqual(heard.map(({ event }) => event), ["start", "delta", "delta", "delta", "finish"]);
  assert.deepEqual(heard.map(({ seq }) => seq), [0, 1, 2, 3, 4]);
  assert.ok(heard.every(({ ref, generation_id }) => ref === start.ref && generation_id === start.generation_id));
  assert.equal(heard.at(-1).data.reason, "stop");
  const kept = await person.messages(start.data.conversation_id);
  assert.deepEqual(kept.map(({ content }) => content), [asked, "Ice that flows."]);
  assert.equal(kept[1].id, heard.at(-1).data.message_id);
});

test("invariant 55: a reader of server-sent events and one of a WebSocket hear the same, under the same numbers", async () => {
  const person = await signUp(server);
  const { heard, hear, call, id } = await begun(person, "Ice that ");
  const other = await open(person);
  other.say({ type: "attach", generation_id: id });
  const streamed = Array.fromAsync(events(await person.ask("GET", `/api/generations/${id}/events`)));
  await other.hear(({ event }) => event === "start");
  call.finish("flows downhill by its own weight.");
  for (const each of [{ hear }, other]) await each.hear(isLast);

  const said = (await streamed).map(({ id, event, data }) => ({ seq: Number(id.split(".")[1]), event, data }));
  assert.deepEqual(heard.map(told), said);
  assert.deepEqual(other.heard.map(told), said);
});

test("invariant 11: who attaches after any event hears the rest, while it is made and after", async () => {
  const person = await signUp(server);
  const { heard, hear, call, id } = await begun(person, "One two three ");
  const other = await open(person);
  const attach = async (after) => {
    const ref = crypto.randomUUID();
    other.say({ type: "attach", generation_id: id, after, ref });
    return ref;
  };
  const early = [];
  for (let after = 0; after <= 3; after++) early.push(await attach(after));
  call.finish("four.");
  await hear(isLast);
  const rest = async (ref) => {
    await other.hear((frame) => frame.ref === ref && isLast(frame));
    return other.heard.filter((frame) => frame.ref === ref).map(told);
  };
  const all = heard.map(told);

  for (const [after, ref] of early.entries()) {
    assert.deepEqual(await rest(ref), all.slice(after && after + 1), `after ${after}`);
  }
  for (let after = 0; after < all.length - 1; after++) {
    assert.deepEqual(await rest(await attach(after)), all.slice(after && after + 1), `later, after ${after}`);
  }
  assert.equal(llm.calls.filter(({ question }) => question === call.question).length, 1);
});

test("an answer is stopped, and what was said stays", async () => {
  const person = await signUp(server);
  const { hear, say, call, id, start } = await begun(person, "Ice that ");

  const since = Date.now();
  say({ type: "stop", generation_id: id });
  await until("the model is told", () => call.left);

  assert.ok(Date.now() - since < 1000, "within a second");
  assert.equal((await hear(isLast)).data.reason, "stopped");
  const [, kept] = await person.messages(start.data.conversation_id);
  assert.deepEqual([kept.status, kept.content], ["stopped", "Ice that "]);
});

test("one socket hears two answers at once, and tells them apart", async () => {
  const person = await signUp(server);
  const { heard, hear, answer, call, id } = await begun(person, "Ice that ");
  const asked = question("And a fjord?");
  const second = await answer({ type: "send", content: asked });
  (await llm.asked(asked)).finish("An inlet.");
  await hear((frame) => frame.generation_id === second.generation_id && isLast(frame));
  call.finish("flows.");
  await hear((frame) => frame.generation_id === id && isLast(frame));

  const text = (of) => heard.filter(({ generation_id, event }) => generation_id === of && event === "delta").map(({ data }) => data.text).join("");
  assert.deepEqual([text(id), text(second.generation_id)], ["Ice that flows.", "An inlet."]);
});

test("a message that is sent again, from another socket, is the same message", async () => {
  const person = await signUp(server);
  const asked = question("Once?");
  const frame = { type: "send", content: asked, client_message_id: crypto.randomUUID() };
  const [one, other] = [await open(person), await open(person)];
  for (const each of [one, other, other]) each.say(frame);
  (await llm.asked(asked)).finish("Once.");
  for (const each of [one, other]) await each.hear(isLast);
  await until("both are told of it", () => other.heard.filter(isLast).length === 2);

  const ids = [...one.heard, ...other.heard].map(({ generation_id }) => generation_id);
  assert.equal(new Set(ids).size, 1);
  assert.equal(llm.count(asked), 1);
  assert.equal(await person.charged(), 1);
});

test("a ticket opens one socket, and nothing else opens one", async () => {
  const person = await signUp(server);
  const pass = await ticket(person);
  const { answer } = await open(person, pass);

  await refused(pass);
  await refused("");
  await refused(person.token);
  await refused(`${pass.slice(0, -4)}AAAA`);
  assert.equal((await person.ask("GET", `/api/chat/ws?ticket=${pass}`)).status, 401);

  assert.equal((await answer({ type: "ping" })).type, "pong");
});

test("a frame that cannot be read is answered with an error, and the socket lives on", async () => {
  const [person, other] = [await signUp(server), await signUp(server)];
  const theirs = await begun(other, "Ice that ");
  const { heard, answer, say } = await open(person);

  const errors = {
    "{": "malformed_json",
    "[]": "validation_failed",
    '"ping"': "validation_failed",
    "{}": "validation_failed",
    '{"type":"shout"}': "validation_failed",
    '{"type":"send"}': "validation_failed",
    '{"type":"send","content":"  "}': "validation_failed",
    '{"type":"send","content":"a\\u0000b","ref":1}': "validation_failed",
    [`{"type":"send","content":"${"x".repeat(1001)}"}`]: "validation_failed",
    '{"type":"send","content":"Hello?","assistant":"nobody"}': "validation_failed",
    '{"type":"send","content":"Hello?","model":"gpt-nope"}': "model_not_found",
    '{"type":"send","content":"Hello?","model":"gpt-4o"}': "model_not_in_plan",
    [`{"type":"send","content":"Hello?","conversation_id":"${theirs.start.data.conversation_id}"}`]: "not_found",
    '{"type":"attach","generation_id":"none"}': "validation_failed",
    '{"type":"attach","generation_id":"00000000-0000-7000-8000-000000000000"}': "not_found",
    [`{"type":"attach","generation_id":"${theirs.id}"}`]: "not_found",
    [`{"type":"stop","generation_id":"${theirs.id}"}`]: "not_found",
  };
  for (const [frame, code] of Object.entries(errors)) {
    const before = heard.length;
    say(frame);
    await until(`${frame} is answered`, () => heard.length > before);
    assert.deepEqual([heard[before].type, heard[before].code], ["error", code], frame);
    assert.ok(heard[before].message.length > 0);
  }
  assert.equal((await answer({ type: "stop", generation_id: theirs.id })).code, "not_found");
  assert.equal((await answer({ type: "ping" })).type, "pong");
  assert.equal(heard.length, Object.keys(errors).length + 2, "and nothing besides");
  assert.equal(await person.charged(), 0);
  assert.equal(theirs.call.left, false);

  theirs.call.finish("flows.");
  await theirs.hear(isLast);
});

test("a frame that is too large, or no text, ends the socket alone", async () => {
  const person = await signUp(server);
  const [large, binary] = [await open(person), await open(person)];

  large.say({ type: "ping", ref: "x".repeat(70 * 1024) });
  binary.socket.send(new Uint8Array([1]));

  assert.ok((await large.ended).code !== 1000);
  assert.equal((await binary.ended).code, 1003);
  const { answer } = await open(person);
  assert.equal((await answer({ type: "ping" })).type, "pong");
});

test("invariant 16: who signs out hears no more within seven seconds", async () => {
  const person = await signUp(server);
  const { ended, heard, call } = await begun(person, "Ice that ");
  const pass = await ticket(person);
  assert.equal((await person.ask("POST", "/auth/v1/logout")).status, 204);
  const since = Date.now();

  await refused(pass);
  assert.deepEqual(await ended, { code: 1008, reason: "session_ended" });

  assert.ok(Date.now() - since < 7000);
  call.finish("flows.");
  assert.ok(!heard.some(isLast));
});
