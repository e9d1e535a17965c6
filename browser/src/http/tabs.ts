/**
 * The pages of one origin, which share the browser's six connections to a host (HTTP/1.1): a few
 * stream, those that are seen first; the others give way and poll now and then.
 */

import { POLL_SECONDS } from "./downstream.ts";
import { follow, type Session } from "./session.ts";

const STREAMS = 3;
const HIDDEN = 1e14; // behind all that are seen
const WORD_TIME = 1000; // ms between two words of one
const GONE = 60_000; // ms after which one that streams and says nothing has crashed, if none knows

const page = typeof document === "undefined" ? undefined : document; // of a worker there is none

/** What pages tell each other. */
interface Word {
  id: number;
  /** The lowest stream. */
  rank: number;
  isNew: boolean;
  hasLeft: boolean;
}

class Tab {
  /** The older, the lower. */
  private readonly id = Date.now() + Math.random();
  private readonly others = new Map<number, { rank: number; at: number }>();
  private readonly channel: BroadcastChannel;
  private isAway = false;
  private saidAt = 0;
  private readonly over = new AbortController();

  constructor(
    private readonly session: Session,
    origin: string,
  ) {
    this.channel = new BroadcastChannel(`plainsocket ${origin}`);
    this.channel.onmessage = ({ data }) => this.onWord(data as Word);
    page?.addEventListener("visibilitychange", this.onVisibility);
    // Held as long as it lives: nothing that a page does at its end is sure to be done.
    this.lock(this.id, () => new Promise((resolve) => this.over.signal.addEventListener("abort", resolve)));
    this.say(true);
  }

  /** Run `held` with the lock of a tab; there are none where the page is not secure. */
  private lock(id: number, held: () => unknown): void {
    const locks = navigator.locks as LockManager | undefined;
    locks?.request(`plainsocket ${id}`, { signal: this.over.signal }, held).catch(() => {});
  }

  private get rank(): number {
    return this.id + (page?.hidden ? HIDDEN : 0);
  }

  private readonly onVisibility = (): void => {
    this.say();
    this.decide();
  };

  /** Its session is over. */
  leave(): void {
    page?.removeEventListener("visibilitychange", this.onVisibility);
    this.say(false, true);
    this.over.abort();
    this.channel.close();
  }

  private say(isNew = false, hasLeft = false): void {
    this.saidAt = performance.now();
    const word: Word = { id: this.id, rank: this.rank, isNew, hasLeft };
    this.channel.postMessage(word);
  }

  private onWord({ id, rank, isNew, hasLeft }: Word): void {
    if (!this.others.has(id) && !hasLeft) this.lock(id, () => this.forget(id));
    this.others.set(id, { rank, at: performance.now() });
    if (hasLeft) this.forget(id);
    if (isNew) this.say();
    this.decide();
    this.poll(); // the timers of a hidden page may be slowed down to once a minute
  }

  private forget(id: number): void {
    this.others.delete(id);
    this.decide();
  }

  /** Something has come from the server, which those that stream hear often enough. */
  onHeard(): void {
    if (this.isAway) this.poll();
    else if (performance.now() - this.saidAt > WORD_TIME) this.say();
    this.decide();
  }

  private poll(): void {
    const { down } = this.session;
    if (!down.pollSeconds && down.retrying.isSet) down.retrying.fire();
  }

  private decide(): void {
    let before = 0;
    this.others.forEach(({ rank, at }, id) => {
      if (performance.now() - at > GONE) this.others.delete(id);
      else if (rank < this.rank) before++;
    });
    const isAway = before >= STREAMS;
    if (isAway === this.isAway) return;
    this.isAway = isAway;
    const { down } = this.session;
    down.pollSeconds = isAway ? 0 : POLL_SECONDS;
    if (isAway) down.current?.abort(); // others need its connection
    down.ask();
  }
}

/** The protocols that a host has been spoken to by, as far as the browser tells. */
export function protocols(origin: string): string {
  const entries = performance.getEntries() as PerformanceResourceTiming[];
  return entries.map(({ name, nextHopProtocol }) => (name.startsWith(origin) ? nextHopProtocol : "")).join(" ");
}

/** Whether, by these, connections to it carry many requests at a time. */
export function isMultiplexed(protocols: string): boolean {
  return /h[23]/.test(protocols);
}

const tabs = new WeakMap<Session, Tab | undefined>();

function onSession(session: Session): void {
  if (session.isOver) {
    tabs.get(session)?.leave();
    tabs.delete(session);
  } else if (tabs.has(session)) {
    tabs.get(session)?.onHeard();
  } else {
    const { origin } = new URL(session.url);
    tabs.set(session, isMultiplexed(protocols(origin)) ? undefined : new Tab(session, origin));
  }
}

/** Have the sessions of this page give way to those of others. */
export function shareConnections(): void {
  if (typeof BroadcastChannel !== "undefined") follow(onSession);
}
