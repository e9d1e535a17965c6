/**
 * A WebSocket that is the engine's own where that gets through to the server, and goes by HTTP
 * where something blocks it.
 */

import { readArguments } from "../arguments.ts";
import { createTarget } from "../engine.ts";
import { connect as connectByHTTP } from "../http/open.ts";
import { attach, defineMembers } from "../interface.ts";
import type { Connect, Link } from "../link.ts";
import { Socket } from "../socket.ts";
import { connectBy } from "./native.ts";
import { attempt, FAILS, UNKNOWN } from "./probe.ts";
import { forget, recall, remember, type Verdict } from "./verdicts.ts";

const AGAIN = 300_000; // ms after which a host that blocks is probed again

/** What is being found out, by host: whether a socket that waits shall go by HTTP. */
const findings = new Map<string, Promise<boolean>>();
let network = 0; // changes with it
let isListening = false;

/** What is remembered, from now on as long as the network stays the same. */
function known(host: string): Verdict | undefined {
  if (!isListening) listen();
  return recall(host);
}

function listen(): void {
  isListening = true;
  const changed = (): void => {
    network++;
    findings.clear();
    forget();
  };
  addEventListener("online", changed);
  (navigator as { connection?: EventTarget }).connection?.addEventListener("change", changed);
}

/** Begin to find out; a second failure makes it sure, so that a server's restart is none. */
async function findOut(native: typeof WebSocket, host: string, url: string): Promise<void> {
  const here = network;
  const run = (): Promise<number> => {
    let choose!: (isBlocked: boolean) => void;
    if (here === network) findings.set(host, new Promise((resolve) => (choose = resolve)));
    else choose = () => {};
    return attempt(native, url, choose).then((outcome) => {
      choose(outcome === FAILS);
      return outcome;
    });
  };
  let outcome = await run();
  if (outcome === FAILS) {
    // Meanwhile sockets go by what is known.
    const sure = run();
    if (here === network) findings.set(host, Promise.resolve(true));
    outcome = await sure;
  }
  if (here !== network) return;
  findings.delete(host);
  if (outcome !== UNKNOWN) remember(host, outcome === FAILS);
}

/** Whether a native WebSocket to this URL is blocked, as far as is known. */
function isBlocked(native: typeof WebSocket, url: string): boolean | Promise<boolean> {
  const host = new URL(url).origin;
  const verdict = known(host);
  const isFinding = findings.has(host);
  if (!isFinding && (!verdict || (verdict.isBlocked && verdict.age > AGAIN))) void findOut(native, host, url);
  return verdict ? verdict.isBlocked : findings.get(host)!;
}

/** Connects once it is known by what. */
function connectLater(choice: Promise<boolean>, byNative: Connect): Connect {
  return (url, protocols, events) => {
    let link: Link | undefined;
    let isAborted = false;
    void choice.then((blocked) => {
      if (!isAborted) link = (blocked ? connectByHTTP : byNative)(url, protocols, events);
    });
    return {
      get carrier() {
        return link ? link.carrier : "native";
      },
      // Neither is called before it is open.
      send: (isText, payload) => link!.send(isText, payload),
      close: (code, reason) => link!.close(code, reason),
      abort() {
        isAborted = true;
        link?.abort();
      },
    };
  };
}

/** Gives our objects the way that they connect. */
export function connectGuarded(native: typeof WebSocket): Connect {
  const byNative = connectBy(native);
  return (url, protocols, events) => {
    const blocked = isBlocked(native, url);
    const connect = blocked === true ? connectByHTTP : blocked === false ? byNative : connectLater(blocked, byNative);
    return connect(url, protocols, events);
  };
}

/** Members as of any object of ours, and an instance of the engine's class all the same. */
export function defineGuarded(native: typeof WebSocket, constructor: typeof WebSocket): void {
  defineMembers(constructor);
  Object.setPrototypeOf(constructor.prototype, native.prototype);
}

/** The constructor: its objects are the engine's own once that is known to work. */
export function makeGuarded(native: typeof WebSocket): typeof WebSocket {
  const connect = connectGuarded(native);
  function Guarded(this: unknown): EventTarget {
    if (!new.target) throw new TypeError("no new");
    const { url, protocols } = readArguments(arguments);
    if ((new.target as unknown) === Guarded && known(new URL(url).origin)?.isBlocked === false) return new native(url, protocols);
    const target = createTarget(Object.getPrototypeOf(this));
    attach(target, new Socket(target, url, protocols, connect));
    return target;
  }
  const constructor = Guarded as unknown as typeof WebSocket;
  defineGuarded(native, constructor);
  Object.defineProperty(constructor, Symbol.hasInstance, {
    value(this: unknown, object: unknown) {
      return this === constructor ? object instanceof native : Function.prototype[Symbol.hasInstance].call(this as () => void, object);
    },
  });
  return constructor;
}
