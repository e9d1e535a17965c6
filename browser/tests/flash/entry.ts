/** The Flash carrier without its player, for Node: flash.mjs puts node-player.mjs in its place. */

export * from "../../src/flash/characters.ts";
export { connect } from "../../src/flash/connect.ts";
export * from "../../src/flash/handshake.ts";
export { Uint8Array as Bytes, TextDecoder, TextEncoder } from "../../src/flash/old.ts";
export * from "../../src/flash/sha1.ts";
export { makeWebSocket } from "../../src/make.ts";
export * as player from "../../src/flash/player.ts";
