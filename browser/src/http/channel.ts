/** One WebSocket's bytes in a session, both ways, each as far as the other end gave credit. */

import { join } from "../data.ts";
import type { Bytes } from "../engine.ts";
import { queueTask } from "../tasks.ts";
import { FramedLink } from "../framed.ts";
import type { LinkEvents } from "../link.ts";
import type { Session } from "./session.ts";
import { CREDIT, DATA, END, MAX_PAYLOAD, number, record, recordHead } from "./wire.ts";

/** What the server may send of one channel before the page has used it. */
export const WINDOW = 1 << 21;

export class Channel {
  readonly link: FramedLink;
  /** 0 until there is a session to be numbered in. */
  number = 0;
  session: Session | undefined;
  /** Its open has been answered well. */
  isSettled = false;
  private isOpen = false;
  /** What waits to be sent. */
  private pieces: Bytes[] = [];
  /** Bytes of DATA made so far. */
  sent = 0;
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
    for (const chunk of chunks) if (chunk.length) this.pieces.push(chunk);
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

  /**
   * The next record, in pieces. Large messages are not copied: they are pieces of their own, and
   * only small ones are gathered.
   */
  makeRecord(): Bytes[] {
    const parts: Bytes[] = [];
    let size = 0;
    const most = Math.min(MAX_PAYLOAD, this.credit);
    while (size < most && this.pieces.length) {
      const first = this.pieces[0]!;
      const part = first.subarray(0, most - size);
      parts.push(part);
      size += part.length;
      if (part.length < first.length) this.pieces[0] = first.subarray(part.length);
      else this.pieces.shift();
    }
    this.sent += size;
    this.credit -= size;
    this.endSent = !size;
    parts.unshift(recordHead(size ? DATA : END, size, this.number));
    return parts.length > 3 ? [join(parts)] : parts;
  }
}
