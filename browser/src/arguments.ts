/**
 * The arguments of `new WebSocket(url, protocols)`, converted and checked in the standard's order.
 */

import { domException } from "./engine.ts";

export interface Address {
  readonly url: string;
  readonly protocols: string[];
}

const TOKEN = /^[!#$%&'*+\-.^_`|~\w]+$/;

/** Throws what the native constructor throws. */
export function readArguments(args: ArrayLike<unknown>): Address {
  if (!args.length) throw new TypeError("WebSocket constructor: at least 1 argument required");
  // Both conversions come before the first check: either may run code of the page.
  const given = `${args[0]}`;
  const protocols = readProtocols(args[1]);
  const url = readURL(given);
  const seen: Record<string, true> = {};
  for (const protocol of protocols) {
    const key = `=${protocol.toLowerCase()}`;
    if (!TOKEN.test(protocol) || seen[key]) {
      throw domException(`WebSocket subprotocol '${protocol}' is invalid or given twice.`, "SyntaxError");
    }
    seen[key] = true;
  }
  return { url, protocols };
}

function readURL(given: string): string {
  let url: string;
  try {
    const base = typeof document === "undefined" ? location.href : document.baseURI;
    url = new URL(given, base).href.replace(/^http/, "ws");
  } catch {
    url = "";
  }
  if (!/^wss?:[^#]*$/.test(url)) {
    throw domException(`'${given}' is no address of a WebSocket.`, "SyntaxError");
  }
  if (location.protocol === "https:" && /^ws:/.test(url) && !isLoopback(url)) {
    throw domException("A page loaded over HTTPS may not open an insecure WebSocket.", "SecurityError");
  }
  return url;
}

/** What never leaves the machine counts as secure. */
function isLoopback(url: string): boolean {
  return /^ws:\/\/(127(\.\d+){3}|\[::1\]|([^/:]+\.)?localhost)[/:]/.test(url);
}

function readProtocols(given: unknown): string[] {
  if (given === undefined) return [];
  if (Object(given) === given) {
    const object = given as Iterable<unknown> & { protocols?: unknown };
    if (Array.isArray(object) || object[Symbol.iterator]) return Array.from(object, (protocol) => `${protocol}`);
  }
  return [`${given}`];
}
