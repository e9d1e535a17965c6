/** RFC 6455's frames, in a client's role: bytes in, messages and control frames out; and back. */

import { decodeText, join, number, readNumber } from "./data.ts";
import type { Bytes } from "./engine.ts";
import type { Message } from "./link.ts";

export const TEXT = 1;
export const BINARY = 2;
export const CLOSE = 8;
export const PING = 9;
export const PONG = 10;

export const PROTOCOL_ERROR = 1002;
export const INVALID_DATA = 1007;

const FINAL = 0x80;
const LARGEST_PART = 1 << 22; // bytes: before that many have come, no more memory is taken

/** The head of an unfragmented frame that is not masked. */
export function frameHead(opcode: number, size: number): Bytes {
  const wide = size > 0xffff ? 8 : size > 125 ? 2 : 0;
  const head = new Uint8Array(2 + wide);
  head[0] = FINAL | opcode;
  head[1] = wide === 8 ? 127 : wide ? 126 : size;
  if (wide) head.set(number(size, wide), 2);
  return head;
}

/** The payload of a close frame. */
export function closePayload(code: number | undefined, reason: Bytes): Bytes {
  return code === undefined ? new Uint8Array(0) : join([new Uint8Array([code >> 8, code]), reason]);
}

/** Throws INVALID_DATA where the bytes are no UTF-8. */
export function readText(bytes: Bytes): string {
  try {
    return decodeText(bytes);
  } catch {
    throw INVALID_DATA;
  }
}

/** What they throw is the code that the connection must fail with. */
export interface FrameEvents {
  onMessage(message: Message): void;
  onControl(opcode: number, payload: Bytes): void;
}

/** Reads what a server sends. */
export class FrameReader {
  private head: number[] = []; // as far as it came
  private needed = 2; // bytes of it
  private opcode = 0; // of the frame whose payload is being read
  private final = false;
  private parts: Bytes[] = []; // of a control frame's payload
  private missing = 0; // bytes of it; 0: a head is being read
  private last: Bytes = new Uint8Array(0); // part or fragment,
  private filled = 0; // which has so many bytes
  private kind = 0; // TEXT or BINARY while a fragmented message is unfinished
  private fragments: Bytes[] = []; // of a message

  constructor(private readonly events: FrameEvents) {}

  /** Throws the code that the connection must fail with, if it must. */
  push(chunk: Bytes): void {
    for (let at = 0; at < chunk.length; ) {
      if (!this.missing) {
        this.head.push(chunk[at++]!);
        if (this.head.length === this.needed) this.readHead();
      } else {
        if (this.filled === this.last.length) {
          // All of a message that is not very long: putting it together later costs more.
          this.last = new Uint8Array(Math.min(this.missing, LARGEST_PART));
          this.filled = 0;
          (this.opcode < CLOSE ? this.fragments : this.parts).push(this.last);
        }
        const part = chunk.subarray(at, at + this.last.length - this.filled);
        this.last.set(part, this.filled);
        this.filled += part.length;
        at += part.length;
        this.missing -= part.length;
        if (!this.missing) this.endFrame();
      }
    }
  }

  private readHead(): void {
    const first = this.head[0]!;
    const short = this.head[1]!;
    this.needed = short === 127 ? 10 : short === 126 ? 4 : 2;
    const opcode = first & 15;
    const final = first >= FINAL;
    const isControl = opcode >= CLOSE;
    if (
      first & 0x70 || // no extension has been agreed on
      short & 0x80 || // a server masks nothing
      (isControl ? opcode > PONG || !final || short > 125 : opcode > BINARY) ||
      (!isControl && (opcode === 0) !== this.kind > 0)
    ) {
      throw PROTOCOL_ERROR;
    }
    if (this.head.length < this.needed) return;
    const size = this.needed > 2 ? readNumber(this.head, 2, this.needed - 2) : short;
    if (size >= 2 ** 53 || (this.needed > 2 && size < (this.needed === 4 ? 126 : 65536))) {
      throw PROTOCOL_ERROR;
    }
    this.opcode = opcode;
    this.final = final;
    this.missing = size;
    this.head = [];
    this.needed = 2;
    if (!size) this.endFrame();
  }

  private endFrame(): void {
    const { opcode } = this;
    if (opcode >= CLOSE) {
      const payload = join(this.parts);
      this.parts = [];
      this.events.onControl(opcode, payload);
      return;
    }
    const kind = this.kind || opcode;
    this.kind = this.final ? 0 : kind;
    if (!this.final) return;
    const { fragments } = this;
    const payload = fragments.length === 1 ? fragments[0]! : join(fragments);
    this.fragments = [];
    this.events.onMessage(kind === TEXT ? readText(payload) : payload);
  }
}
