/**
 * plainsocket-flash.js: the WebSocket over Flash Player. The loader pulls it, or a page has it in a
 * script tag, as pages had web_socket.js: then it takes the place of no other WebSocket, unless the
 * page wants that.
 */

import { attach, carrierOf, defineMembers } from "../interface.ts";
import type { Plainsocket } from "../loader.ts";
import { makeWebSocket } from "../make.ts";
import { Socket } from "../socket.ts";
import { connect as ownConnect } from "./connect.ts";
import { callback, loadPolicy as ownLoadPolicy, script } from "./player.ts";

const { connect, loadPolicy } = (callback.first ||= { connect: ownConnect, loadPolicy: ownLoadPolicy });

/** What web-socket-js has besides. Its other names, WEB_SOCKET_…, mean nothing here. */
type Constructor = typeof WebSocket & { loadFlashPolicyFile?(url: string): void };

const page = window as unknown as {
  WebSocket?: Constructor;
  WEB_SOCKET_FORCE_FLASH?: unknown;
  plainsocket?: Partial<Plainsocket>;
};
const isForced = page.WEB_SOCKET_FORCE_FLASH || script?.getAttribute("data-carrier") === "flash";
const loader = page.plainsocket;

if (loader?.adopt && loader.carrierOf!({}) === "flash") {
  loader.adopt(defineMembers, (target, { url, protocols }) => {
    attach(target, new Socket(target, url, protocols, connect));
  });
  take(page.WebSocket!);
} else if (!page.WebSocket || isForced) {
  take((page.WebSocket = makeWebSocket(connect)));
} else {
  page.WebSocket.loadFlashPolicyFile ||= () => {}; // another one needs no policy
}

function take(constructor: Constructor): void {
  constructor.loadFlashPolicyFile = (url) => loadPolicy(`${url}`);
  page.plainsocket = { ...loader, carrierOf: (socket) => carrierOf(socket) ?? "native" };
}
