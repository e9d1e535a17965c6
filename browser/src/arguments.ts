/**
 * The arguments of `new WebSocket(url, protocols)`, converted and checked in the standard's order.
 */

import { domException } from "./engine.ts";

export interface Address {
  readonly url: string;
  readonly protocols: string[];
}

const TOKEN = /^[!#$%&'*+\-.^_`|~\w]+$/;

/** As WebIDL does it: a symbol throws. */
const toText = (value: unknown): string => `${value}`;

/** Throws what the native constructor throws. */
export function readArguments(args: ArrayLike<unknown>): Address {
  if (!args.length) throw new TypeError("bad address");
  // Both conversions come before the first check: either may run code of the page.
  const given = toText(args[0]);
  const protocols = readProtocols(args[1]);
  const url = readURL(given);
  const seen: string[] = [];
  protocols.forEach((protocol) => {
    const name = protocol.toLowerCase();
    if (!TOKEN.test(name) || ~seen.indexOf(name)) {
      throw domException("bad protocol: " + protocol, "SyntaxError");
    }
    seen.push(name);
  });
  return { url, protocols };
}

function readURL(given: string): string {
  let url = "";
  try {
    url = new URL(given, self.document ? document.baseURI : location.href).href.replace(/^http/, "ws");
  } catch {
    // stays empty
  }
  const message = "bad address: " + given;
  if (!/^wss?:[^#]*$/.test(url)) throw domException(message, "SyntaxError");
  // By the origin, which frames without an address inherit. What stays on the machine is secure.
  if (/^https/.test(self.origin || location.href) && /^ws:..(?!(([^/]+\.)?localhost\.?|127[\d.]+|\[::1])[:/])/.test(url)) {
    throw domException(message, "SecurityError");
  }
  return url;
}

/** A name, some names, or an object that has them as `protocols`. */
function readProtocols(given: unknown): string[] {
  if (given === undefined) return [];
  if (Object(given) !== given) return [toText(given)];
  const names = given as Iterable<unknown> & { protocols: unknown };
  // An array first: an old engine has no symbols.
  return Array.isArray(names) || names[Symbol.iterator] ? Array.from(names, toText) : readProtocols(names.protocols);
}
