// Backups to a server of S3 that checks signatures, and what the command line does when it cannot.
import assert from "node:assert/strict";
import { execFile, execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, describe, test } from "node:test";
import { at, signUp } from "./person.mjs";
import { serve, until } from "./server.mjs";

const { PLINTH, TEST_DATABASE_URL } = process.env;
const home = mkdtempSync(join(tmpdir(), "backups-"));
const bucket = join(home, "s3", "bucket");
mkdirSync(bucket, { recursive: true });
const endings = [];
after(() => {
  endings.forEach((end) => end());
  rmSync(home, { recursive: true, force: true });
});

/** The command line, with this environment and nothing of the shell's but the way to programs. */
const plinth = (env, ...args) =>
  new Promise((done) =>
    execFile(PLINTH, args, { env: { PATH: process.env.PATH, ...env }, cwd: home, timeout: 100_000 }, (error, out, err) =>
      done({ code: error ? error.code : 0, out, err }),
    ),
  );

async function done(env, ...args) {
  const { code, out, err } = await plinth(env, ...args);
  assert.equal(code, 0, `${args.join(" ")}: ${out}${err}`);
  return out.trim().split("\n").map((line) => JSON.parse(line));
}

const freePort = () =>
  new Promise((found) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });

const rclone = join(import.meta.dirname, ".venv/bin/rclone");
const port = await freePort();
const s3 = spawn(rclone, ["serve", "s3", "--addr", `127.0.0.1:${port}`, "--auth-key", "keyid,hidden-half", join(home, "s3")], {
  stdio: "ignore",
  env: { HOME: home, PATH: process.env.PATH },
});
endings.push(() => s3.kill("SIGKILL"));
await until("rclone answers", () => fetch(`http://127.0.0.1:${port}/`).then(() => true, () => false));
const keys = {
  AWS_ACCESS_KEY_ID: "keyid",
  AWS_SECRET_ACCESS_KEY: "hidden-half",
  AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${port}`,
  BACKUP_URL: "s3://bucket/production/here",
};

/** Where a database of this test's engine is, with nothing in it yet. */
let made = 0;
function database() {
  made += 1;
  if (!TEST_DATABASE_URL) return `sqlite://${join(home, `${made}`, "plinth.db")}`;
  const name = `clients_backup_${process.pid}_${made}`;
  sql(TEST_DATABASE_URL, `create database ${name}`);
  endings.push(() => sql(TEST_DATABASE_URL, `drop database ${name} with (force)`));
  const url = new URL(TEST_DATABASE_URL);
  url.pathname = name;
  return url.href;
}

const sql = (url, text) => execFileSync("psql", [url, "--quiet", "--command", text]);

/** So many megabytes that hardly pack: half of it stays. */
function fill(url, megabytes) {
  const row = (id, at, noise) =>
    `insert into jobs (id, kind, payload, due_at, attempts, created_at, done_at, error) values (${id}, 'noise', 'null', ${at}, 1, ${at}, ${at}, ${noise})`;
  if (TEST_DATABASE_URL) {
    const noise = `(select string_agg(md5(random()::text), '') from generate_series(1, ${megabytes} * 31250))`;
    return sql(url, row("gen_random_uuid()", "now()", noise));
  }
  const db = new DatabaseSync(url.slice("sqlite://".length));
  // The server writes at any moment.
  db.exec("pragma busy_timeout = 20000");
  db.exec(row("randomblob(16)", Date.now() * 1000, `hex(randomblob(${megabytes} * 500000))`));
  db.close();
}

const backups = (folder) => readdirSync(folder, { recursive: true }).filter((name) => /plinth-.*(gz|dump)$/.test(name));

// Tokens are of one issuer, whichever port serves what was restored.
const PUBLIC_URL = "http://127.0.0.1:8080";

/** A server on a database of its own that someone has used; its secret is kept apart from its backups. */
async function lived(more = {}) {
  const env = { DATABASE_URL: database(), JWT_SECRET: randomBytes(32).toString("hex"), PUBLIC_URL, ...more };
  const server = await serve(env);
  const ada = await signUp(server);
  await ada.post("/api/chat", { message: "What is a delta?" });
  return { env, server, ada };
}

const said = async (person) => {
  const [{ id }] = (await person.get("/api/conversations")).data;
  return (await person.messages(id)).map(({ content }) => content);
};

describe("a backup", { concurrency: false }, () => {
  test("goes to S3 by itself, and what is restored from there serves who was there", async () => {
    const { env, server, ada } = await lived({ ...keys, BACKUP_URL: "s3://bucket/by/itself" });
    const first = join(bucket, "by/itself");
    await until("the job made one", () => existsSync(first) && backups(first).length === 1);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    assert.match(metrics, /^backup_last_success_timestamp_seconds \d{10}/m);
    const before = await said(ada);
    // More than one part of an upload holds.
    fill(env.DATABASE_URL, 36);
    const [made] = await done({ ...env, BACKUP_URL: "s3://bucket/production/here" }, "backup", "--json");
    assert.ok(made.bytes > 17 << 20, `${made.bytes} bytes go in parts`);
    await server.end("SIGKILL");

    const url = database();
    const target = { ...env, DATABASE_URL: url, BACKUP_URL: "" };
    const from = `${made.at}/${made.name}`;
    const [restored] = await done(target, "restore", from, "--json");
    assert.deepEqual([restored.sum_compared, restored.pending_migrations, restored.set_aside], [true, 0, null]);
    const again = await serve(target);
    const back = at(again, ada.token);
    assert.deepEqual(await said(back), before);
    await back.post("/api/chat", { message: "And an estuary?" });
    await again.end("SIGTERM");

    // The same once more, into what now has people in it: refused, then set aside.
    const refused = await plinth(target, "restore", from);
    assert.equal(refused.code, 1);
    assert.match(refused.err, /of them users\. With --force it is set aside, not deleted/);
    const [forced] = await done(target, "restore", from, "--force", "--json");
    assert.match(forced.set_aside, /before/);
  });

  test("of SQLite is not put under a server that runs", { skip: TEST_DATABASE_URL && "PostgreSQL is told by --force" }, async () => {
    const { env, server } = await lived();
    const [made] = await done(env, "backup", "--to", join(home, "live"), "--json");
    const refused = await plinth(env, "restore", join(home, "live", made.name), "--force");
    assert.equal(refused.code, 1);
    assert.match(refused.err, /is in use: stop what serves it/);
    assert.equal((await fetch(`${server.url}/health`)).status, 200);
  });

  test("that cannot be made says why, and leaves nothing that looks like one", async () => {
    const { env } = await lived();
    const place = join(home, "full");
    const refusals = [
      [{ ...keys, AWS_SECRET_ACCESS_KEY: "another" }, ["--to", "s3://bucket/none"], /403 Forbidden \(\w+\)\. Check AWS_ACCESS_KEY_ID/],
      [{ ...keys, AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${await freePort()}` }, ["--to", "s3://bucket/none"], /s3:\/\/bucket at 127\.0\.0\.1 cannot be reached/],
      [keys, ["--to", "s3://nobodys/none"], /s3:\/\/nobodys at 127\.0\.0\.1 answered 404/],
      [{}, ["--to", "/proc/none"], /cannot write into \/proc\/none/],
      [{ DATABASE_URL: TEST_DATABASE_URL ? "postgres://nobody@127.0.0.1:9/none" : `sqlite://${home}/none.db` }, ["--to", place], TEST_DATABASE_URL ? /cannot use postgres:\/\/127\.0\.0\.1:9\/none/ : /there is no database at/],
      [{ PATH: "/nowhere" }, ["--to", place], TEST_DATABASE_URL ? /pg_dump is not here: install postgresql-client/ : null],
    ];
    for (const [more, args, expected] of refusals.filter(([, , expected]) => expected)) {
      const { code, err } = await plinth({ ...env, ...more }, "backup", ...args);
      assert.equal(code, 1, err);
      assert.match(err, expected);
      assert.doesNotMatch(err, /hidden-half|another/);
    }
    fill(env.DATABASE_URL, 12);
    const full = spawnSync("sh", ["-c", `trap '' XFSZ; ulimit -f 4096; exec "$0" backup --to "$1"`, PLINTH, place], {
      env: { PATH: process.env.PATH, ...env },
      encoding: "utf8",
    });
    assert.equal(full.status, 1, full.stderr);
    assert.match(full.stderr, /File too large|disk is full|disk I\/O error/);
    assert.deepEqual(existsSync(place) ? readdirSync(place) : [], []);

    const cut = spawn(PLINTH, ["backup", "--to", place], { env: { PATH: process.env.PATH, ...env }, stdio: "ignore" });
    await until("it writes", () => existsSync(place) && readdirSync(place).some((name) => name.endsWith(".part")));
    cut.kill("SIGKILL");
    await once(cut, "exit");
    assert.deepEqual(backups(place).filter((name) => !name.startsWith(".")), []);
    const [made] = await done(env, "backup", "--to", place, "--json");
    assert.deepEqual(backups(place), [made.name]);
  });

  test("that was changed in the bucket is refused", async () => {
    const { env } = await lived(keys);
    const [made] = await done(env, "backup", "--json");
    const file = join(bucket, "production/here", made.name);
    const bytes = readFileSync(file);
    bytes[bytes.length >> 1] ^= 1;
    writeFileSync(file, bytes);
    const { code, err } = await plinth({ ...env, DATABASE_URL: database() }, "restore", `${made.at}/${made.name}`);
    assert.equal(code, 1);
    assert.match(err, /is damaged: its SHA-256 is/);
  });

  test("of a small database goes over to PostgreSQL", { skip: !TEST_DATABASE_URL && "TEST_DATABASE_URL names it" }, async () => {
    const env = { DATABASE_URL: `sqlite://${join(home, "small.db")}`, JWT_SECRET: randomBytes(32).toString("hex"), PUBLIC_URL };
    const small = await serve(env);
    const ada = await signUp(small);
    await ada.post("/api/chat", { message: "What is a delta?" });
    const before = await said(ada);
    await small.end("SIGTERM");

    const url = database();
    const tables = await done({}, "db", "copy", "--from", env.DATABASE_URL, "--to", url, "--json");
    assert.equal(tables.find(({ table }) => table === "users").rows, 1);
    const large = await serve({ ...env, DATABASE_URL: url });
    assert.deepEqual(await said(at(large, ada.token)), before);
    const again = await plinth({}, "db", "copy", "--from", env.DATABASE_URL, "--to", url);
    assert.equal(again.code, 1);
    assert.match(again.err, /the target has rows already/);
  });
});
