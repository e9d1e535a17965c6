/** The parts without a page, in Node: what comes is cut in every way that it can be cut. */

import { deepEqual, equal } from "node:assert/strict";
import { test } from "node:test";

import type { Bytes } from "../src/engine.ts";
import { closePayload, frameHead, FrameReader, PROTOCOL_ERROR } from "../src/frames.ts";
import { join, number } from "../src/data.ts";
import { CREDIT, DATA, END, OPENED, PING, record, RecordReader } from "../src/http/wire.ts";

const bytes = (text: string): Bytes => new TextEncoder().encode(text);
const frame = (opcode: number, payload: Bytes): Bytes => join([frameHead(opcode, payload.length), payload]);

/** The whole in pieces of that size. */
function* pieces(whole: Bytes, size: number): Generator<Bytes> {
  for (let at = 0; at < whole.length; at += size) yield whole.slice(at, at + size);
}

function readFrames(input: Iterable<Bytes>): { log: unknown[]; error: number } {
  const log: unknown[] = [];
  const reader = new FrameReader({
    onMessage: (message) => log.push(typeof message === "string" ? message : [...message]),
    onControl: (opcode, payload) => log.push([opcode, ...payload]),
  });
  try {
    for (const piece of input) reader.push(piece);
  } catch (error) {
    return { log, error: error as number };
  }
  return { log, error: 0 };
}

test("frames, cut anywhere", () => {
  const fragment = frame(1, bytes("Gr"));
  fragment[0] = 1; // not the last one
  const whole = join([
    frame(1, bytes("")), fragment, frame(9, bytes("ping")), frame(0, bytes("üße")), frame(2, new Uint8Array([0, 255])),
    frame(1, bytes("x".repeat(126))), frame(2, new Uint8Array(0)), frame(1, bytes("y".repeat(65536))),
    frame(8, closePayload(3000, bytes("z"))),
  ]);
  const expected = ["", [9, ...bytes("ping")], "Grüße", [0, 255], "x".repeat(126), [], "y".repeat(65536), [8, 11, 184, 122]];
  for (const size of [1, 2, 3, 7, 130, 65536, whole.length]) {
    deepEqual(readFrames(pieces(whole, size)), { log: expected, error: 0 });
  }
});

test("frames so long that they are put together", () => {
  const long = new Uint8Array(9 << 20).map((_, n) => n * 7 + (n >> 9));
  const whole = join([frame(2, long), frame(1, bytes("next"))]);
  for (const size of [65537, whole.length]) {
    const got: unknown[] = [];
    const reader = new FrameReader({ onMessage: (message) => got.push(message), onControl() {} });
    // The memory that it comes in is used again.
    const space = new Uint8Array(size);
    for (const piece of pieces(whole, size)) {
      space.set(piece);
      reader.push(space.subarray(0, piece.length));
    }
    equal(Buffer.compare(got[0] as Bytes, long), 0);
    equal((got[0] as Bytes).buffer.byteLength, long.length);
    equal(got[1], "next");
  }
});

test("frames that may not be", () => {
  const bad = ["c100", "8180", "8300", "8b00", "0900", "897e", "0101610101", "8000", "817e0001", "817f0000000000000001"];
  for (const hex of bad) {
    const input = Uint8Array.from(hex.match(/../g)!, (pair) => parseInt(pair, 16));
    equal(readFrames(pieces(input, 1)).error, PROTOCOL_ERROR, hex);
  }
  equal(readFrames([frame(1, new Uint8Array([0xc3]))]).error, 1007);
});

test("records, cut anywhere", () => {
  const whole = join([
    record(OPENED, 1, join([number(65536, 4), new Uint8Array(3)])), record(DATA, 1, bytes("hello")), record(PING, 0),
    record(CREDIT, 2, number(70000, 4)), record(DATA, 2 ** 31 - 1, bytes("w".repeat(65535))), record(END, 1), record(END, 0),
  ]);
  for (const size of [1, 2, 7, 8, 9, 500, whole.length]) {
    const data = new Map<number, string>();
    const log: unknown[] = [];
    const reader = new RecordReader({
      onRecord(type, channel, payload) {
        if (type === DATA) data.set(channel, (data.get(channel) ?? "") + String.fromCharCode(...payload));
        else log.push([type, channel, payload.length]);
      },
    });
    for (const piece of pieces(whole, size)) equal(reader.push(piece), true);
    deepEqual([...data], [[1, "hello"], [2 ** 31 - 1, "w".repeat(65535)]]);
    deepEqual(log, [[OPENED, 1, 7], [PING, 0, 0], [CREDIT, 2, 4], [END, 1, 0], [END, 0, 0]]);
  }
});

test("records that may not be", () => {
  const empty = new Uint8Array(0);
  const unknown = record(END, 0);
  unknown[1] = 1;
  const bad = [record(DATA, 0, bytes("x")), record(DATA, 1), record(CREDIT, 1, number(1, 2)), record(PING, 1), record(6, 0), record(END, 1, bytes("x")), record(OPENED, 1, empty), unknown];
  for (const input of bad) {
    const reader = new RecordReader({ onRecord() {} });
    equal(reader.push(input), false, [...input].join());
  }
});
