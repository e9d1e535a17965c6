/**
 * plainsocket-flash.js: the WebSocket over Flash Player, for a page that has it in a script tag, as
 * pages had web_socket.js. It takes the place of no other WebSocket, unless the page wants that.
 */

import { makeWebSocket } from "../make.ts";
import { connect } from "./connect.ts";
import { loadPolicy, script } from "./player.ts";

/** What web-socket-js has besides. Its other names, WEB_SOCKET_…, mean nothing here. */
interface Names {
  WebSocket?: { loadFlashPolicyFile?(url: string): void };
  WEB_SOCKET_FORCE_FLASH?: unknown;
}

const page = window as unknown as Names;

const isForced = page.WEB_SOCKET_FORCE_FLASH || script?.getAttribute("data-carrier") === "flash";

if (!page.WebSocket || isForced) {
  page.WebSocket = makeWebSocket(connect) as typeof WebSocket & NonNullable<Names["WebSocket"]>;
  page.WebSocket.loadFlashPolicyFile = (url) => loadPolicy(`${url}`);
} else {
  page.WebSocket.loadFlashPolicyFile ||= () => {}; // another one needs no policy
}
