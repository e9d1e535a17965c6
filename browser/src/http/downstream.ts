/**
 * What comes down: one long response, replaced by a new one before it ends; or, where something
 * holds streams back, one short response after the other, at the same offsets.
 */

import { number, readNumber } from "../data.ts";
import type { Bytes } from "../engine.ts";
import { inTask } from "../tasks.ts";
import { type BodyReader, isFinal, pause, post, readerOf, readHead, Timer } from "./request.ts";
import type { Session } from "./session.ts";
import { DOWN, RecordReader } from "./wire.ts";

export const STREAM = 0;
export const POLL = 1;
export const STREAM_SECONDS = 50;
export const POLL_SECONDS = 15;

const ROTATE = 45_000; // ms after which a new response replaces the one that runs
const HEAD = 3000; // ms for a stream's first byte: its head is sent at once
const GRACE = 10_000; // ms for an answer beyond the time that the server may take
const HELD = 1000; // ms that what was written may be under way
const POLL_PAUSE = 1000; // ms between polls that may not wait
const STREAM_AGAIN = 300_000; // ms until a stream is tried again
const HEAD_SIZE = 9;
const SPACE = 1 << 20; // bytes that are read at a time: as much as there may be

export class Downstream {
  /** All below has come. */
  received = 0;
  mode = STREAM;
  /** How long a poll may wait; 0 where others need the connection. */
  pollSeconds = POLL_SECONDS;
  private readonly reader: RecordReader;
  private number = 0; // of the newest request
  private answered = 0; // the newest one of which something came
  /** The current one. */
  current: AbortController | undefined;
  private failures = 0;
  private lastByte = 0; // when it came
  /** Runs while nothing is asked for. */
  readonly retrying = new Timer(() => this.ask());
  private readonly rotating = new Timer(() => this.ask());
  private readonly silence = new Timer(() => this.onSilence());
  private readonly lagging = new Timer(() => this.onHeld());
  private toldWritten = 0; // by the server, as far as it told
  private pollUntil = 0;

  constructor(private readonly session: Session) {
    this.reader = new RecordReader(session);
  }

  /** Read on from a response whose beginning made the session. */
  start(first: Bytes, body: BodyReader, mode: number, request: AbortController): void {
    if (mode === POLL) this.poll();
    this.current = request;
    this.rotating.set(ROTATE);
    this.watch();
    void this.read(this.number, body, 0, first);
  }

  stop(): void {
    for (const timer of [this.retrying, this.rotating, this.silence, this.lagging]) timer.clear();
    this.number++;
    this.current?.abort();
  }

  /** Ask anew, unless something has come just now. Where the network changed, in any case. */
  wake(changed: boolean): void {
    if (changed) this.pollUntil = 0;
    if (changed || this.retrying.isSet || performance.now() - this.lastByte > HEAD) {
      this.failures = 0;
      this.ask();
    }
  }

  /** The server has written so far. */
  onWritten(offset: number): void {
    this.toldWritten = Math.max(this.toldWritten, offset);
    if (this.mode === STREAM && offset > this.received && !this.lagging.isSet) this.lagging.set(HELD);
  }

  private onHeld(): void {
    if (this.toldWritten <= this.received || this.mode === POLL) return;
    const since = performance.now() - this.lastByte;
    if (since < HELD) this.lagging.set(HELD - since);
    else this.pollFromNow();
  }

  private poll(): void {
    this.mode = POLL;
    this.pollUntil = performance.now() + STREAM_AGAIN;
  }

  private pollFromNow(): void {
    this.poll();
    this.ask();
  }

  private onSilence(): void {
    // The beginning of a stream that does not come is held back. Otherwise the network is gone.
    if (this.mode === STREAM && this.answered < this.number) this.pollFromNow();
    else this.onFailure();
  }

  // -- requests ----------------------------------------------------------------------------------

  /** Send a new request; the response before it ends by that. */
  ask(): void {
    if (this.session.isOver) return;
    this.retrying.clear();
    this.rotating.clear();
    this.mode = performance.now() > this.pollUntil && this.pollSeconds ? STREAM : POLL;
    const number_ = ++this.number;
    const before = this.current;
    const request = (this.current = new AbortController());
    void this.run(number_, request, before);
    if (this.mode === STREAM) this.rotating.set(ROTATE);
    this.expect(this.mode === STREAM ? HEAD : POLL_SECONDS * 1000 + GRACE);
  }

  private async run(mine: number, request: AbortController, before: AbortController | undefined): Promise<void> {
    const { url, terms } = this.session;
    const { mode } = this;
    const body = [
      number(DOWN, 1),
      terms.token,
      number(this.session.acknowledgeDown(), 8),
      number(mine, 4),
      number(mode, 1),
      number(mode ? this.pollSeconds : STREAM_SECONDS, 1),
    ];
    try {
      const response = await post(url, body, request.signal);
      if (mine === this.number && (isFinal(response.status) || response.status === 409)) this.session.fail();
      if (response.status !== 200) throw response;
      await this.readFrom(mine, readerOf(response.body!));
      // Ended in good order: by the request after it, or in its time.
      before?.abort();
    } catch {
      if (mine === this.number) this.onFailure();
    }
  }

  private async readFrom(mine: number, body: BodyReader): Promise<void> {
    const head = await readHead(body, () => HEAD_SIZE);
    if (head[0] !== DOWN) throw head;
    const offset = readNumber(head, 1, 8);
    this.heard(mine);
    await this.read(mine, body, offset, head.subarray(HEAD_SIZE));
  }

  /** Read a response to its end, from that offset on, of which this has come; then ask for the next one. */
  private async read(mine: number, body: BodyReader, offset: number, first: Bytes): Promise<void> {
    const began = performance.now();
    const from = this.received;
    let space: Bytes = new Uint8Array(SPACE);
    try {
      for (let at = offset, chunk = first; ; ) {
        inTask(() => this.take(at, chunk));
        at += chunk.length;
        const { value, done } = await body.read(space);
        if (done) break;
        this.heard(mine);
        space = new Uint8Array(value.buffer);
        chunk = value;
      }
    } catch {
      if (mine === this.number) this.onFailure();
      return;
    }
    if (mine !== this.number || this.session.isOver) return;
    if (this.mode === STREAM && this.received === from && performance.now() - began < HELD) {
      this.onFailure(); // an end at once is no good order
    } else {
      this.failures = 0;
      if (this.pollSeconds) this.ask();
      else this.retrying.set(POLL_PAUSE);
    }
  }

  private heard(mine: number): void {
    this.answered = Math.max(this.answered, mine);
    this.session.heard();
    this.lastByte = performance.now();
    if (mine === this.number) this.watch();
  }

  private watch(): void {
    this.expect(this.mode === POLL ? POLL_SECONDS * 1000 + GRACE : this.session.terms.heartbeat + GRACE);
  }

  /** Something has to come in that time, or while the session still lasts. */
  private expect(ms: number): void {
    this.silence.set(Math.min(ms, Math.max(HEAD, this.session.timeLeft)));
  }

  private onFailure(): void {
    if (this.session.isLost()) return;
    this.current?.abort();
    this.number++; // what is left of it is not listened to
    this.rotating.clear();
    this.silence.clear();
    this.retrying.set(pause(++this.failures));
  }

  /** Bytes of the stream, from that offset on; some may have come before. */
  private take(offset: number, chunk: Bytes): void {
    const fresh = chunk.subarray(Math.max(0, this.received - offset));
    if (offset > this.received) this.session.fail(); // a gap: not this protocol
    if (!fresh.length || this.session.isOver) return;
    this.failures = 0;
    this.received += fresh.length;
    if (!this.reader.push(fresh)) this.session.giveUp();
    this.session.onReceived();
  }
}
