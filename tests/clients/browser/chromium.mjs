// A browser that is installed on the machine; each test has a profile of its own.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const installed = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const quiet = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export async function launch() {
  const executablePath = installed.find(existsSync);
  if (!executablePath) throw new Error("no browser is installed: apt-get install chromium");
  return chromium.launch({ executablePath, args: quiet });
}
