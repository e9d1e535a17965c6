/** Opening: by which session a channel goes, and the request that opens it. */

import { encodeText, number, readNumber } from "../data.ts";
import type { Bytes } from "../engine.ts";
import type { Connect } from "../link.ts";
import { Channel, WINDOW } from "./channel.ts";
import { POLL, POLL_SECONDS, STREAM, STREAM_SECONDS } from "./downstream.ts";
import { watch } from "./page.ts";
import { type BodyReader, post, readerOf, readHead } from "./request.ts";
import { Session, type Terms } from "./session.ts";
import { counted, OPEN } from "./wire.ts";

const MAX_OPENS = 4; // under way at a time to one host, once it has a session
const ANSWER = 3000; // ms after which a stream seems to be held back
const GIVE_UP = 60_000; // ms for the whole

/** The page's sessions, and what waits for one, by scheme, host and port. */
class Host {
  session: Session | undefined;
  /** That are under way. */
  private opens = 0;
  private readonly waiting: Channel[] = [];

  open(channel: Channel): void {
    this.waiting.push(channel);
    this.next();
  }

  private next(): void {
    // The first one alone: the others wait for its session.
    while (this.waiting.length && this.opens < (this.session ? MAX_OPENS : 1)) {
      const channel = this.waiting.shift()!;
      if (channel.isDone) continue;
      const offered = this.session;
      this.opens++;
      channel.opening = open(this, channel, offered).then((opened) => {
        channel.opening = undefined;
        if (!opened) {
          offered?.remove(channel);
          channel.fail(true);
        }
        this.opens--;
        this.next();
      });
    }
  }
}

const hosts = new Map<string, Host>();

export const connect: Connect = (url, protocols, events) => {
  const channel = new Channel(url.replace(/^ws/, "http"), protocols, events);
  const origin = new URL(channel.url).origin;
  let host = hosts.get(origin);
  if (!host) hosts.set(origin, (host = new Host()));
  host.open(channel);
  return channel.link;
};

/** Open a channel; resolves when that is settled, to whether it has a session. */
async function open(host: Host, channel: Channel, offered: Session | undefined): Promise<boolean> {
  const nonce = crypto.getRandomValues(new Uint8Array(16));
  const id = offered?.newNumber() ?? 1;
  const requests: AbortController[] = [];
  let isSettled = false;
  // Before the answer: what it opens may come by the stream first.
  offered?.add(channel, id);

  const attempt = async (mode: number): Promise<boolean> => {
    const request = new AbortController();
    requests.push(request);
    const body = [
      number(OPEN, 1),
      offered?.terms.token ?? number(0, 1),
      nonce,
      number(id, 4),
      number(mode, 1),
      number(mode ? POLL_SECONDS : STREAM_SECONDS, 1),
      number(WINDOW, 4),
      counted(encodeText(channel.protocols.join(", ")), 2),
      number(0, 2),
    ];
    const response = await post(channel.url, body, request.signal);
    if (response.status === 204 && offered && response.headers.has("Plainsocket")) {
      offered.heard();
      return !offered.isOver;
    }
    if (response.status !== 200) return false;
    const reader = readerOf(response.body!);
    const made = await readTerms(reader);
    if (!made || isSettled) return isSettled;
    isSettled = true;
    requests.forEach((other) => other === request || other.abort());
    // Where two attempts were needed, streams are held back, whichever was answered first.
    const held = requests.length > 1 ? POLL : STREAM;
    begin(host, channel, id, made.terms, offered).down.start(made.rest, reader, held, request);
    return true;
  };

  let timer: ReturnType<typeof setTimeout> | undefined;
  const polled = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(attempt(POLL)), ANSWER);
  });
  const given = setTimeout(() => requests.forEach((request) => request.abort()), GIVE_UP);
  try {
    return await Promise.race([attempt(STREAM), polled]);
  } catch {
    return isSettled; // then it is only the other attempt that was called off
  } finally {
    clearTimeout(timer);
    clearTimeout(given);
  }
}

function begin(host: Host, channel: Channel, id: number, terms: Terms, offered: Session | undefined): Session {
  // Without the channel's END: the session that was offered does not have it.
  offered?.release(channel);
  const url = channel.url.replace(/\?.*/, "");
  const session = new Session(url, terms, () => {
    if (host.session === session) host.session = undefined;
    unwatch();
  });
  const unwatch = watch(session);
  host.session = session;
  session.add(channel, id);
  return session;
}

/** The beginning of the answer that makes a session; and what has come behind it. */
async function readTerms(body: BodyReader): Promise<{ terms: Terms; rest: Bytes } | undefined> {
  const head = await readHead(body, (head) => 2 + (head[1] ?? 0) + 21);
  if (head[0] !== OPEN) return undefined;
  const at = 2 + head[1]!;
  return {
    terms: {
      token: head.slice(1, at),
      heartbeat: readNumber(head, at, 4),
      reach: readNumber(head, at + 4, 4),
      largestBody: readNumber(head, at + 8, 4),
      flags: head[at + 12]!,
    },
    rest: head.subarray(at + 21),
  };
}
