/**
 * The function `WebSocket`: what the loader needs of it before the rest is there. It is a function,
 * because the loader is ES5, where no class can extend the engine's EventTarget.
 */

import { type Address, readArguments } from "./arguments.ts";
import { createTarget } from "./engine.ts";

/** Take a new object of the page's; called once for each. */
export type Start = (target: EventTarget, address: Address) => void;

export const STATES = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"];

export function makeConstructor(start: Start): typeof WebSocket {
  function Constructor(this: unknown): EventTarget {
    if (!new.target) throw new TypeError("no new");
    const address = readArguments(arguments);
    const target = createTarget(Object.getPrototypeOf(this));
    start(target, address);
    return target;
  }
  Object.setPrototypeOf(Constructor.prototype, EventTarget.prototype);
  return Constructor as unknown as typeof WebSocket;
}
