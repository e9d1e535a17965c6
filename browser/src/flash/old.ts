/**
 * What engines of Flash's time lack. In this bundle alone, the build puts these in the place of the
 * globals of the same names: an engine's own wherever it has one that works, and the page's globals
 * are left as they are. Only what the shared modules use of each is here.
 */

const engine = window as any;

function works(test: () => unknown): boolean {
  try {
    test();
    return true;
  } catch {
    return false;
  }
}

// -- objects -------------------------------------------------------------------------------------

const { defineProperty: define, prototype: objects } = engine.Object;

/** Old engines let nobody change the name and the length of a function: then it has them wrong. */
export function $defineProperty(object: object, name: PropertyKey, descriptor: PropertyDescriptor): object {
  if (typeof object !== "function" || (name !== "name" && name !== "length")) return define(object, name, descriptor);
  works(() => define(object, name, descriptor));
  return object;
}

export const $setPrototypeOf: (object: any, prototype: object) => any =
  engine.Object.setPrototypeOf ||
  ((object, prototype) => {
    if ("__proto__" in objects) object.__proto__ = prototype;
    else if (typeof object === "object") return engine.Object.create(prototype); // it was a new one
    return object;
  });

const OldSymbol = { iterator: "@@iterator", toStringTag: "@@toStringTag" };
export const Symbol = engine.Symbol?.toStringTag ? engine.Symbol : OldSymbol;

let maps = 0;

class OldWeakMap {
  private readonly name = `@@plainsocket${++maps}`;

  get(key: any): unknown {
    return key[this.name];
  }

  set(key: any, value: unknown): void {
    define(key, this.name, { value, configurable: true });
  }

  delete(key: any): void {
    delete key[this.name];
  }
}
export const WeakMap = engine.WeakMap || OldWeakMap;

export function $arrayFrom<T>(list: ArrayLike<T>, map: (item: T) => unknown): unknown[] {
  if (engine.Array.from) return engine.Array.from(list, map);
  const made: unknown[] = [];
  for (let i = 0; i < list.length; i++) made.push(map(list[i]!));
  return made;
}

// -- bytes: an array of numbers, of which the low eight bits count ---------------------------------

function OldBytes(given: any): any {
  const bytes: any = [];
  const size = typeof given === "number" ? given : given.length;
  for (let i = 0; i < size; i++) bytes[i] = typeof given === "number" ? 0 : given[i] & 255;
  bytes.set = (from: ArrayLike<number>, at = 0) => {
    for (let i = 0; i < from.length; i++) bytes[at + i] = from[i]!;
  };
  const part = (start?: number, end?: number): any => OldBytes(Array.prototype.slice.call(bytes, start, end));
  bytes.slice = bytes.subarray = part;
  bytes.buffer = bytes;
  return bytes;
}

export const Uint8Array = engine.Uint8Array || OldBytes;

export function $isView(value: any): boolean {
  const buffers = engine.ArrayBuffer;
  return !!buffers && (buffers.isView ? buffers.isView(value) : value?.buffer instanceof buffers);
}

/** A mask is to be unguessable, where that can be had. */
const oldCrypto = {
  getRandomValues(bytes: any): any {
    for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(Math.random() * 256);
    return bytes;
  },
};
export const crypto = engine.Uint8Array && engine.crypto?.getRandomValues ? engine.crypto : oldCrypto;

/** Binary data of an engine without Blobs: the ArrayBuffer, or the array of numbers. */
export const Blob = works(() => new engine.Blob([])) ? engine.Blob : ([bytes]: any[]) => bytes.buffer;

// -- text: UTF-8 -----------------------------------------------------------------------------------

class OldEncoder {
  encode(text: string): unknown {
    const bytes: number[] = [];
    for (let i = 0; i < text.length; i++) {
      let code = text.charCodeAt(i);
      const next = text.charCodeAt(i + 1);
      if (code >= 0xd800 && code < 0xdc00 && next >= 0xdc00 && next < 0xe000) {
        code = 0x10000 + ((code & 0x3ff) << 10) + (next & 0x3ff);
        i++;
      } else if (code >= 0xd800 && code < 0xe000) code = 0xfffd;
      const more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
      bytes.push(more ? [0, 0xc0, 0xe0, 0xf0][more]! | (code >> (6 * more)) : code);
      for (let j = more - 1; j >= 0; j--) bytes.push(0x80 | ((code >> (6 * j)) & 63));
    }
    return new Uint8Array(bytes);
  }
}

class OldDecoder {
  decode(bytes: ArrayLike<number>): string {
    let text = "";
    let part: number[] = [];
    for (let i = 0; i < bytes.length; ) {
      const first = bytes[i++]!;
      const more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
      let code = more ? first & (0x3f >> more) : first;
      for (let j = 0; j < more; j++) {
        const byte = bytes[i++] ?? 0;
        if (byte >> 6 !== 2) throw new TypeError("not UTF-8");
        code = (code << 6) | (byte & 63);
      }
      const least = more ? [0x80, 0x800, 0x10000][more - 1]! : 0;
      if ((first >= 0x80 && first < 0xc0) || first > 0xf4 || code < least || code > 0x10ffff || code >> 11 === 27) {
        throw new TypeError("not UTF-8");
      }
      if (code < 0x10000) part.push(code);
      else part.push(0xd7c0 + (code >> 10), 0xdc00 | (code & 0x3ff));
      if (part.length > 8000) {
        text += String.fromCharCode.apply(null, part);
        part = [];
      }
    }
    return text + String.fromCharCode.apply(null, part);
  }
}

export const TextEncoder = engine.TextEncoder || OldEncoder;
// Some of the first ones did not keep a byte order mark when they were told to.
export const TextDecoder = engine.TextDecoder?.prototype.hasOwnProperty("ignoreBOM") ? engine.TextDecoder : OldDecoder;

// -- events ----------------------------------------------------------------------------------------

class OldTarget {
  addEventListener(type: string, listener: unknown): void {
    const list = this.listeners(type);
    if (listener && list.indexOf(listener) < 0) list.push(listener);
  }

  removeEventListener(type: string, listener: unknown): void {
    const list = this.listeners(type);
    const index = list.indexOf(listener);
    if (index >= 0) list.splice(index, 1);
  }

  dispatchEvent(event: any): boolean {
    event.target = event.currentTarget = event.srcElement = this;
    for (const listener of this.listeners(event.type).slice()) {
      if (event.stopped) break;
      try {
        if (typeof listener === "function") (listener as (event: any) => void).call(this, event);
        else (listener as any).handleEvent(event);
      } catch (error) {
        setTimeout(() => {
          throw error; // for window.onerror, as with any listener
        }, 0);
      }
    }
    return true;
  }

  private listeners(type: string): unknown[] {
    const self = this as any;
    if (!self["@@listeners"]) define(self, "@@listeners", { value: {} });
    return (self["@@listeners"][`on${type}`] ??= []);
  }
}

class OldEvent {
  readonly bubbles = false;
  readonly cancelable = false;
  stopped = false;

  constructor(readonly type: string, init?: Record<string, unknown>) {
    for (const name in init) (this as any)[name] = init[name];
  }

  stopImmediatePropagation(): void {
    this.stopped = true;
  }
  stopPropagation(): void {}
  preventDefault(): void {}
}

// All of them, or none: an old event can't be dispatched to a new target.
const hasEvents = works(() => {
  new engine.EventTarget();
  new engine.MessageEvent("message", {});
  new engine.CloseEvent("close", {});
});
export const EventTarget = hasEvents ? engine.EventTarget : OldTarget;
export const Event = hasEvents ? engine.Event : OldEvent;
export const MessageEvent = hasEvents ? engine.MessageEvent : OldEvent;
export const CloseEvent = hasEvents ? engine.CloseEvent : OldEvent;

function OldException(message: string, name: string): Error {
  const error = new Error(message);
  error.name = name;
  return error;
}
export const DOMException = works(() => new engine.DOMException("", "")) ? engine.DOMException : OldException;

/** Only what is posted to the second port, and only that it was; the last listener has it. */
class OldChannel {
  private listener: any;
  readonly port1 = {
    addEventListener: (_type: string, listener: any) => {
      this.listener = listener;
    },
    start: () => {},
  };
  readonly port2 = {
    postMessage: () => setTimeout(() => this.listener({ stopImmediatePropagation: () => {} }), 0),
  };
}
export const MessageChannel = engine.MessageChannel || OldChannel;

// -- addresses -------------------------------------------------------------------------------------

class OldURL {
  readonly href: string;

  constructor(given: string) {
    const link = document.createElement("a");
    link.href = given;
    this.href = link.href;
  }
}
export const URL = works(() => new engine.URL("/", "http://localhost")) ? engine.URL : OldURL;
