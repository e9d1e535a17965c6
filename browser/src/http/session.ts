/** A session: the two streams to one server, and the channels that share them. */

import { readNumber } from "../data.ts";
import type { Bytes } from "../engine.ts";
import type { Channel } from "./channel.ts";
import { Downstream, POLL } from "./downstream.ts";
import { Timer } from "./request.ts";
import { Upstream } from "./upstream.ts";
import { ACK, CREDIT, DATA, END, OPENED, PING, record, type RecordEvents, UP_HEAD } from "./wire.ts";

const ACKNOWLEDGE_TIME = 1000; // ms after which what was received is acknowledged

/** What the server says of a session it has made. */
export interface Terms {
  token: Bytes; // behind its length
  heartbeat: number; // ms after which the server breaks its silence
  reach: number; // ms without a word after which a session is over
  largestBody: number; // bytes
  flags: number;
}

/** Requests that last and carry the up stream, where the browser and the way there have such. */
export interface Uploads {
  /** Send these bytes, if it can be done now; their answer is made of acknowledgements. */
  send(from: number, body: Bytes[], signal: AbortSignal): Promise<Response> | undefined;
  /** The server has told, in the down stream, that it has all below this offset. */
  acknowledge(offset: number): void;
}

let follower: ((session: Session) => void) | undefined;

/** Have a function called with each session, again when it has heard something or is over. */
export function follow(by: (session: Session) => void): void {
  const before = follower;
  follower = (session) => {
    before?.(session);
    by(session);
  };
}

export class Session implements RecordEvents {
  isOver = false;
  readonly down: Downstream;
  uploads: Uploads | undefined;
  private readonly up: Upstream;
  private readonly channelsByNumber = new Map<number, Channel>();
  private lastNumber = 0;
  private lastHeard!: number;
  private readonly acknowledging = new Timer(() => this.up.demand());

  constructor(
    readonly url: string,
    readonly terms: Terms,
    private readonly onOver: (session: Session) => void,
  ) {
    this.up = new Upstream(this, terms.largestBody - UP_HEAD - terms.token.length);
    this.down = new Downstream(this);
    this.heard();
  }

  get carrier(): string {
    return this.down.mode === POLL ? "http-poll" : "http";
  }

  // -- channels ----------------------------------------------------------------------------------

  newNumber(): number {
    return ++this.lastNumber;
  }

  /** Take a channel under its number; what the server says of it may come from now on. */
  add(channel: Channel, number: number): void {
    channel.session = this;
    channel.number = number;
    this.lastNumber = Math.max(this.lastNumber, number);
    this.channelsByNumber.set(number, channel);
    this.up.add(channel);
  }

  /** An open that failed: the server may have accepted it all the same. */
  remove(channel: Channel): void {
    if (!this.channelsByNumber.delete(channel.number)) return;
    this.control(record(END, channel.number));
  }

  /** The channel has found another session. */
  release(channel: Channel): void {
    this.channelsByNumber.delete(channel.number);
  }

  forgetIfOver(channel: Channel): void {
    if (channel.isOver) this.channelsByNumber.delete(channel.number);
  }

  flushSoon(channel: Channel): void {
    if (!this.isOver) this.up.add(channel);
  }

  control(bytes: Bytes): void {
    if (!this.isOver) this.up.control(bytes);
  }

  // -- what has come -----------------------------------------------------------------------------

  heard(): void {
    this.lastHeard = performance.now();
    follower?.(this);
  }

  onWritten(offset: number): void {
    this.down.onWritten(offset);
  }

  onReceived(): void {
    if (!this.acknowledging.isSet) this.acknowledging.set(ACKNOWLEDGE_TIME);
  }

  /** How much has been received: it is about to be told. */
  acknowledgeDown(): number {
    this.acknowledging.clear();
    return this.down.received;
  }

  onRecord(type: number, number: number, payload: Bytes): void {
    const channel = this.channelsByNumber.get(number);
    if (channel?.opening) {
      const bytes = payload.slice();
      void channel.opening.then(() => this.onRecord(type, number, bytes));
    } else if (type === DATA) {
      channel?.onData(payload);
    } else if (type === PING) {
      this.up.demand();
    } else if (type === ACK) {
      const offset = readNumber(payload, 0, 8);
      this.up.acknowledge(offset);
      this.uploads?.acknowledge(offset);
    } else if (type === END && !number) {
      this.endAll(false);
    } else if (type === CREDIT) {
      channel?.onCredit(readNumber(payload, 0, 4));
    } else if (type === OPENED) {
      channel?.onOpened(readNumber(payload, 0, 4), String.fromCharCode(...payload.subarray(5, 5 + payload[4]!)));
    } else if (channel) {
      channel.onEnd();
      this.forgetIfOver(channel);
    }
  }

  // -- the end -----------------------------------------------------------------------------------

  /** Until it has ended, in ms, if nothing is heard. */
  get timeLeft(): number {
    return this.lastHeard + this.terms.reach - performance.now();
  }

  /** Whether nothing was heard for so long that it has ended; asked after each failure. */
  isLost(): boolean {
    if (!this.isOver && this.timeLeft < 0) this.fail();
    return this.isOver;
  }

  /** The server does not know the session, or can't be reached. */
  fail(): void {
    this.endAll(true);
  }

  /** End it, because the server sent what may not be, or the page goes away. */
  giveUp(): void {
    if (this.isOver) return;
    this.up.leave(record(END, 0));
    this.endAll(true);
  }

  /** The page goes away, and says so. */
  leave(): void {
    this.channelsByNumber.forEach((channel) => channel.link.close(1001, ""));
    this.giveUp();
  }

  private endAll(failed: boolean): void {
    if (this.isOver) return;
    this.isOver = true;
    follower?.(this);
    this.acknowledging.clear();
    this.up.stop();
    this.down.stop();
    this.onOver(this);
    // One that is being opened may find another session.
    this.channelsByNumber.forEach((channel) => channel.opening || channel.fail(failed));
  }

  /** Something has changed for the better: try at once what waits. */
  wake(changed: boolean): void {
    this.up.wake(changed);
    this.down.wake(changed);
  }
}

