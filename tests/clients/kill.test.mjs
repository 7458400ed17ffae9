// The process dies at every step of a message's life, and begins again.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { model } from "./model.mjs";
import { events, signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

const llm = await model();
const shared = { JWT_SECRET: randomBytes(32).toString("hex"), ...llm.configuration };
/** What a process that is gone was making is settled when its lease is over, and somebody looks. */
const LEASE = 75_000;

/** How far each got, and what may be kept of its answer. */
const steps = {
  "the model is asked": { go: (call) => call, kept: [["failed", ""], ["truncated", ""]] },
  "a word is heard": {
    go: async (call, heard) => {
      call.say("Half ");
      await until("it is heard", () => heard.some(({ event }) => event === "delta"));
    },
    kept: [["failed", ""], ["truncated", ""], ["truncated", "Half "]],
  },
  "a word is kept": {
    go: async (call, _, ada) => {
      call.say("Half ");
      await until("it is on disk", async () => {
        const [{ id }] = (await ada.get("/api/conversations")).data;
        return (await ada.messages(id))[1].content === "Half ";
      });
    },
    kept: [["truncated", "Half "]],
  },
  "the model is done": {
    go: (call) => call.finish("All of it."),
    kept: [["failed", ""], ...["", "All ", "All of ", "All of it."].map((said) => ["truncated", said]), ["complete", "All of it."]],
  },
  "the end is heard": {
    go: async (call, heard) => {
      call.finish("All of it.");
      await until("it is heard", () => heard.at(-1)?.event === "finish");
    },
    kept: [["complete", "All of it."]],
  },
};

describe("invariant 3: killed when", { concurrency: true }, () => {
  for (const [step, { go, kept }] of Object.entries(steps)) {
    test(step, async () => {
      const server = await serve(shared);
      const ada = await signUp(server);
      const asked = `What is a fjord? (${crypto.randomUUID()})`;
      const ask = (key) => ada.ask("POST", "/api/chat", { message: asked, stream: true }, { "idempotency-key": key });
      const heard = [];
      const answer = await ask("one");
      const reading = (async () => {
        for await (const event of events(answer)) heard.push(event);
      })().catch(() => "cut");
      await go(await llm.asked(asked), heard, ada);

      await server.end("SIGKILL");
      await reading;
      await server.begin();
      await until("it is settled", async () => !(await ada.get("/api/generations?active=1")).data.length, LEASE);

      const conversations = (await ada.get("/api/conversations")).data;
      assert.equal(conversations.length, 1);
      const [question, said, ...more] = await ada.messages(conversations[0].id);
      assert.deepEqual([question.content, more], [asked, []]);
      assert.ok(
        kept.some(([status, content]) => said.status === status && said.content === content),
        JSON.stringify([said.status, said.content]),
      );
      const used = await ada.get("/api/usage");
      assert.deepEqual([used.messages.reserved, used.tokens.reserved], [0, 0]);
      assert.equal(used.messages.used, said.content ? 1 : 0, "what came is paid for, and nothing else");
      if (heard.at(-1)?.event === "finish") assert.equal(said.status, "complete", "what was said to be over is on disk");

      // Who comes back with the key hears how it ended, and nothing is asked or paid for again.
      const complete = said.status === "complete";
      const end = (await Array.fromAsync(events(await ask("one")))).at(-1);
      const whole = end.event === "finish" && end.data.reason === "stop";
      assert.equal(whole, complete, JSON.stringify(end));
      assert.deepEqual([llm.count(asked), await ada.charged()], [1, used.messages.used]);
      // Who asks anew is answered.
      const again = ask("two");
      (await until("it is asked anew", () => llm.count(asked) === 2 && llm.asked(asked))).finish("All of it.");
      assert.equal((await Array.fromAsync(events(await again))).at(-1).event, "finish");
      assert.equal(await ada.charged(), used.messages.used + 1);
    });
  }
});
