/** A link above a pipe of bytes: RFC 6455's frames, its answers to pings, its closing handshake. */

import { encodeText, readNumber } from "./data.ts";
import type { Bytes } from "./engine.ts";
import {
  BINARY,
  CLOSE,
  closePayload,
  type FrameEvents,
  frameHead,
  FrameReader,
  PING,
  PONG,
  PROTOCOL_ERROR,
  readText,
  TEXT,
} from "./frames.ts";
import type { Link, LinkEvents, Message } from "./link.ts";

const NO_CODE = 1005;
const LOST = 1006;
const CLOSE_TIMEOUT = 30_000; // ms from the close frame's leaving to the peer's

/** Bytes both ways, in order and whole; the framing's own: it is opened before. */
export interface Pipe {
  readonly carrier: string;
  /** Send a frame, which it masks where its peer wants that. It has read it when it returns. */
  write(head: Bytes, payload: Bytes): void;
  /** The page is done with it: nothing more is written, and nothing is called back. */
  end(): void;
}

export class FramedLink implements Link, FrameEvents {
  private readonly reader = new FrameReader(this);
  private written = 0; // bytes of frames
  /** Messages that the network has not taken yet: where each one's frame ends, and its payload. */
  private unsent: { end: number; size: number }[] = [];
  private closeEnd = Infinity; // where our close frame ends
  private timer: ReturnType<typeof setTimeout> | undefined;
  private ended = false;

  constructor(
    private readonly pipe: Pipe,
    private readonly events: LinkEvents,
  ) {}

  get carrier(): string {
    return this.pipe.carrier;
  }

  // -- from the page -----------------------------------------------------------------------------

  send(isText: boolean, payload: Bytes): void {
    if (this.ended) return;
    this.writeFrame(isText ? TEXT : BINARY, payload);
    this.unsent.push({ end: this.written, size: payload.length });
  }

  close(code: number | undefined, reason: string): void {
    if (this.closeEnd < Infinity || this.ended) return;
    this.writeFrame(CLOSE, closePayload(code, encodeText(reason)));
    this.closeEnd = this.written;
  }

  abort(): void {
    if (this.ended) return;
    this.ended = true;
    clearTimeout(this.timer);
    this.pipe.end();
  }

  private writeFrame(opcode: number, payload: Bytes): void {
    const head = frameHead(opcode, payload.length);
    this.written += head.length + payload.length;
    this.pipe.write(head, payload);
  }

  // -- from the pipe -----------------------------------------------------------------------------

  onData(chunk: Bytes): void {
    if (this.ended) return;
    try {
      this.reader.push(chunk);
    } catch (code) {
      this.fail(code as number);
    }
  }

  /** The network has taken so many bytes since the beginning. */
  onSent(total: number): void {
    let size = 0;
    while (this.unsent.length && this.unsent[0]!.end <= total) size += this.unsent.shift()!.size;
    if (size) this.events.onSent(size);
    if (total >= this.closeEnd && !this.ended && !this.timer) {
      this.timer = setTimeout(() => this.onEnd(false), CLOSE_TIMEOUT);
    }
  }

  /** The pipe is at its end: by the peer, or because it failed. */
  onEnd(failed: boolean): void {
    this.finish(LOST, "", failed);
  }

  // -- from the peer -----------------------------------------------------------------------------

  onMessage(message: Message): void {
    if (!this.ended) this.events.onMessage(message);
  }

  onControl(opcode: number, payload: Bytes): void {
    if (this.ended) return;
    if (opcode === CLOSE) this.onCloseFrame(payload);
    else if (opcode === PING && this.closeEnd === Infinity) this.writeFrame(PONG, payload);
  }

  private onCloseFrame(payload: Bytes): void {
    const code = payload.length ? readNumber(payload, 0, 2) : NO_CODE;
    const reason = readText(payload.subarray(2));
    if (payload.length && !isCloseCode(code)) throw PROTOCOL_ERROR;
    this.events.onClosing();
    this.close(payload.length ? code : undefined, "");
    this.finish(code, reason, false);
  }

  private fail(code: number): void {
    this.close(code, "");
    this.finish(LOST, "", true);
  }

  private finish(code: number, reason: string, failed: boolean): void {
    if (this.ended) return;
    this.abort();
    this.events.onClose(code, reason, failed);
  }
}

/** Whether a code may stand in a close frame (RFC 6455 section 7.4). */
function isCloseCode(code: number): boolean {
  return (code >= 3000 && code < 5000) || (code >= 1000 && code < 1015 && (code < 1004 || code > 1006));
}
