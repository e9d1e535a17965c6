/** `import { WebSocket } from "plainsocket"`: in pages, in workers, and with bundlers. */

import { makeGuarded } from "./guard/guard.ts";
import { connect } from "./http/open.ts";
import { shareConnections } from "./http/tabs.ts";
import { streamUploads } from "./http/uploads.ts";
import { carrierOf as carrierOfOurs } from "./interface.ts";
import { makeWebSocket } from "./make.ts";

const native = globalThis.WebSocket as typeof globalThis.WebSocket | undefined;
const forced = /[?&]carrier=(\w+)/.exec(import.meta.url)?.[1];

shareConnections();
streamUploads();

export const HTTPWebSocket = makeWebSocket(connect);
export const GuardedWebSocket = native ? /* @__PURE__ */ makeGuarded(native) : HTTPWebSocket;
export const WebSocket =
  forced === "http" || !native ? HTTPWebSocket : forced === "guard" ? GuardedWebSocket : native;

export function carrierOf(socket: globalThis.WebSocket): string {
  return carrierOfOurs(socket) ?? "native";
}
