/** What is known of native WebSockets, by scheme, host and port; for all tabs that can share it. */

const PREFIX = "plainsocket.guard ";
const HALF_HOUR = 1_800_000; // ms

export interface Verdict {
  isBlocked: boolean;
  age: number; // ms
}

/** Where the page has no storage. */
let own: Record<string, string> = {};

function storage(): Record<string, string> {
  try {
    return localStorage as unknown as Record<string, string>;
  } catch {
    return own; // a worker, or a page that may not
  }
}

export function remember(host: string, isBlocked: boolean): void {
  try {
    storage()[PREFIX + host] = `${+isBlocked} ${Date.now()}`;
  } catch {
    // full
  }
}

export function recall(host: string): Verdict | undefined {
  const [isBlocked, at] = (storage()[PREFIX + host] ?? "").split(" ").map(Number);
  const age = Date.now() - at!;
  return age >= 0 && age < HALF_HOUR ? { isBlocked: !!isBlocked, age } : undefined;
}

/** The network is another one. */
export function forget(): void {
  const all = storage();
  for (const name of Object.keys(all)) if (name.startsWith(PREFIX)) delete all[name];
}
