// Chat while what is behind the server is away for a moment.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { cable } from "./cable.mjs";
import { model } from "./model.mjs";
import { events, signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

const { TEST_DATABASE_URL, TEST_REDIS_URL } = process.env;
const llm = await model();
const shared = { JWT_SECRET: randomBytes(32).toString("hex"), ...llm.configuration };
const question = (text) => `${text} (${crypto.randomUUID()})`;

/** A server, and the cable to what this variable names. */
async function wired(variable) {
  const { kept } = await serve(shared);
  const wire = await cable({ url: kept[variable] });
  const url = new URL(kept[variable]);
  url.port = wire.port;
  const server = await serve({ ...shared, ...kept, [variable]: url.href });
  return { wire, server };
}

describe("an outage", { concurrency: true }, () => {
  test(
    "invariant 52: of the database does not break the answer that a client hears, and it is settled once",
    { skip: !TEST_DATABASE_URL && "TEST_DATABASE_URL names it" },
    async (t) => {
      const { wire, server } = await wired("DATABASE_URL");
      t.after(() => wire.plug());
      const ada = await signUp(server);
      const asked = question("What is a delta?");
      const heard = [];
      const answer = await ada.ask("POST", "/api/chat", { message: asked, stream: true });
      const reading = (async () => {
        for await (const event of events(answer)) heard.push(event);
      })();
      const text = () => heard.filter(({ event }) => event === "delta").map(({ data }) => data.text).join("");
      const call = await llm.asked(asked);
      call.say("Where a river ");
      await until("it is heard", () => text() === "Where a river ");

      wire.unplug();
      call.say("meets ");
      await until("what is said meanwhile is heard", () => text() === "Where a river meets ");
      call.finish("the sea.");
      await until("all of it is heard", () => text() === "Where a river meets the sea.");
      assert.equal(heard.at(-1).event, "delta", "nothing is said to be over that is not on disk");
      const refused = await ada.ask("POST", "/api/chat", { message: question("And now?") });
      assert.equal(refused.status, 503, await refused.text());
      wire.plug();

      await reading;
      assert.equal(heard.filter(({ event }) => event !== "delta").map(({ event }) => event).at(-1), "finish");
      const [{ id }] = (await ada.get("/api/conversations")).data;
      const [, kept] = await ada.messages(id);
      assert.deepEqual([kept.content, kept.status], ["Where a river meets the sea.", "complete"]);
      assert.deepEqual([await ada.charged(), llm.count(asked)], [1, 1]);
      assert.equal((await ada.get("/api/generations")).data.length, 1, "what was refused left nothing");
    },
  );

  test(
    "invariant 53: of Redis keeps nobody from asking",
    { skip: !(TEST_DATABASE_URL && TEST_REDIS_URL) && "TEST_DATABASE_URL and TEST_REDIS_URL name them" },
    async (t) => {
      const { wire, server } = await wired("REDIS_URL");
      t.after(() => wire.plug());
      const ada = await signUp(server);
      const ask = async (words) => {
        const asked = question(words);
        const answering = ada.post("/api/chat", { message: asked });
        (await llm.asked(asked)).finish("Yes.");
        return (await answering).response;
      };
      assert.equal(await ask("Is it there?"), "Yes.");

      wire.unplug();
      assert.equal(await ask("Is it away?"), "Yes.");
      wire.plug();

      assert.equal(await ask("Is it back?"), "Yes.");
      assert.equal(await ada.charged(), 3);
    },
  );
});
