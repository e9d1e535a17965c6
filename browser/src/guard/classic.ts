/** `plainsocket-guard.js`: what the loader pulls for a page that is on its guard. */

import { connect as connectByHTTP } from "../http/open.ts";
import { shareConnections } from "../http/tabs.ts";
import { streamUploads } from "../http/uploads.ts";
import { attach, carrierOf, defineMembers } from "../interface.ts";
import type { Plainsocket } from "../loader.ts";
import { Socket } from "../socket.ts";
import { connectGuarded, defineGuarded, makeGuarded } from "./guard.ts";

const { plainsocket } = globalThis as unknown as { plainsocket: Plainsocket };
const { native } = plainsocket;
const connect = native ? connectGuarded(native) : connectByHTTP;

shareConnections();
streamUploads();
plainsocket.carrierOf = (socket) => carrierOf(socket) ?? "native";
// From now on; the loader's own constructor is that of what has been made so far.
if (native) globalThis.WebSocket = makeGuarded(native);
plainsocket.adopt(
  (constructor) => (native ? defineGuarded(native, constructor) : defineMembers(constructor)),
  (target, { url, protocols }) => attach(target, new Socket(target, url, protocols, connect)),
);
