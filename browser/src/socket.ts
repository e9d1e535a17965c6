/** The state behind one WebSocket object, as the standard describes it, above any link. */

import { join, makeBlob, readBlob } from "./data.ts";
import { type Bytes, fireClose, fireEvent, fireMessage } from "./engine.ts";
import { queueTask } from "./tasks.ts";
import type { Connect, Link, LinkEvents, Message } from "./link.ts";

export const CONNECTING = 0;
export const OPEN = 1;
export const CLOSING = 2;
export const CLOSED = 3;

const LOST = 1006;

export class Socket implements LinkEvents {
  readyState = CONNECTING;
  bufferedAmount = 0;
  protocol = "";
  binaryType = "blob";
  private readonly origin: string;
  private readonly link: Link;
  /** What waits until a Blob before it has been read. */
  private waiting: (() => void)[] | undefined;
  private ended = false;

  constructor(
    private readonly target: EventTarget,
    readonly url: string,
    private readonly protocols: string[],
    connect: Connect,
  ) {
    this.origin = url.replace(/^(\w+:\/\/[^/?]*).*/, "$1");
    this.link = connect(url, protocols, this);
  }

  get carrier(): string {
    return this.link.carrier;
  }

  // -- from the page -----------------------------------------------------------------------------

  send(isText: boolean, payload: Bytes): void {
    this.bufferedAmount += payload.length;
    if (this.readyState !== OPEN) return;
    const bytes = this.waiting ? join([payload]) : payload; // which the page may change by then
    this.inOrder(() => this.link.send(isText, bytes));
  }

  sendBlob(blob: Blob): void {
    this.bufferedAmount += blob.size;
    if (this.readyState === OPEN) this.inOrder(() => this.readBlob(blob));
  }

  close(code: number | undefined, reason: string): void {
    if (this.readyState === OPEN) {
      this.readyState = CLOSING;
      this.inOrder(() => this.link.close(code, reason));
    } else if (this.readyState === CONNECTING) {
      this.readyState = CLOSING;
      this.fail();
    }
  }

  private inOrder(action: () => void): void {
    if (this.waiting) this.waiting.push(action);
    else action();
  }

  private readBlob(blob: Blob): void {
    const waiting = (this.waiting ??= []);
    readBlob(blob, (bytes) => {
      if (!bytes) {
        this.fail(); // its file is gone
        return;
      }
      this.link.send(false, bytes);
      this.waiting = undefined;
      // The next Blob among them makes the rest wait again.
      waiting.forEach((action) => this.inOrder(action));
    });
  }

  private fail(): void {
    this.link.abort();
    this.onClose(LOST, "", true);
  }

  // -- from the link -----------------------------------------------------------------------------

  onOpen(protocol: string): void {
    // A subprotocol that was not asked for fails the connection, and so does none where some were.
    const expected = this.protocols.length ? this.protocols.indexOf(protocol) >= 0 : !protocol;
    if (!expected) {
      this.fail();
      return;
    }
    queueTask(() => {
      if (this.readyState !== CONNECTING) return;
      this.readyState = OPEN;
      this.protocol = protocol;
      fireEvent(this.target, "open");
    });
  }

  onMessage(message: Message): void {
    queueTask(() => {
      if (this.readyState === OPEN) fireMessage(this.target, this.dataOf(message), this.origin);
    });
  }

  private dataOf(message: Message): unknown {
    if (typeof message === "string") return message;
    return this.binaryType === "blob" ? makeBlob(message) : message.buffer;
  }

  onSent(bytes: number): void {
    if (this.readyState !== CLOSED) this.bufferedAmount -= bytes;
  }

  onClosing(): void {
    queueTask(() => {
      if (this.readyState === OPEN) this.readyState = CLOSING;
    });
  }

  onClose(code: number, reason: string, failed: boolean): void {
    if (this.ended) return;
    this.ended = true;
    queueTask(() => {
      this.readyState = CLOSED;
      if (failed) fireEvent(this.target, "error");
    });
    queueTask(() => fireClose(this.target, code, reason, code !== LOST));
  }
}
