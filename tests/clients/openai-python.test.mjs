// OpenAI's SDK for Python: openai_test.py, against a server of its own.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { anyServer } from "./server.mjs";

const { url } = await anyServer();

test("OpenAI's SDK for Python chats as it does with OpenAI", async () => {
  const env = { ...process.env, PLINTH_URL: url };
  const python = spawn(".venv/bin/python", ["openai_test.py"], { env });
  const said = [];
  for (const stream of [python.stdout, python.stderr]) stream.on("data", (text) => said.push(text));

  const [code] = await once(python, "close");

  const text = said.join("");
  assert.equal(code, 0, text);
  assert.match(text, /Ran [1-9]\d* tests/);
});
