/** A link over the engine's own WebSocket. */

import { decodeText } from "../data.ts";
import type { Bytes } from "../engine.ts";
import type { Connect, Link, LinkEvents } from "../link.ts";

const LOOK = 20; // ms between two looks at what the engine has not sent yet

class NativeLink implements Link {
  readonly carrier = "native";
  private readonly socket: WebSocket;
  private failed = false;
  private unsent = 0;

  constructor(
    native: typeof WebSocket,
    url: string,
    protocols: string[],
    private readonly events: LinkEvents,
  ) {
    const socket = (this.socket = new native(url, protocols));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.events.onOpen(socket.protocol);
    socket.onmessage = ({ data }) => this.events.onMessage(typeof data === "string" ? data : new Uint8Array(data as ArrayBuffer));
    socket.onerror = () => {
      this.failed = true;
    };
    socket.onclose = ({ code, reason }) => this.events.onClose(code, reason, this.failed);
  }

  send(isText: boolean, payload: Bytes): void {
    this.socket.send(isText ? decodeText(payload) : payload);
    if (!this.unsent) setTimeout(() => this.look(), LOOK);
    this.unsent += payload.length;
  }

  private look(): void {
    const { bufferedAmount } = this.socket;
    this.events.onSent(this.unsent - bufferedAmount);
    this.unsent = bufferedAmount;
    if (bufferedAmount) setTimeout(() => this.look(), LOOK);
  }

  close(code: number | undefined, reason: string): void {
    if (code === undefined) this.socket.close();
    else this.socket.close(code, reason);
  }

  abort(): void {
    const { socket } = this;
    socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
    socket.close();
  }
}

export function connectBy(native: typeof WebSocket): Connect {
  return (url, protocols, events) => new NativeLink(native, url, protocols, events);
}
