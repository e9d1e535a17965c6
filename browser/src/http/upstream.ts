/**
 * What goes up: records made at the last moment, of all channels in turn; at most two requests
 * under way; everything kept until it is acknowledged, and sent again from there.
 */

import { number, sizeOf } from "../data.ts";
import type { Bytes } from "../engine.ts";
import type { Channel } from "./channel.ts";
import { isFinal, pause, post, Timer } from "./request.ts";
import type { Session } from "./session.ts";
import { UP } from "./wire.ts";

const MAX_REQUESTS = 2;
const LEAST_BODY = 4096; // what is not taken in such pieces is not taken
const FIRST_BODY = 1 << 16;
const LARGEST_BODY = 1 << 22; // less costs the browser more; more would be waited for behind it
const TURN = 16384; // bytes of one channel, where others wait
const MUCH = 1 << 18; // bytes of one channel that do not wait for more
const QUICK = 50; // ms that a request may take beyond the shortest: then the next is larger,
const SLOW = 200; // and above this, smaller, or other channels would wait behind it
const ANSWER = 5000; // ms for an answer; beyond that,
const RATE = 16; // bytes a ms at least, or
const SLOWER = 8; // times less than there were in the last request
const SMALL_TIME = 300_000; // ms that bodies stay small after one was swallowed
const KEEPALIVE = 45_000; // bytes, and a record, that a page may leave behind

export class Upstream {
  /** The server has all below. */
  private acknowledged = 0;
  /** Where the next request begins, if none failed. */
  private next = 0;
  /** All from `acknowledged` on that was made up so far, and whose payload it is. */
  private kept: { bytes: Bytes; channel: Channel | undefined }[] = [];
  private end = 0;
  private controls: Bytes[] = [];
  /** In the order of their turns. */
  private ready: Channel[] = [];
  private requests = new Set<AbortController>();
  private failures = 0;
  private largest = FIRST_BODY;
  private ceiling = Infinity; // of that,
  private smallUntil = 0; // for so long
  private lastRate = 0; // bytes a ms
  private shortest = Infinity; // ms that a request took
  private flushing = false;
  private mustSend = false;
  private readonly retry = new Timer(() => this.flush());
  private readonly limit: number;

  constructor(
    private readonly session: Session,
    limit: number,
  ) {
    this.limit = Math.min(limit, LARGEST_BODY);
  }

  /** Send a record of the session's own, before what channels have. */
  control(record: Bytes): void {
    this.controls.push(record);
    this.flushSoon();
  }

  add(channel: Channel): void {
    if (channel.isReady && this.ready.indexOf(channel) < 0) this.ready.push(channel);
    if (channel.waiting > MUCH) this.flush();
    else this.flushSoon();
  }

  /** Send a request even if there is nothing to send: for an acknowledgement. */
  demand(): void {
    this.mustSend = true;
    this.flushSoon();
  }

  /** Try again at once. Where the network changed, what is under way is not waited for. */
  wake(changed: boolean): void {
    if (changed) this.smallUntil = 0;
    if (changed && this.requests.size) this.restart(0);
    else if (this.retry.isSet) this.retry.fire();
  }

  stop(): void {
    this.retry.clear();
    this.drop();
  }

  /** Forget what is under way: what the server has got of it, it will say. */
  private drop(): void {
    this.requests.forEach((request) => request.abort());
    this.requests.clear();
  }

  private restart(after: number): void {
    this.drop();
    this.next = this.acknowledged;
    this.mustSend = true;
    this.retry.set(after);
  }

  /** The last request, which outlives a page that goes away; `last` stands behind all else in it. */
  leave(last: Bytes): void {
    const from = this.end - this.acknowledged > KEEPALIVE / 2 ? this.next : this.acknowledged;
    this.fill(KEEPALIVE - (this.end - from));
    this.keep(last);
    void this.post(from, this.slice(from, this.end - from)).catch(() => {});
  }

  // -- sending -----------------------------------------------------------------------------------

  /** In a microtask: what the page sends in one go becomes one request. */
  private flushSoon(): void {
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(() => {
      this.flushing = false;
      this.flush();
    });
  }

  private flush(): void {
    if (this.session.isOver || this.retry.isSet) return;
    // After a failure one at a time, until one gets through.
    while (this.requests.size < (this.failures ? 1 : MAX_REQUESTS)) {
      // Without messages not alongside another: it would be taken behind that, and hold messages up.
      if (this.requests.size && !this.ready.length && this.next === this.end) return;
      const limit = Math.min(this.limit, this.largest);
      this.fill(limit - (this.end - this.next));
      const body = this.slice(this.next, limit);
      const size = sizeOf(body);
      if (!size && (!this.mustSend || this.requests.size)) return;
      this.mustSend = false;
      this.next += size;
      void this.send(this.next - size, body, size);
    }
  }

  private async send(from: number, body: Bytes[], size: number): Promise<void> {
    const request = new AbortController();
    const began = performance.now();
    const timer = setTimeout(() => request.abort(), ANSWER + size / Math.max(RATE, this.lastRate / SLOWER));
    this.requests.add(request);
    let acknowledged: number | undefined;
    let isTooLarge = false;
    try {
      const response = await this.post(from, body, request.signal);
      isTooLarge = response.status === 413;
      if (isFinal(response.status)) this.session.fail();
      if (response.status === 204) {
        const [up, down] = (response.headers.get("Plainsocket") ?? "").split(" ").map(Number);
        if (up! + down! >= 0) {
          acknowledged = up!;
          this.session.onWritten(down!);
        }
      }
    } catch {
      // as if it had never been sent
    }
    clearTimeout(timer);
    if (!this.requests.delete(request) || this.session.isOver) return;
    if (acknowledged === undefined) {
      this.onFailure(size, isTooLarge || request.signal.aborted);
    } else {
      this.onSuccess(size, performance.now() - began);
      this.session.heard();
      this.acknowledge(acknowledged);
    }
    this.flush();
  }

  private onSuccess(size: number, took: number): void {
    this.failures = 0;
    this.lastRate = size / took;
    if (performance.now() > this.smallUntil) this.ceiling = Infinity;
    this.shortest = Math.min(this.shortest, took);
    const busy = took - this.shortest;
    if (busy > SLOW && size > 2 * LEAST_BODY) this.largest = Math.max(LEAST_BODY, size / 2);
    else if (busy < QUICK && size > this.largest / 2) this.largest *= 2;
    this.largest = Math.min(this.largest, this.limit, this.ceiling);
  }

  private onFailure(size: number, wasSwallowed: boolean): void {
    if (this.session.isLost()) return;
    if (wasSwallowed) {
      this.largest = this.ceiling = Math.max(LEAST_BODY, size >> 2);
      this.smallUntil = performance.now() + SMALL_TIME;
    } else if (this.failures && size > LEAST_BODY) {
      this.largest = Math.max(LEAST_BODY, size >> 1);
    }
    this.failures++;
    this.restart(pause(this.failures));
  }

  private post(from: number, body: Bytes[], signal?: AbortSignal): Promise<Response> {
    const { session } = this;
    return (
      (signal && session.uploads?.send(from, body, signal)) ||
      post(
        session.url,
        [number(UP, 1), session.terms.token, number(session.acknowledgeDown(), 8), number(from, 8), ...body],
        signal,
      )
    );
  }

  // -- what is kept ------------------------------------------------------------------------------

  /** The server has all below this offset. */
  acknowledge(offset: number): void {
    if (offset > this.end) return;
    while (this.acknowledged < offset) {
      const first = this.kept[0]!;
      const part = first.bytes.subarray(0, offset - this.acknowledged);
      first.bytes = first.bytes.subarray(part.length);
      if (!first.bytes.length) this.kept.shift();
      this.acknowledged += part.length;
      first.channel?.onSent(part);
    }
    this.next = Math.max(this.next, offset);
  }

  /** So many bytes from there on, or what there is. */
  private slice(from: number, size: number): Bytes[] {
    const parts: Bytes[] = [];
    let at = this.acknowledged;
    for (const { bytes } of this.kept) {
      if (at + bytes.length > from && at < from + size) {
        parts.push(bytes.subarray(Math.max(0, from - at), from + size - at)); // as far as it goes
      }
      at += bytes.length;
    }
    return parts;
  }

  /** Make records of what waits: so many bytes, or a little more. */
  private fill(limit: number): void {
    const { ready } = this;
    const end = this.end + limit;
    for (const record of this.controls.splice(0)) this.keep(record);
    while (ready.length && this.end < end) {
      const channel = ready.shift()!;
      if (!channel.isReady) continue;
      const [head, payload] = channel.makeRecord(ready.length ? TURN : end - this.end);
      this.keep(head);
      this.keep(payload, channel);
      if (channel.isReady) ready.push(channel);
      this.session.forgetIfOver(channel);
    }
  }

  private keep(bytes: Bytes, channel?: Channel): void {
    this.kept.push({ bytes, channel });
    this.end += bytes.length;
  }
}
