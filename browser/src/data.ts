/** Bytes, and text and blobs as bytes. */

import type { Bytes } from "./engine.ts";

export function sizeOf(parts: Bytes[]): number {
  return parts.reduce((size, part) => size + part.length, 0);
}

/** All parts in one, with a buffer of its own unless one is given. */
export function join(parts: Bytes[], whole: Bytes = new Uint8Array(sizeOf(parts))): Bytes {
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A number as so many bytes, big-endian. */
export function number(value: number, width: number): Bytes {
  const bytes = new Uint8Array(width);
  for (let i = width, rest = value; i--; rest = Math.floor(rest / 256)) bytes[i] = rest;
  return bytes;
}

/** The number that stands in so many of them from `at` on. */
export function readNumber(bytes: ArrayLike<number>, at: number, width: number): number {
  let value = 0;
  for (let i = 0; i < width; i++) value = value * 256 + bytes[at + i]!;
  return value;
}

const encoder = /* @__PURE__ */ new TextEncoder();
const decoder = /* @__PURE__ */ new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const space = /* @__PURE__ */ new Uint8Array(3000);

/** UTF-8; a lone surrogate becomes U+FFFD. */
export function encodeText(text: string): Bytes {
  // `encode` has the engine make a buffer, which takes several times as long as a short text.
  return text.length > 1000 || !encoder.encodeInto ? encoder.encode(text) : space.slice(0, encoder.encodeInto(text, space).written);
}

/** Throws where the bytes are no UTF-8. */
export function decodeText(bytes: Bytes): string {
  return decoder.decode(bytes);
}

export function makeBlob(bytes: Bytes): Blob {
  return new Blob([bytes]);
}

/** Call back with a Blob's bytes, or with nothing where they can't be read. */
export function readBlob(blob: Blob, done: (bytes?: Bytes) => void): void {
  const reader = new FileReader(); // which old engines have, too
  reader.onload = () => done(new Uint8Array(reader.result as ArrayBuffer));
  reader.onerror = () => done();
  reader.readAsArrayBuffer(blob);
}
