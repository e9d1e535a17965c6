/** One WebSocket's bytes in a session, both ways, each as far as the other end gave credit. */

import type { Bytes } from "../engine.ts";
import { queueTask } from "../tasks.ts";
import { FramedLink } from "../framed.ts";
import type { LinkEvents } from "../link.ts";
import type { Session } from "./session.ts";
import { CREDIT, DATA, END, MAX_PAYLOAD, number, record, recordHead } from "./wire.ts";

/** What the server may send of one channel before the page has used it. */
export const WINDOW = 1 << 22;

export class Channel {
  readonly link: FramedLink;
  /** 0 until there is a session to be numbered in. */
  number = 0;
  session: Session | undefined;
  /** Until its open has been answered; what the stream brings before that waits for it. */
  opening: Promise<void> | undefined;
  /** What waits to be sent; behind it, what pieces that fit into one record have filled of `space`. */
  private pieces: Bytes[] = [];
  private space: Bytes = new Uint8Array(0);
  private filled = 0;
  /** Bytes of DATA made so far. */
  sent = 0;
  private credit = 0; // bytes of DATA that may be sent
  private used = 0; // bytes received, dispatched, and not told to the server yet
  /** The page is done with it, perhaps before it was open, or the server is. */
  isDone = false;
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
      if (this.filled + chunk.length > this.space.length) {
        this.gather();
        this.space = chunk.length > MAX_PAYLOAD ? chunk : new Uint8Array(MAX_PAYLOAD);
      }
      if (this.space !== chunk) this.space.set(chunk, this.filled);
      this.filled += chunk.length;
    }
    this.session?.flushSoon(this);
  }

  private gather(): void {
    if (this.filled) this.pieces.push(this.space.subarray(0, this.filled));
    this.space = this.space.subarray(this.filled);
    this.filled = 0;
  }

  end(): void {
    this.isDone = true;
    this.session?.flushSoon(this);
  }

  // -- from the session --------------------------------------------------------------------------

  onOpened(credit: number, protocol: string): void {
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
    if (this.used >= WINDOW / 2 && this.used - piece.length < WINDOW / 2) queueTask(() => this.giveCredit());
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
    this.filled = 0;
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
    if (this.pieces.length || this.filled) return this.credit > 0;
    return this.isDone && !this.endSent;
  }

  /** The next record, in pieces. */
  makeRecord(): Bytes[] {
    this.gather();
    const piece = this.pieces.shift() ?? new Uint8Array(0);
    const part = piece.subarray(0, Math.min(MAX_PAYLOAD, this.credit));
    const size = part.length;
    if (size < piece.length) this.pieces.unshift(piece.subarray(size));
    this.sent += size;
    this.credit -= size;
    this.endSent = !size;
    return [recordHead(size ? DATA : END, size, this.number), part];
  }
}
