/**
 * Finding out whether a native WebSocket gets through to a URL: by a real one, of a subprotocol that
 * the server answers before any handler; and, where that fails, whether HTTP does at that moment.
 */

import { encodeText, number } from "../data.ts";
import { post } from "../http/request.ts";
import { counted, OPEN } from "../http/wire.ts";

export const PROBE = "plainsocket.probe";

export const WORKS = 0;
/** It does not, and HTTP does. */
export const FAILS = 1;
/** Neither does: the network is gone, or the server. */
export const UNKNOWN = 2;

const LEAST = 1000; // ms that a probe has, in any case, before HTTP is asked, and
const LEAST_BEHIND = 1500; // ms after that
const ROUND_TRIPS = 5; // those of a new connection, and some more
const YOUNG = 1500; // ms after which it is not cut any more
const HTTP_TIME = 10_000; // ms

class Probe {
  /** Whether an echo came. */
  readonly echoed: Promise<boolean>;
  /** It has been cut. */
  readonly wasCut: Promise<boolean>;
  private readonly socket: WebSocket;

  constructor(native: typeof WebSocket, url: string) {
    const socket = (this.socket = new native(url, PROBE));
    this.echoed = new Promise((resolve) => {
      socket.onmessage = () => resolve(true);
      socket.addEventListener("close", () => resolve(false));
    });
    this.wasCut = new Promise((resolve) => {
      socket.addEventListener("close", ({ wasClean }) => resolve(!wasClean));
    });
    socket.onopen = () => socket.send("?");
  }

  close(): void {
    this.socket.close();
  }
}

/** What a promise says within so many ms; otherwise false. */
function within(ms: number, said: Promise<boolean>): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  return Promise.race([said, late]).finally(() => clearTimeout(timer));
}

/** The page's own round trip: what the first probe is measured by. */
function roundTrip(): number {
  const [page] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
  return page ? page.responseStart - page.requestStart : 0;
}

/** How many ms the server takes to answer by HTTP; undefined if it does not. */
async function askByHTTP(url: string): Promise<number | undefined> {
  const began = performance.now();
  const request = new AbortController();
  const timer = setTimeout(() => request.abort(), HTTP_TIME);
  // An open without a token: all zeros, but for the channel's number and the seconds.
  const head = new Uint8Array(28);
  head[0] = OPEN;
  head[21] = head[23] = 1;
  try {
    const body = [head, counted(encodeText(PROBE), 2), number(0, 2)];
    const response = await post(url.replace(/^ws/, "http"), body, request.signal);
    const isServers = response.status === 204 && response.headers.has("Plainsocket");
    return isServers ? performance.now() - began : undefined;
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Try once. `choose` is told, before it is all over, by what a socket that waits shall connect.
 */
export async function attempt(native: typeof WebSocket, url: string, choose: (isBlocked: boolean) => void): Promise<number> {
  const probe = new Probe(native, url);
  try {
    if (!(await within(Math.max(LEAST, ROUND_TRIPS * roundTrip()), probe.echoed))) {
      const late = new Promise<number>((resolve) => void probe.echoed.then((echoed) => echoed && resolve(0)));
      const took = await Promise.race([late, askByHTTP(url)]);
      if (took === undefined) return UNKNOWN;
      if (!(await within(Math.max(LEAST_BEHIND, ROUND_TRIPS * took), probe.echoed))) return FAILS;
    }
    choose(false);
    if (!(await within(YOUNG, probe.wasCut))) return WORKS;
    return (await askByHTTP(url)) === undefined ? UNKNOWN : FAILS;
  } finally {
    probe.close();
  }
}
