// A page made with useChat, in a real browser of a phone's size, while its server comes and goes.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { launch } from "./browser/chromium.mjs";
import { origin, put } from "./browser/page.mjs";
import { model } from "./model.mjs";
import { signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

const llm = await model();
const browser = await launch();
after(() => browser.close());

const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
const question = (text) => `${text} (${crypto.randomUUID().slice(0, 8)})`;

describe("useChat", { concurrency: true }, () => {
  for (const version of [6, 7]) {
    describe(`of ai ${version}`, { concurrency: false }, () => survives(version));
    describe(`of ai ${version}, killed`, () => survivesWithoutNotice(version));
  }
});

/** Pages of people who are new, and of one server. */
function pages(version) {
  // An answer that is not done a second after SIGTERM is cut off.
  const started = begin(version, { ...llm.configuration, SHUTDOWN_TIMEOUT: "3" });
  return async () => {
    const { site, server } = await started;
    const person = await signUp(server);
    const context = await browser.newContext(phone);
    context.setDefaultTimeout(45_000);
    await context.addInitScript((token) => localStorage.setItem("token", token), person.token);
    const page = await context.newPage();
    const broken = [];
    page.on("pageerror", (error) => broken.push(error.message));
    await page.goto(site.url);
    const ask = async (text) => {
      await page.getByLabel("Question").fill(text);
      await page.getByRole("button", { name: "Ask" }).click();
      return llm.asked(text);
    };
    const reads = (text) => page.getByText(text, { exact: true }).waitFor();
    const answers = () => page.getByLabel("assistant").locator("p").allTextContents();
    const conversation = () => new URL(page.url()).searchParams.get("chat");
    const kept = async () => (await person.messages(conversation())).map(({ role, content, status }) => [role, content, status]);
    return { page, person, server, ask, reads, answers, kept, broken };
  };
}

function survives(version) {
  const open = pages(version);

  test("words are shown as they come, and go on after the page was loaded anew", async () => {
    const { page, ask, reads, answers, kept, broken } = await open();
    const asked = question("What is a glacier?");
    const call = await ask(asked);
    call.say("Ice ");
    await reads("Ice");
    call.say("that flows ");
    await reads("Ice that flows");

    await page.reload();
    await reads("Ice that flows");
    await reads("streaming");
    call.say("downhill ");
    await reads("Ice that flows downhill");
    call.finish("by its own weight.");
    await reads("ready");

    assert.deepEqual(await answers(), ["Ice that flows downhill by its own weight."]);
    assert.deepEqual(await kept(), [
      ["user", asked, "complete"],
      ["assistant", "Ice that flows downhill by its own weight.", "complete"],
    ]);
    assert.equal(llm.count(asked), 1);
    await page.reload();
    await reads("Ice that flows downhill by its own weight.");
    await reads("ready");
    assert.equal(await page.getByRole("article").count(), 2);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), phone.viewport.width);
    assert.deepEqual(broken, []);
    await page.context().close();
  });

  test("what is stopped stays as far as it came, and is said to be stopped", async () => {
    const { page, ask, reads, answers } = await open();
    const call = await ask(question("Tell me a long story."));
    call.say("Once upon ");
    await reads("Once upon");

    await page.getByRole("button", { name: "Stop" }).click();
    await reads("ready");
    await until("the model is told", () => call.left);
    await page.reload();

    await reads("You stopped this answer.");
    assert.deepEqual(await answers(), ["Once upon "]);
    await page.context().close();
  });

  test("invariant 51: a server that is told to stop lets an answer come to its end", async () => {
    const { page, server, ask, reads, answers, broken } = await open();
    const call = await ask(question("What is a glacier?"));
    call.say("Ice that ");
    await reads("Ice that");

    const ended = server.end("SIGTERM");
    await until("it takes no new connections", () => fetch(server.url).then(() => false, () => true));
    call.finish("flows.");
    await reads("ready");
    await ended;
    assert.deepEqual(await answers(), ["Ice that flows."]);

    await server.begin();
    await page.reload();
    await reads("Ice that flows.");
    assert.equal(await page.getByText("cut off").count(), 0);
    const next = await ask(question("And a fjord?"));
    next.finish("An inlet.");
    await reads("An inlet.");
    assert.deepEqual(next.messages.slice(1).map(({ content }) => content).slice(1, 2), ["Ice that flows."]);
    assert.deepEqual(broken, []);
    await page.context().close();
  });

  test("invariant 51: an answer that a restart cuts off is said to be cut off, and the next question is answered", async () => {
    const { page, server, ask, reads, answers, kept, broken } = await open();
    const asked = question("What is a glacier?");
    const call = await ask(asked);
    call.say("Ice that flows ");
    await reads("Ice that flows");

    await server.end("SIGTERM");
    await reads("error");
    assert.equal(await page.getByRole("alert").textContent(), "The answer was cut off. Try again.");
    assert.equal(call.left, true);
    await server.begin();
    await page.reload();

    await reads("This answer was cut off.");
    await reads("ready");
    assert.deepEqual(await answers(), ["Ice that flows "]);
    assert.deepEqual(await kept(), [
      ["user", asked, "complete"],
      ["assistant", "Ice that flows ", "truncated"],
    ]);
    const next = await ask(question("Go on."));
    next.finish("Downhill.");
    await reads("Downhill.");
    assert.deepEqual(next.messages.slice(1, 3).map(({ content }) => content), [asked, "Ice that flows "]);
    assert.equal(llm.count(asked), 1);
    assert.deepEqual(broken, []);
    await page.context().close();
  });
}

function survivesWithoutNotice(version) {
  const open = pages(version);

  test("invariant 13: an answer whose server is killed is said to be cut off once the next one is sure of it, and the next question is answered", async () => {
    const { page, person, server, ask, reads, answers, kept, broken } = await open();
    const asked = question("What is a glacier?");
    const call = await ask(asked);
    call.say("Ice that flows ");
    await reads("Ice that flows");
    await until("it is kept", async () => (await kept())[1][1] === "Ice that flows ");

    await server.end("SIGKILL");
    await reads("error");
    await server.begin();
    await page.reload();
    await reads("Ice that flows");
    await page.getByRole("alert").waitFor();
    await page.reload();

    await reads("This answer was cut off.");
    assert.deepEqual(await answers(), ["Ice that flows "]);
    const next = await ask(question("Go on."));
    next.finish("Downhill.");
    await reads("Downhill.");
    await page.reload();
    await reads("Downhill.");
    assert.deepEqual((await kept()).map(([, content]) => content).filter((content) => content === "Ice that flows "), ["Ice that flows "]);
    assert.equal(llm.count(asked), 1);
    assert.equal(await person.charged(), 2);
    assert.deepEqual(broken, []);
    await page.context().close();
  });
}

async function begin(version, configuration) {
  const [site, server] = [await origin(), await serve(configuration)];
  await put(site, server.url, "chat", { ai: `ai-v${version}`, "@ai-sdk/react": `ai-react-v${version}` });
  return { site, server };
}
