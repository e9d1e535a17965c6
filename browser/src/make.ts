/** The whole WebSocket above a way to connect. */

import { makeConstructor } from "./constructor.ts";
import { attach, defineMembers } from "./interface.ts";
import type { Connect } from "./link.ts";
import { Socket } from "./socket.ts";

export function makeWebSocket(connect: Connect): typeof WebSocket {
  const Constructor = makeConstructor((target, { url, protocols }) => {
    attach(target, new Socket(target, url, protocols, connect));
  });
  defineMembers(Constructor);
  return Constructor;
}
