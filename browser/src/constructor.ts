/**
 * The function `WebSocket`: what the loader needs of it before the rest is there. It is written as
 * a function, because the loader is ES5, where no class can extend the engine's EventTarget.
 */

import { type Address, readArguments } from "./arguments.ts";
import { createTarget } from "./engine.ts";

/** Take a new object of the page's; called once for each. */
export type Start = (target: EventTarget, address: Address) => void;

const STATES = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"];

export function makeConstructor(start: Start): typeof WebSocket {
  function Constructor(this: unknown): EventTarget {
    if (!new.target) throw new TypeError("Please use the 'new' operator: WebSocket is a constructor.");
    const address = readArguments(arguments);
    const target = createTarget(Object.getPrototypeOf(this));
    start(target, address);
    return target;
  }
  const { defineProperty } = Object;
  const prototype = Object.create(EventTarget.prototype, {
    constructor: { value: Constructor, writable: true, configurable: true },
  });
  defineProperty(Constructor, "name", { value: "WebSocket" });
  defineProperty(Constructor, "length", { value: 1 });
  defineProperty(Constructor, "prototype", { value: prototype, writable: false });
  defineProperty(prototype, Symbol.toStringTag, { value: "WebSocket", configurable: true });
  STATES.forEach((name, value) => {
    defineProperty(Constructor, name, { value, enumerable: true });
    defineProperty(prototype, name, { value, enumerable: true });
  });
  Object.setPrototypeOf(Constructor, EventTarget);
  return Constructor as unknown as typeof WebSocket;
}
