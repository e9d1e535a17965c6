/** One POST, in the way that is fastest and tells the least. */

import { join, sizeOf } from "../data.ts";
import type { Bytes } from "../engine.ts";

// `fetch` copies the body at once, and new memory costs more than that.
let space: Bytes = new Uint8Array(0);

/** Without a signal it may outlive the page. */
export function post(url: string, body: Bytes[], signal?: AbortSignal): Promise<Response> {
  const size = sizeOf(body);
  if (size > space.length) space = new Uint8Array(size);
  return fetch(url, {
    method: "POST",
    headers: { "Content-Type": "text/plain; plainsocket=1" },
    body: join(body, space.subarray(0, size)),
    cache: "no-store",
    credentials: "include",
    redirect: "error",
    referrerPolicy: "no-referrer",
    keepalive: !signal,
    signal: signal!,
  });
}

/** Reads a body into the memory it is given, in engines that can; in others that is ignored. */
export interface BodyReader {
  read(space: Bytes): Promise<ReadableStreamReadResult<Bytes>>;
}

export function readerOf(body: ReadableStream<Bytes>): BodyReader {
  try {
    return body.getReader({ mode: "byob" }) as unknown as BodyReader;
  } catch {
    return body.getReader() as unknown as BodyReader;
  }
}

/** The beginning of an answer, at least as long as `size` says by what there is; throws if it ends. */
export async function readHead(body: BodyReader, size: (head: Bytes) => number): Promise<Bytes> {
  let head: Bytes = new Uint8Array(0);
  while (head.length < size(head)) {
    const { value, done } = await body.read(new Uint8Array(1024));
    if (done) throw head;
    head = join([head, value]);
  }
  return head;
}

/** Statuses after which there is nothing to go on with. */
export function isFinal(status: number): boolean {
  return status === 400 || status === 403 || status === 410;
}

/** A timeout that can be called off, and ended early. */
export class Timer {
  private id: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly action: () => void) {}

  get isSet(): boolean {
    return this.id !== undefined;
  }

  /** Run the action after so many ms, and not when it was to run before. */
  set(ms: number): void {
    clearTimeout(this.id);
    this.id = setTimeout(() => this.fire(), ms);
  }

  clear(): void {
    clearTimeout(this.id);
    this.id = undefined;
  }

  fire(): void {
    this.clear();
    this.action();
  }
}

/** Pauses between attempts, in ms: none at first, then longer and longer, never all pages at once. */
export function pause(failures: number): number {
  return failures < 2 ? 0 : Math.min(5000, 50 * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
}
