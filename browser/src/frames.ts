/** RFC 6455's frames, in a client's role: bytes in, messages and control frames out; and back. */

import { decodeText, join } from "./data.ts";
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

/** The head of an unfragmented frame; with a mask of four bytes where one is given. */
export function frameHead(opcode: number, size: number, mask?: Bytes): Bytes {
  const wide = size > 0xffff ? 8 : size > 125 ? 2 : 0;
  const head = new Uint8Array(2 + wide + (mask ? 4 : 0));
  head[0] = FINAL | opcode;
  head[1] = (wide === 8 ? 127 : wide ? 126 : size) | (mask ? 0x80 : 0);
  for (let i = 0, rest = size; i < wide; i++, rest = Math.floor(rest / 256)) head[1 + wide - i] = rest;
  if (mask) head.set(mask, 2 + wide);
  return head;
}

/** The payload of a close frame. */
export function closePayload(code: number | undefined, reason: Bytes): Bytes {
  return code === undefined ? new Uint8Array(0) : join([new Uint8Array([code >> 8, code]), reason]);
}

export interface FrameEvents {
  onMessage(message: Message): void;
  onControl(opcode: number, payload: Bytes): void;
}

/** Reads what a server sends. */
export class FrameReader {
  /** Why the connection must fail, once it must; what comes after is not read. */
  error = 0;
  private head: number[] = []; // as far as it came
  private needed = 2; // bytes of it
  private opcode = -1; // of the frame whose payload is being read; -1: a head is being read
  private final = false;
  private parts: Bytes[] = []; // of a control frame's payload, as far as it came
  private missing = 0; // bytes of it
  private kind = 0; // TEXT or BINARY while a fragmented message is unfinished
  private fragments: Bytes[] = []; // of a message

  constructor(private readonly events: FrameEvents) {}

  push(chunk: Bytes): void {
    for (let at = 0; (at < chunk.length || !this.missing) && !this.error; ) {
      if (this.opcode < 0) {
        if (at === chunk.length) return;
        this.head.push(chunk[at++]!);
        if (this.head.length === this.needed) this.readHead();
      } else {
        const part = chunk.subarray(at, at + this.missing);
        at += part.length;
        this.missing -= part.length;
        if (part.length) (this.opcode < CLOSE ? this.fragments : this.parts).push(part);
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
      this.error = PROTOCOL_ERROR;
      return;
    }
    if (this.head.length < this.needed) return;
    let size = this.needed === 2 ? short : 0;
    for (let i = 2; i < this.needed; i++) size = size * 256 + this.head[i]!;
    if (size >= 2 ** 53 || (this.needed > 2 && size < (this.needed === 4 ? 126 : 65536))) {
      this.error = PROTOCOL_ERROR;
      return;
    }
    this.opcode = opcode;
    this.final = final;
    this.missing = size;
    this.head = [];
    this.needed = 2;
  }

  private endFrame(): void {
    const { opcode } = this;
    this.opcode = -1;
    if (opcode >= CLOSE) {
      const payload = join(this.parts);
      this.parts = [];
      this.events.onControl(opcode, payload);
      return;
    }
    const kind = this.kind || opcode;
    this.kind = this.final ? 0 : kind;
    if (!this.final) return;
    const payload = join(this.fragments);
    this.fragments = [];
    let message: Message = payload;
    if (kind === TEXT) {
      try {
        message = decodeText(payload);
      } catch {
        this.error = INVALID_DATA;
        return;
      }
    }
    this.events.onMessage(message);
  }
}
