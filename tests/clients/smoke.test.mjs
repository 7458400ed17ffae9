// `probe smoke`, as an operator runs it after a deployment: against a server that confirms addresses, with the
// mails read in a mailbox or made with a service-role key, and against one that has something wrong.
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { serve } from "./server.mjs";

const run = promisify(execFile);
const probe = join(dirname(process.env.PLINTH), "probe");
const server = await serve({ AUTH_AUTOCONFIRM: "false" });

/** Its exit code, and its steps by name. */
async function smoke(url, ...more) {
  const { code = 0, stdout } = await run(probe, ["smoke", url, "--json", ...more], { env: {} }).catch((error) => error);
  const report = JSON.parse(stdout);
  const steps = (outcome) => report.steps.filter((step) => step.outcome === outcome).map((step) => step.step);
  return { code, failed: steps("failed"), skipped: steps("skipped"), passed: steps("passed"), text: stdout };
}

/** As `plinth keys service-role` prints it beside the server. */
function serviceRoleKey() {
  const env = { ...server.kept, PUBLIC_URL: server.url };
  return execFileSync(process.env.PLINTH, ["keys", "service-role"], { cwd: server.home, env }).toString().trim();
}

const open = "GET /metrics, no token";

test("with a mailbox the whole walk is taken", async () => {
  const walk = await smoke(server.url, "--mailbox", server.world);

  assert.deepEqual([walk.code, walk.failed], [0, []], walk.text);
  assert.deepEqual(walk.skipped, [open, "POST /api/admin/test-error"]);
  for (const step of ["confirm the address", "a new password", "POST checkout", "DELETE user"])
    assert.ok(walk.passed.includes(step), step);
});

test("with a service-role key no mailbox is needed, and the key is not shown", async () => {
  const secret = serviceRoleKey();
  const walk = await smoke(server.url, "--service-key", secret);

  assert.deepEqual([walk.code, walk.failed, walk.skipped], [0, [], [open]], walk.text);
  assert.ok(!walk.text.includes(secret));
});

test("who can read no mails is told what is missing", async () => {
  const walk = await smoke(server.url, "--mailbox", "http://127.0.0.1:1");

  assert.deepEqual([walk.code, walk.failed], [0, []], walk.text);
  assert.ok(walk.skipped.includes("confirm the address"));
});

test("a secret that is not the server's fails the walk", async () => {
  const walk = await smoke(server.url, "--mailbox", server.world, "--stripe-secret", "whsec_of_somebody_else");

  assert.deepEqual([walk.code, walk.failed], [1, ["Stripe, signed subscription"]], walk.text);
});
