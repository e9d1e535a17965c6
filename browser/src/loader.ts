/**
 * `plainsocket.js`: where the page has a WebSocket of its own, and is not told otherwise, nothing.
 * Otherwise `window.WebSocket` is ours from now on, and the carrier's file is on its way: sockets
 * that are made meanwhile wait for it.
 *
 * Built as ES5, so that an engine which lacks WebSocket can read it.
 */

import type { Address } from "./arguments.ts";
import { makeConstructor, type Start, STATES } from "./constructor.ts";
import { domException } from "./engine.ts";

/** What the loader and a carrier's file have between them, as `self.plainsocket`. */
export interface Plainsocket {
  /** Which carrier bears a connection. */
  carrierOf(socket: object): string;
  /** The engine's own, if it has one. */
  native?: typeof WebSocket;
  /** Called by the carrier's file: complete the constructor, and attach each object. */
  adopt(defineMembers: (constructor: typeof WebSocket) => void, attach: Start): void;
}

type Values = Record<string, unknown>;
type Waiting = EventTarget & Values;

declare function importScripts(url: string): void;
declare const self: { WebSocket?: typeof WebSocket; plainsocket?: Plainsocket; document?: Document };

const page = self.document;
const hasStreams = "ReadableStream" in self;
// In an engine that does not tell, the last script so far is the one that runs.
const script = page && ((hasStreams ? page.currentScript : page.scripts[page.scripts.length - 1]) as HTMLScriptElement | null);
// A worker is told nowhere where its script comes from, but in a stack.
const here = script ? script.src : (/http[^\s()]*plainsocket\.js[^\s():]*/.exec(new Error().stack!) || [""])[0]!;
const asked = (script && script.getAttribute("data-carrier")) || (/[?&]carrier=(\w+)/.exec(here) || [])[1];

// The carrier to take: "native" is the engine's own.
const picked = asked || (self.WebSocket ? "native" : hasStreams ? "http" : "flash");

const file = here.replace(/[^/]*$/, "plainsocket-" + picked + ".js");

function replace(): void {
  let isLoading = false;
  let waiting: [Waiting, Address][] = [];
  let attach: Start = (target, address) => {
    waiting.push([target as Waiting, address]);
    (target as Waiting)["url"] = address.url;
    load();
  };
  const constructor = makeConstructor((target, address) => attach(target, address)) as typeof WebSocket & Values;

  // As long as they wait they have plain values, of the prototype or their own.
  const prototype = constructor.prototype as unknown as Waiting;
  const values: Values = {
    url: "",
    readyState: 0,
    bufferedAmount: 0,
    extensions: "",
    protocol: "",
    binaryType: "blob",
    onopen: null,
    onmessage: null,
    onerror: null,
    onclose: null,
    send() {
      throw domException("bad state", "InvalidStateError");
    },
    close(this: Waiting, code?: number) {
      if (code !== undefined && code !== 1000 && !(code >= 3000 && code < 5000)) {
        throw domException("bad code", "InvalidAccessError");
      }
      this["readyState"] = 2;
    },
  };
  for (const name in values) prototype[name] = values[name];
  STATES.forEach((name, number) => {
    constructor[name] = prototype[name] = number;
  });

  function load(): void {
    if (isLoading) return;
    isLoading = true;
    if (page) {
      const element = page.createElement("script");
      element.src = file;
      if (script) element.nonce = script.nonce!;
      element.onerror = onError;
      page.head.appendChild(element);
    } else {
      importScripts(file);
    }
  }

  /** The file did not come. The next socket tries again. */
  function onError(): void {
    isLoading = false;
    waiting.splice(0).forEach(([socket]) => {
      socket["readyState"] = 3;
      [new Event("error"), new CloseEvent("close", { code: 1006 })].forEach((event) => {
        socket.addEventListener(event.type, socket["on" + event.type] as EventListener | null);
        socket.dispatchEvent(event);
      });
    });
  }

  self.plainsocket = {
    native: self.WebSocket!,
    carrierOf: () => picked,
    adopt(defineMembers, attachNow) {
      attach = attachNow;
      defineMembers(constructor);
      waiting.forEach(([socket, address]) => {
        const own: Values = Object.assign({}, socket);
        for (const name in values) delete socket[name];
        attach(socket, address);
        for (const name in own) if (/^on|Type/.test(name)) socket[name] = own[name];
        if (own["readyState"]) (socket["close"] as () => void)();
      });
    },
  };
  Object.defineProperty(self, "WebSocket", { value: constructor, writable: true, configurable: true });
  load();
}

if (picked !== "native") {
  if (hasStreams) replace();
  // An engine that lacks what our objects are made of: the file brings it along, and no script
  // behind this one runs before that is there.
  else page!.write("<script src=" + file + "></script>");
}
