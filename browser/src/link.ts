/**
 * What stands between a WebSocket object and the network: one connection, in whole messages.
 * Each carrier has its own `Connect`; nothing above knows which.
 */

import type { Bytes } from "./engine.ts";

export type Message = string | Bytes;

export interface Link {
  /** Which carrier bears the connection at this moment. */
  readonly carrier: string;
  /** Send a message, text given as UTF-8; its bytes have been read when it returns. */
  send(isText: boolean, payload: Bytes): void;
  /** Send a close frame behind all that was sent; without a code, an empty one. */
  close(code: number | undefined, reason: string): void;
  /** Give the connection up, whatever its state; nothing is called back any more. */
  abort(): void;
}

/** What a link tells its WebSocket; never while `Connect` is still running. */
export interface LinkEvents {
  onOpen(protocol: string): void;
  onMessage(message: Message): void;
  /** So many bytes of payload more have been taken by the network. */
  onSent(bytes: number): void;
  /** The peer has begun to close. */
  onClosing(): void;
  /**
   * The end, once. Code 1006 is a connection that ended without the closing handshake; it `failed`
   * where this end gave it up, or could not make it.
   */
  onClose(code: number, reason: string, failed: boolean): void;
}

export type Connect = (url: string, protocols: string[], events: LinkEvents) => Link;
