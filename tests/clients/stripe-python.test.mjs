// Stripe's SDK for Python: stripe_test.py, against the simulated Stripe of a server of its own.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { serve } from "./server.mjs";

const { world } = await serve();

test("Stripe's SDK for Python is served as by Stripe", async () => {
  const python = spawn(".venv/bin/python", ["stripe_test.py"], { env: { ...process.env, WORLD_URL: world } });
  const said = [];
  for (const stream of [python.stdout, python.stderr]) stream.on("data", (text) => said.push(text));

  const [code] = await once(python, "close");

  const text = said.join("");
  assert.equal(code, 0, text);
  assert.match(text, /Ran [1-9]\d* tests/);
});
