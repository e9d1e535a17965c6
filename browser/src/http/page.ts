/** What happens to the page or worker, as far as its sessions want to know. */

import type { Session } from "./session.ts";

const sessions = new Set<Session>();
let isListening = false;

/** Tell a session from now on; returns how to end that. */
export function watch(session: Session): () => void {
  sessions.add(session);
  if (!isListening) listen();
  return () => sessions.delete(session);
}

function listen(): void {
  isListening = true;
  const wake = (changed: boolean) => sessions.forEach((session) => session.wake(changed));
  // Of a network that has gone, no request gets an answer.
  addEventListener("online", () => wake(true));
  addEventListener("pageshow", () => wake(false));
  (navigator as { connection?: EventTarget }).connection?.addEventListener("change", () => wake(false));
  addEventListener("pagehide", () => sessions.forEach((session) => session.leave()));
  const page = self.document as Document | undefined; // of a worker there is none
  page?.addEventListener("visibilitychange", () => page.hidden || wake(false));
}
