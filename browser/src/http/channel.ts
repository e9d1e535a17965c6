/** One WebSocket's bytes in a session, both ways, each as far as the other end gave credit. */

import { number } from "../data.ts";
import type { Bytes } from "../engine.ts";
import { queueTask } from "../tasks.ts";
import { FramedLink } from "../framed.ts";
import type { LinkEvents } from "../link.ts";
import type { Session } from "./session.ts";
import { CREDIT, DATA, END, MAX_PAYLOAD, record, recordHead } from "./wire.ts";

/** What the server may send of one channel before the page has used it. */
export const WINDOW = 1 << 24;

const SPACE = MAX_PAYLOAD; // bytes that messages are gathered in
const MAX_SPARE = 256;

/** Spaces whose bytes were acknowledged, to be used again: new memory costs more than the copy. */
const spare: Bytes[] = [];

export class Channel {
  readonly link: FramedLink;
  /** 0 until there is a session to be numbered in. */
  number = 0;
  session: Session | undefined;
  /** Until its open has been answered; what the stream brings before that waits for it. */
  opening: Promise<void> | undefined;
  /** Bytes that wait to be sent. */
  waiting = 0;
  private spaces: Bytes[] = []; // where they are,
  private gone = 0; // behind so many in the first one that were sent
  private sent = 0; // bytes of DATA that were acknowledged
  private credit = 0; // bytes of DATA that may be sent
  private used = 0; // bytes received, and not given back yet
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

  write(head: Bytes, payload: Bytes): void {
    for (const bytes of [head, payload]) {
      for (let at = 0; at < bytes.length; ) {
        const filled = (this.gone + this.waiting) % SPACE;
        if (!filled) this.spaces.push(spare.pop() ?? new Uint8Array(SPACE));
        const room = SPACE - filled;
        const part = at || bytes.length > room ? bytes.subarray(at, at + room) : bytes;
        this.spaces[this.spaces.length - 1]!.set(part, filled);
        this.waiting += part.length;
        at += part.length;
      }
    }
    this.session?.flushSoon(this);
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
    if (this.used < WINDOW / 2) return;
    const credit = record(CREDIT, this.number, number(this.used, 4));
    this.used = 0;
    // Given back behind the messages that these bytes made. An unfinished one does not hold it
    // back: the engine's own WebSocket, too, takes messages of any size.
    queueTask(() => this.endReceived || this.session?.control(credit));
  }

  /** Acknowledged: the next bytes of what was sent. Those at the end of a space are its last ones. */
  onSent({ buffer, byteOffset, length }: Bytes): void {
    if (byteOffset + length === SPACE && spare.length < MAX_SPARE) spare.push(new Uint8Array(buffer));
    this.link.onSent((this.sent += length));
  }

  onEnd(): void {
    this.endReceived = true;
    this.waiting = 0;
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
    if (this.waiting) return this.credit > 0;
    return this.isDone && !this.endSent;
  }

  /** The next record, of so many bytes at most: its head and payload. */
  makeRecord(most: number): [Bytes, Bytes] {
    const { spaces, gone } = this;
    const size = Math.min(most, this.credit, this.waiting, SPACE - gone);
    const part = size ? spaces[0]!.subarray(gone, gone + size) : new Uint8Array(0);
    this.gone = (gone + size) % SPACE;
    if (size && !this.gone) spaces.shift();
    this.waiting -= size;
    this.credit -= size;
    this.endSent = !size;
    return [recordHead(size ? DATA : END, size, this.number), part];
  }
}
