// In the place of src/flash/player.ts: sockets of Node's, whose bytes come in pieces of any size.

import net from "node:net";

import { fromCharacters, toCharacters } from "../../src/flash/characters.ts";

const sockets = [];
let largest = 1;

/** How large a piece is at most, from now on. */
export function chop(size) {
  largest = size;
}

export function open(host, port, _secure, events) {
  const socket = net.connect(port, host);
  socket.on("connect", () => events.onConnect());
  socket.on("data", (data) => {
    for (let at = 0; at < data.length; ) {
      const size = 1 + Math.floor(Math.random() * largest);
      events.onData(fromCharacters(toCharacters(data.subarray(at, at + size))));
      at += size;
    }
  });
  socket.on("error", () => {}); // "close" follows
  socket.on("close", () => events.onEnd());
  return sockets.push(socket) - 1;
}

/** How often something was sent. */
export let writes = 0;

export function send(id, ...chunks) {
  writes++;
  sockets[id].write(Buffer.concat(chunks.map((chunk) => Buffer.from(toCharacters(chunk), "latin1"))));
}

export function close(id) {
  sockets[id].destroy();
}
