/** Our WebSocket object over the engine's own WebSocket: what the object itself adds or lacks. */

import type { Connect } from "../src/link.ts";
import { makeWebSocket } from "../src/make.ts";

const Native = globalThis.WebSocket;

const connect: Connect = (url, protocols, events) => {
  const native = new Native(url, protocols);
  let ended = false;
  native.binaryType = "arraybuffer";
  native.onopen = () => ended || events.onOpen(native.protocol);
  native.onmessage = ({ data }) => ended || events.onMessage(typeof data === "string" ? data : new Uint8Array(data));
  let failed = false;
  native.onerror = () => (failed = true);
  native.onclose = ({ code, reason }) => {
    if (!ended) events.onClose(code, reason, failed);
    ended = true;
  };
  return {
    carrier: "native",
    send(isText, payload) {
      native.send(isText ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(payload) : payload);
      setTimeout(() => events.onSent(payload.length));
    },
    close: (code, reason) => (code === undefined ? native.close() : native.close(code, reason)),
    abort() {
      ended = true;
      native.close();
    },
  };
};

export const WebSocket = makeWebSocket(connect);
