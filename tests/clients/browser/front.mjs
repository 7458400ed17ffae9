// What ends TLS in front of a server, and has a page of its own.
import { once } from "node:events";
import { request as ask } from "node:http";
import { createServer } from "node:https";
import { selfSigned } from "../certificate.mjs";

const blank = '<!doctype html><html lang="en"><title>A page</title>';

/** In front of the server that is begun for its address; to a browser its other address is another site. */
export async function front(begin) {
  let behind;
  const server = createServer(selfSigned(), (request, response) => {
    if (request.url === "/page") {
      response.writeHead(200, { "content-type": "text/html" });
      return response.end(blank);
    }
    const { method, url: path, headers } = request;
    const passed = ask(`${behind.url}${path}`, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    passed.on("error", () => response.destroy());
    response.on("close", () => passed.destroy());
    request.pipe(passed);
  });
  server.listen(0, "localhost");
  await once(server, "listening");
  const { port } = server.address();
  const ours = `https://localhost:${port}`;
  behind = await begin(ours);
  return { server, ours, foreign: `https://127.0.0.1:${port}` };
}
