/** `plainsocket-http.js`: what the loader pulls. */

import { attach, carrierOf, defineMembers } from "../interface.ts";
import type { Plainsocket } from "../loader.ts";
import { Socket } from "../socket.ts";
import { connect } from "./open.ts";
import { shareConnections } from "./tabs.ts";
import { streamUploads } from "./uploads.ts";

const { plainsocket } = globalThis as unknown as { plainsocket: Plainsocket };

shareConnections();
streamUploads();
plainsocket.carrierOf = (socket) => carrierOf(socket) ?? "native";
plainsocket.adopt(defineMembers, (target, { url, protocols }) => {
  attach(target, new Socket(target, url, protocols, connect));
});
