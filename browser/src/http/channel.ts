/** One WebSocket's bytes in a session, both ways, each as far as the other end gave credit. */

import type { Bytes } from "../engine.ts";
import { queueTask } from "../tasks.ts";
import { FramedLink } from "../framed.ts";
import type { LinkEvents } from "../link.ts";
import type { Session } from "./session.ts";
import { CREDIT, END, MAX_PAYLOAD, number, RECORD_HEAD, record, writeHead } from "./wire.ts";

/** What the server may send of one channel before the page has used it. */
export const WINDOW = 1 << 20;

export class Channel {
  readonly link: FramedLink;
  /** 0 until there is a session to be numbered in. */
  number = 0;
  session: Session | undefined;
  /** Its open has been answered well. */
  isSettled = false;
  private isOpen = false;
  /** What waits to be sent, without the first `taken` bytes of the first piece. */
  private pieces: Bytes[] = [];
  private taken = 0;
  private queued = 0; // bytes of them
  private sent = 0; // bytes of DATA
  private credit = 0; // bytes of DATA that may be sent
  private used = 0; // bytes received, dispatched, and not told to the server yet
  /** The page is done with it, and so is the server. */
  private isDone = false;
  private endSent = false;
  private endReceived = false;

  constructor(
    readonly url: string,
    readonly protocols: string[],
    private readonly events: LinkEvents,
  ) {
    this.link = new FramedLink(this, events);
  }

  get carrier(): string {
    return this.session?.carrier ?? "http";
  }

  // -- from the page -----------------------------------------------------------------------------

  write(...chunks: Bytes[]): void {
    for (const chunk of chunks) {
      if (chunk.length) this.pieces.push(chunk);
      this.queued += chunk.length;
    }
    this.session?.flushSoon(this);
  }

  end(): void {
    this.isDone = true;
    this.session?.flushSoon(this);
  }

  // -- from the session --------------------------------------------------------------------------

  /** Whether the page gave it up, perhaps before it was open. */
  get wasGivenUp(): boolean {
    return this.isDone;
  }

  onOpened(credit: number, protocol: string): void {
    if (this.isOpen) return;
    this.isOpen = true;
    this.onCredit(credit);
    if (!this.isDone) this.events.onOpen(protocol);
  }

  onCredit(credit: number): void {
    this.credit += credit;
    this.session?.flushSoon(this);
  }

  onData(piece: Bytes): void {
    this.link.onData(piece);
    this.used += piece.length;
    // Given back behind the messages that these bytes made. An unfinished one does not hold it
    // back: the engine's own WebSocket, too, takes messages of any size.
    if (this.used >= WINDOW / 4 && this.used - piece.length < WINDOW / 4) queueTask(() => this.giveCredit());
  }

  private giveCredit(): void {
    if (!this.endReceived) this.session?.control(record(CREDIT, this.number, number(this.used, 4)));
    this.used = 0;
  }

  /** Acknowledged: so many bytes of it. */
  onSent(total: number): void {
    this.link.onSent(total);
  }

  onEnd(): void {
    this.endReceived = true;
    this.pieces = [];
    this.queued = 0;
    this.isDone = true;
    this.link.onEnd(false);
    this.session?.flushSoon(this);
  }

  /** There is no session any more, or never was. */
  fail(failed: boolean): void {
    this.session = undefined;
    this.isDone = true;
    this.link.onEnd(failed);
  }

  /** Whether both ends have ended it. */
  get isOver(): boolean {
    return this.endSent && this.endReceived;
  }

  // -- what goes up ------------------------------------------------------------------------------

  /** Whether a record could be made of what waits. */
  get isReady(): boolean {
    if (this.pieces.length) return this.credit > 0;
    return this.isDone && !this.endSent;
  }

  /** Write one record there, if it fits; returns where it ends, and how many bytes were sent. */
  writeRecord(into: Bytes, at: number): { end: number; sent: number } {
    const room = Math.min(into.length - at - RECORD_HEAD, MAX_PAYLOAD, this.credit);
    let end = at + RECORD_HEAD;
    if (!this.pieces.length) {
      this.endSent = true;
      writeHead(into, at, END, 0, this.number);
      return { end, sent: this.sent };
    }
    const limit = end + room;
    while (end < limit && this.pieces.length) {
      const rest = this.pieces[0]!.length - this.taken;
      const size = Math.min(rest, limit - end);
      into.set(this.pieces[0]!.subarray(this.taken, this.taken + size), end);
      end += size;
      this.taken += size;
      if (size === rest) {
        this.pieces.shift();
        this.taken = 0;
      }
    }
    const size = end - at - RECORD_HEAD;
    writeHead(into, at, 0, size, this.number);
    this.queued -= size;
    this.sent += size;
    this.credit -= size;
    return { end, sent: this.sent };
  }

  /** Bytes that the records of all that may be sent now take, at most. */
  get size(): number {
    const size = Math.min(this.queued, this.credit);
    return size + RECORD_HEAD * (2 + Math.ceil(size / MAX_PAYLOAD));
  }
}
