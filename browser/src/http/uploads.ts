/**
 * Streaming uploads, which spare each message a request: asked for where the page's own server is
 * reached by HTTP/2 or HTTP/3 and reads requests as they come, and the browser has them.
 */

import { STREAM } from "./downstream.ts";
import { follow, type Session } from "./session.ts";
import { isMultiplexed, protocols } from "./tabs.ts";

const LOOK_TIME = 1000; // ms between two looks at what the browser tells of the way

/** When to look; Infinity when that is known. */
const looks = new WeakMap<Session, number>();

function onSession(session: Session): void {
  const { url, terms } = session;
  const now = performance.now();
  const at = looks.get(session);
  if (at === undefined) {
    // It is just being made. To another origin the browser would ask for leave first (CORS).
    const { origin } = location;
    looks.set(session, terms.flags && /^https/.test(url) && url.startsWith(`${origin}/`) ? now : Infinity);
  } else if (now >= at) {
    const known = protocols(location.origin);
    looks.set(session, /h/.test(known) ? Infinity : now + LOOK_TIME);
    if (isMultiplexed(known)) begin(session).catch(() => {}); // then without
  }
}

async function begin(session: Session): Promise<void> {
  const { url, terms, down } = session;
  let isAsked = false;
  const { headers } = new Request(url, {
    method: "POST",
    body: new ReadableStream(),
    get duplex() {
      isAsked = true;
      return "half";
    },
  } as RequestInit);
  // A browser that does not know of it takes the stream for text.
  if (!isAsked || headers.has("Content-Type")) return;
  const { default: start } = await import("./lasting.ts");
  const [send, acknowledge] = start(
    url,
    terms.token,
    terms.largestBody,
    () => down.received,
    () => session.acknowledgeDown(),
    (bytes) => session.control(bytes),
    () => down.mode === STREAM,
  );
  session.uploads = { send, acknowledge };
}

/** Have this page's sessions send up by requests that last, where they can. */
export function streamUploads(): void {
  follow(onSession);
}
