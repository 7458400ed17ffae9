// Servers of ours, each with its own database, world and port. They end with the test file that asked for them.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const endings = [];
process.on("exit", (code) => endings.forEach((end) => end(code)));
// Who is told to stop takes its servers along.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/** The server that runs already, or one of its own. */
export async function anyServer() {
  const url = process.env.PLINTH_URL;
  return url ? { url } : serve();
}

/** A server with this configuration: of the shell's, nothing reaches it. */
export async function serve(configuration = {}) {
  const binary = process.env.PLINTH;
  assert.ok(binary, "PLINTH names the binary, PLINTH_URL a server that runs; tests/clients/run knows");
  const home = mkdtempSync(join(tmpdir(), "clients-"));
  const { kept, forget } = "DATABASE_URL" in configuration ? { kept: {}, forget() {} } : storage(home);
  const env = { HOST: "127.0.0.1", PORT: "0", RATE_LIMITS: "off", LOG_FORMAT: "json", ...kept, ...configuration };
  const logs = [];
  let server;
  endings.push((code) => {
    server.kill("SIGKILL");
    if (code !== 0) process.stderr.write(logs.map((log) => troubles(readFileSync(log, "utf8"))).join(""));
    forget();
    rmSync(home, { recursive: true, force: true });
  });
  const said = (pattern) => readFileSync(logs.at(-1), "utf8").match(pattern)?.[1];
  const port = () => said(/"Plinth serves".*"port":(\d+)/);

  const begin = async () => {
    logs.push(join(home, `log-${logs.length}`));
    const output = openSync(logs.at(-1), "a");
    server = spawn(binary, { cwd: home, env, stdio: ["ignore", output, output] });
    closeSync(output);
    server.unref();
    await until("the server is ready", async () => {
      assert.equal(server.exitCode, null, `the server ended:\n${readFileSync(logs.at(-1))}`);
      return port() && (await fetch(`http://127.0.0.1:${port()}/health/ready`).catch(() => null))?.ok;
    });
  };
  await begin();
  env.PORT = port();
  const world = said(/Simulated world +(http:\S+?)\/?\n/);
  /** Ends the process: SIGTERM lets it drain, SIGKILL is a crash. */
  const end = async (signal) => {
    const ended = once(server, "exit");
    server.ref();
    server.kill(signal);
    await ended;
  };
  return { url: `http://127.0.0.1:${env.PORT}`, home, world, mails: mailbox(world), said, kept, end, begin };
}

/** What a log says beside what is usual. */
function troubles(log) {
  const lines = log.split("\n").filter((line) => line.startsWith("{") && !line.includes('"level":"INFO"'));
  return lines.map((line) => `${line}\n`).join("");
}

/** Where it keeps what it knows, and how that is forgotten. */
function storage(home) {
  mkdirSync(join(home, "data"));
  const { TEST_DATABASE_URL: postgres, TEST_REDIS_URL: redis } = process.env;
  const shared = redis ? { REDIS_URL: redis } : {};
  if (!postgres) return { kept: shared, forget() {} };
  const name = `clients_${randomBytes(8).toString("hex")}`;
  const run = (sql) => execFileSync("psql", [postgres, "--quiet", "--command", sql]);
  run(`create database ${name}`);
  const url = new URL(postgres);
  url.pathname = name;
  return { kept: { ...shared, DATABASE_URL: url.href }, forget: () => run(`drop database ${name} with (force)`) };
}

/** What was mailed to an address, oldest first, once it is so many. */
const mailbox = (world) => async (address, count = 1) =>
  until(`mail number ${count} to ${address}`, async () => {
    const answer = await fetch(`${world}/mailbox/messages?to=${encodeURIComponent(address)}`);
    const { messages } = await answer.json();
    return messages.length >= count && messages.reverse();
  });

/** What comes true in other processes, as soon as it does. */
export async function until(what, holds, patience = 20_000) {
  const end = Date.now() + patience;
  while (Date.now() < end) {
    const held = await holds();
    if (held) return held;
    await pause(25);
  }
  assert.fail(`never came true: ${what}`);
}
