/** The bytes of requests and records: docs/http-carrier.md in numbers. */

import { join, number, readNumber } from "../data.ts";
import type { Bytes } from "../engine.ts";

export const OPEN = 1;
export const UP = 2;
export const DOWN = 3;

export const DATA = 0;
export const CREDIT = 1;
export const OPENED = 2;
export const END = 3;
export const ACK = 4;
export const PING = 5;

export const RECORD_HEAD = 8;
export const MAX_PAYLOAD = 65535;
/** Bytes of an up request before its slice of the stream, without the token and its length. */
export const UP_HEAD = 17;

/** A byte string behind its length. */
export function counted(bytes: Bytes, width: number): Bytes {
  return join([number(bytes.length, width), bytes]);
}

/** The head of a record with so many bytes of payload. */
export function recordHead(type: number, size: number, channel: number): Bytes {
  return join([number(type * 2 ** 24 + size, 4), number(channel, 4)]);
}

export function record(type: number, channel: number, payload: Bytes = new Uint8Array(0)): Bytes {
  return join([recordHead(type, payload.length, channel), payload]);
}

export interface RecordEvents {
  /** Of DATA each piece that has come: nothing more is waited for. */
  onRecord(type: number, channel: number, payload: Bytes): void;
}

/** Reads the down stream, however it is cut. */
export class RecordReader {
  private head = new Uint8Array(RECORD_HEAD);
  private have = 0; // bytes of the head
  private payload: Bytes | undefined; // of a record other than DATA
  private missing = 0; // bytes of the payload

  constructor(private readonly events: RecordEvents) {}

  /** Take the next bytes. Returns false for a record that may not be. */
  push(chunk: Bytes): boolean {
    for (let at = 0; at < chunk.length; ) {
      const { head } = this;
      if (this.have < RECORD_HEAD) {
        head[this.have++] = chunk[at++]!;
        if (this.have < RECORD_HEAD) continue;
        this.missing = readNumber(head, 2, 2);
        if (!this.isGood()) return false;
        this.payload = head[0] === DATA ? undefined : new Uint8Array(this.missing);
      }
      const part = chunk.subarray(at, at + this.missing);
      at += part.length;
      if (!this.payload) this.events.onRecord(DATA, readNumber(head, 4, 4), part);
      else this.payload.set(part, this.payload.length - this.missing);
      this.missing -= part.length;
      if (this.missing) continue;
      this.have = 0;
      if (this.payload) this.events.onRecord(head[0]!, readNumber(head, 4, 4), this.payload);
    }
    return true;
  }

  private isGood(): boolean {
    const type = this.head[0]!;
    const channel = readNumber(this.head, 4, 4);
    const size = this.missing;
    if (this.head[1]) return false;
    if (type === END) return !size;
    if (type < END) return channel > 0 && (type === CREDIT ? size === 4 : size >= (type === DATA ? 1 : 7));
    return !channel && (type === ACK ? size === 8 : type === PING && !size);
  }
}
