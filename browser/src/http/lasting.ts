/**
 * `plainsocket-upload.mjs`: up requests that last, each written as the bytes arise (a streaming
 * upload). `uploads.ts` fetches it where they may work.
 *
 * Built apart from the file that fetches it, whose names are shortened otherwise: only functions go
 * between the two.
 */

import { join, number, sizeOf } from "../data.ts";
import type { Bytes } from "../engine.ts";
import { Timer } from "./request.ts";
import { ACK, record, UP, UP_HEAD } from "./wire.ts";

const ANSWER = 3000; // ms until an acknowledgement; and what the bytes take at
const RATE = 16; // bytes a ms
const LONGEST = 20_000; // ms that one lasts
const IDLE = 10_000; // ms that one lasts after its last bytes
const LARGEST = 1_000_000; // bytes: proxies that were told nothing take a mebibyte; one that fails
const LEAST = 1 << 16; // has the next be half as large, but not below this
const FAILURES = 3; // in a row, after which there are no more
const TELL_SIZE = 1 << 16; // bytes received after which they are acknowledged, or
const TELL_TIME = 500; // ms

/** Bytes that were written and are not acknowledged. */
interface Piece {
  end: number; // offset
  resolve(response: Response): void;
  reject(): void;
}

class Upload {
  isAcknowledged = false;
  private controller!: ReadableStreamDefaultController<Bytes>;
  private pieces: Piece[] = [];
  private readonly began = performance.now();
  size = 0; // bytes written
  private hasEnded = false;
  private isOver = false;
  private readonly request = new AbortController();
  private readonly ending = new Timer(() => this.end());
  private readonly late = new Timer(() => this.fail());

  constructor(
    url: string,
    head: Bytes,
    /** The offset of what is written next. */
    public next: number,
    private readonly onOver: (isGood: boolean) => void,
  ) {
    const body = new ReadableStream<Bytes>({
      start: (controller) => {
        this.controller = controller;
      },
      cancel: () => this.fail(),
    });
    this.controller.enqueue(head);
    this.late.set(ANSWER);
    this.lastAWhile();
    const options = {
      method: "POST",
      headers: { "Content-Type": "text/plain; plainsocket=1" },
      body,
      duplex: "half",
      cache: "no-store",
      credentials: "include",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: this.request.signal,
    };
    fetch(url, options as RequestInit).then(
      (response) => this.settle(response),
      () => this.fail(),
    );
  }

  /** Whether so many bytes more may be written. */
  hasRoom(size: number, largest: number): boolean {
    return !this.hasEnded && this.size + size <= largest;
  }

  /** Resolves with an answer as that to a request with these bytes. */
  write(chunk: Bytes, signal: AbortSignal): Promise<Response> {
    this.next += chunk.length;
    this.size += chunk.length;
    this.controller.enqueue(chunk);
    this.lastAWhile();
    if (!this.pieces.length) this.expect(chunk.length);
    signal.addEventListener("abort", () => this.fail());
    return new Promise((resolve, reject) => this.pieces.push({ end: this.next, resolve, reject }));
  }

  private lastAWhile(): void {
    this.ending.set(Math.min(IDLE, LONGEST - (performance.now() - this.began)));
  }

  private expect(size: number): void {
    this.late.set(ANSWER + size / RATE);
  }

  /** No more is written; the answer comes when the server has all. */
  end(): void {
    this.ending.clear();
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.controller.close();
    if (!this.pieces.length) this.expect(0);
  }

  acknowledge(offset: number): void {
    const { pieces } = this;
    this.isAcknowledged = true;
    while (pieces.length && pieces[0]!.end <= offset) {
      pieces.shift()!.resolve(new Response(null, { status: 204, headers: { Plainsocket: `${offset} 0` } }));
    }
    if (pieces.length) this.expect(pieces[pieces.length - 1]!.end - offset);
    else if (!this.hasEnded) this.late.clear();
  }

  /** An answer before the end is a proxy's, or a refusal. */
  private settle(response: Response): void {
    const isGood = response.status === 204 ? this.hasEnded : this.isUnused;
    if (isGood || response.status !== 204) this.pieces.splice(0).forEach(({ resolve }) => resolve(response));
    this.finish(isGood);
  }

  private fail(): void {
    this.finish(this.isUnused);
  }

  /** Cut while it has nothing to do, it has not failed. */
  private get isUnused(): boolean {
    return this.isAcknowledged && !this.pieces.length;
  }

  private finish(isGood: boolean): void {
    if (this.isOver) return;
    this.isOver = this.hasEnded = true;
    this.ending.clear();
    this.late.clear();
    this.request.abort();
    this.onOver(isGood);
    this.pieces.forEach(({ reject }) => reject());
  }
}

type Send = (from: number, body: Bytes[], signal: AbortSignal) => Promise<Response> | undefined;

/**
 * What sends by such uploads as soon as one was acknowledged; and what is told of acknowledgements.
 *
 * `largestBody` is that of a request, in bytes. `received` is how far the down stream has come, and
 * `acknowledge` the same where it is about to be told. `control` sends a record. Where the down
 * stream does not stream, acknowledgements would be slow.
 */
export default function start(
  url: string,
  token: Bytes,
  largestBody: number,
  received: () => number,
  acknowledge: () => number,
  control: (record: Bytes) => void,
  streams: () => boolean,
): [Send, (offset: number) => void] {
  let largest = Math.min(largestBody - UP_HEAD - token.length, LARGEST);
  const uploads = new Set<Upload>();
  let current: Upload | undefined;
  let isTrusted = false; // by an acknowledgement
  let wasTrusted = false;
  let failures = 0;
  let told = 0;
  let toldAt = 0;

  const begin = (from: number): Upload => {
    const head = join([number(UP, 1), token, number(acknowledge(), 8), number(from, 8)]);
    const upload = new Upload(url, head, from, (isGood) => {
      uploads.delete(upload);
      if (current === upload) current = undefined;
      if (isGood) {
        if (upload.size) failures = 0;
      } else {
        // A way that has never let one through is not asked again.
        failures += wasTrusted ? 1 : FAILURES;
        isTrusted = false;
        if (upload.size > LEAST) largest = Math.max(LEAST, upload.size / 2);
      }
    });
    uploads.add(upload);
    return upload;
  };

  /** Nothing else acknowledges the down stream while messages go up all the time. */
  const tell = (): void => {
    const news = received() - told;
    const now = performance.now();
    if (news > TELL_SIZE || (news > 0 && now - toldAt > TELL_TIME)) {
      told = acknowledge();
      toldAt = now;
      control(record(ACK, 0, number(told, 8)));
    }
  };

  const send: Send = (from, body, signal) => {
    const size = sizeOf(body);
    if (!size || size > largest) return undefined;
    const isWanted = failures < FAILURES && streams();
    const hasRoom = current && current.next === from && current.hasRoom(size, largest);
    if (!isWanted || (isTrusted && !hasRoom)) {
      current?.end();
      current = undefined;
    }
    if (!isWanted) return undefined;
    current ??= begin(from);
    if (!isTrusted) return undefined; // that is being found out
    tell();
    return current.write(join(body), signal);
  };

  return [
    send,
    (offset) => {
      if (uploads.size && failures < FAILURES) isTrusted = wasTrusted = true;
      uploads.forEach((upload) => upload.acknowledge(offset));
    },
  ];
}
