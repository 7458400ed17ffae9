// Pages, bundled for a server and served at an origin of their own.
import { build } from "esbuild";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

/** An origin that serves nothing yet: servers have to know it before the page can know them. */
export async function origin() {
  const pages = new Map();
  const server = createServer((request, response) => {
    const page = pages.get(request.url.split("?")[0]);
    response.writeHead(page ? 200 : 404, { "content-type": page?.type ?? "text/plain" });
    response.end(page?.body);
  });
  await new Promise((resolve) => server.listen(0, "localhost", resolve));
  server.unref();
  return { url: `http://localhost:${server.address().port}`, pages };
}

/** Puts a page there, for this server; what it imports may have another name here. */
export async function put({ pages }, server, name = "app", alias = {}) {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(`${name}.jsx`, import.meta.url))],
    bundle: true,
    write: false,
    jsx: "automatic",
    alias,
    define: { SERVER: JSON.stringify(server), "process.env.NODE_ENV": '"production"' },
  });
  const html = '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>App</title><div id="page"></div><script src="/app.js"></script></html>';
  pages.set("/", { type: "text/html; charset=utf-8", body: html });
  pages.set("/app.js", { type: "text/javascript; charset=utf-8", body: outputFiles[0].contents });
}
