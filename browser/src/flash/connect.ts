/** A WebSocket above a socket of Flash Player's: the handshake, then the shared framing. */

import { encodeText, join } from "../data.ts";
import type { Bytes } from "../engine.ts";
import { FramedLink, type Pipe } from "../framed.ts";
import type { Connect, LinkEvents } from "../link.ts";
import { AnswerReader, type Place, placeOf, request } from "./handshake.ts";
import * as player from "./player.ts";
import { base64 } from "./sha1.ts";

const OPEN_TIMEOUT = 60_000; // ms to the server's answer
const GOING_AWAY = 1001;
const LINGER = 1000; // ms in which the server is to end the connection itself

/** Those that are open, which are told when the page goes. */
const open: FramedLink[] = [];

export const connect: Connect = (url, protocols, events) => {
  const pipe = new FlashPipe(placeOf(url), protocols, events);
  return (pipe.link = new FramedLink(pipe, events));
};

class FlashPipe implements Pipe, player.SocketEvents {
  readonly carrier = "flash";
  link!: FramedLink;
  private readonly id: number;
  private readonly key = base64(randomBytes(16));
  private readonly answer = new AnswerReader(this.key);
  private readonly timer: ReturnType<typeof setTimeout>;
  private isOpen = false;
  private written = 0; // bytes of frames
  private told = 0; // of those the framing knows to be sent

  constructor(
    private readonly place: Place,
    private readonly protocols: string[],
    private readonly events: LinkEvents,
  ) {
    this.timer = setTimeout(() => this.onEnd(), OPEN_TIMEOUT);
    this.id = player.open(place.host, place.port, place.secure, this);
  }

  // -- from the framing --------------------------------------------------------------------------

  write(head: Bytes, payload: Bytes): void {
    this.written += head.length + payload.length;
    const key = randomBytes(4);
    const masked = join([payload]);
    for (let i = 0; i < masked.length; i++) masked[i]! ^= key[i & 3]!;
    head[1]! |= 0x80;
    player.send(this.id, head, key, masked);
    setTimeout(() => {
      if (this.told < this.written) this.link.onSent((this.told = this.written));
    }, 0);
  }

  end(): void {
    clearTimeout(this.timer);
    const index = open.indexOf(this.link);
    if (index >= 0) open.splice(index, 1);
    // Not at once: what was written last, the close frame, might be thrown away.
    if (this.isOpen) setTimeout(() => player.close(this.id), LINGER);
    else player.close(this.id);
  }

  // -- from the player ---------------------------------------------------------------------------

  onConnect(): void {
    const { key, place, protocols } = this;
    player.send(this.id, encodeText(request(place, protocols, { key, origin: originOf(), cookie: cookieFor(place) })));
  }

  onData(chunk: Bytes): void {
    if (this.isOpen) {
      this.link.onData(chunk);
      return;
    }
    const accepted = this.answer.push(chunk);
    if (accepted === null) this.onEnd();
    else if (accepted) {
      clearTimeout(this.timer);
      this.isOpen = true;
      open.push(this.link);
      this.events.onOpen(accepted.protocol);
      if (accepted.rest.length) this.link.onData(accepted.rest);
    }
  }

  onEnd(): void {
    this.link.onEnd(!this.isOpen);
  }
}

function originOf(): string {
  return location.protocol === "file:" ? "null" : `${location.protocol}//${location.host}`;
}

/** Of the host that the page came from; HttpOnly ones, which no script sees, are not among them. */
function cookieFor({ host }: Place): string {
  return host.toLowerCase() === location.hostname.replace(/^\[|\]$/g, "") ? document.cookie : "";
}

function randomBytes(size: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(size));
}

/** As a browser does that closes a page. */
function sayGoodbye(): void {
  for (const link of open.slice()) link.close(GOING_AWAY, "");
}

addEventListener("unload", sayGoodbye);
