// The network between a client and a server, which a test can cut.
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** An address that leads to this server, until it is cut; who comes again gets through. */
export async function cable({ url }) {
  const { port, hostname } = new URL(url);
  const open = new Set();
  const state = { connections: 0, mute: 0, unplugged: false };
  const server = createServer((near) => {
    if (state.unplugged) return near.on("error", () => {}).destroy();
    state.connections++;
    const far = connect(port, hostname);
    const ends = [near, far];
    open.add(ends);
    // What cannot be heard was said all the same.
    const deaf = state.mute > 0 && state.mute--;
    near.pipe(far);
    if (deaf) far.once("data", () => cut(ends));
    else far.pipe(near);
    for (const end of ends) end.on("error", () => {}).on("close", () => cut(ends)).unref();
  });
  const cut = (ends) => {
    open.delete(ends);
    for (const end of ends) end.destroy();
  };
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  server.unref();
  return {
    port: server.address().port,
    url: `http://127.0.0.1:${server.address().port}`,
    state,
    /** Cuts every connection. */
    cut: () => open.forEach(cut),
    /** Cuts every connection, and lets none through until it is plugged in again. */
    unplug: () => {
      state.unplugged = true;
      open.forEach(cut);
    },
    plug: () => (state.unplugged = false),
    /** Has so many of the next connections break when their answer comes. */
    swallow: (count) => (state.mute = count),
  };
}
