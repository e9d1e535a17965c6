/**
 * plainsocket-flash.js: the WebSocket over Flash Player. A page that names it in a script tag has
 * it; so has one that the loader gives it.
 */

import { makeWebSocket } from "../make.ts";
import { connect } from "./connect.ts";
import { loadPolicy } from "./player.ts";

/** What web-socket-js has besides; a page's options WEB_SOCKET_… are let be. */
type FlashWebSocket = typeof WebSocket & {
  loadFlashPolicyFile(url: string): void;
};

const FlashWebSocket = makeWebSocket(connect) as FlashWebSocket;
FlashWebSocket.loadFlashPolicyFile = (url) => loadPolicy(`${url}`);
window.WebSocket = FlashWebSocket;
