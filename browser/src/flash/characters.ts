/**
 * Bytes as they cross between a script and the player: one character U+0100 to U+01FF each, among
 * which there is none that either side treats in a way of its own.
 */

import type { Bytes } from "../engine.ts";

const AT_ONCE = 8192; // arguments of one call, which engines bound

export function toCharacters(bytes: Bytes): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += AT_ONCE) {
    const codes: number[] = [];
    for (let i = at; i < bytes.length && i < at + AT_ONCE; i++) codes.push((bytes[i]! & 255) | 256);
    text += String.fromCharCode.apply(null, codes);
  }
  return text;
}

export function fromCharacters(text: string): Bytes {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i) & 255;
  return bytes;
}
