/** The WebSocket's members, shaped by the rules of WebIDL, on the prototype of any constructor. */

import { encodeText } from "./data.ts";
import { type Bytes, domException } from "./engine.ts";
import { STATES } from "./constructor.ts";
import { CONNECTING, type Socket } from "./socket.ts";

const sockets = new WeakMap<object, Socket>();

const MAX_REASON = 123; // bytes

/** Make `socket` the state of the page's object `target`. */
export function attach(target: EventTarget, socket: Socket): void {
  sockets.set(target, socket);
}

function socketOf(target: object): Socket {
  const socket = sockets.get(target);
  if (!socket) throw new TypeError("Illegal invocation");
  return socket;
}

/** What bears one of our connections; of other objects nothing is known. */
export function carrierOf(target: object): string | undefined {
  return sockets.get(target)?.carrier;
}

/** Give a constructor and its prototype every member of the interface. */
export function defineMembers(constructor: typeof WebSocket): void {
  const { prototype } = constructor;
  Object.setPrototypeOf(constructor, EventTarget);
  defineValue(constructor, "name", "WebSocket", false, true);
  defineValue(constructor, "length", 1, false, true);
  defineValue(constructor, "prototype", prototype, false, false);
  defineValue(prototype, Symbol.toStringTag, "WebSocket", false, true);
  STATES.forEach((name, value) => {
    defineValue(constructor, name, value, true, false);
    defineValue(prototype, name, value, true, false);
  });
  for (const name of ["url", "readyState", "bufferedAmount", "extensions", "protocol"] as const) {
    defineAccessor(prototype, name, (socket) => (name === "extensions" ? "" : socket[name]));
  }
  defineAccessor(prototype, "binaryType", (socket) => socket.binaryType, (socket, value) => {
    const type = `${value}`;
    if (type === "blob" || type === "arraybuffer") socket.binaryType = type;
  });
  for (const type of ["open", "error", "close", "message"]) defineHandler(prototype, type);
  defineMethod(prototype, "close", close, 0);
  defineMethod(prototype, "send", send, 1);
}

/** One that can't be written. */
function defineValue(owner: object, name: PropertyKey, value: unknown, enumerable: boolean, configurable: boolean): void {
  Object.defineProperty(owner, name, { value, enumerable, configurable, writable: false });
}

function defineAccessor(
  prototype: object,
  name: string,
  get: (socket: Socket, self: EventTarget) => unknown,
  set?: (socket: Socket, value: unknown, self: EventTarget) => void,
): void {
  // The engine's own accessors have these names, and are no constructors: so are those of a literal.
  const { get: getter, set: setter } = Object.getOwnPropertyDescriptor(
    {
      get [name](): unknown {
        return get(socketOf(this), this as unknown as EventTarget);
      },
      set [name](value: unknown) {
        set!(socketOf(this), value, this as unknown as EventTarget);
      },
    },
    name,
  )!;
  Object.defineProperty(prototype, name, {
    get: getter!,
    ...(set && { set: setter! }),
    enumerable: true,
    configurable: true,
  });
}

function defineMethod(prototype: object, name: string, method: (...args: never[]) => void, length: number): void {
  Object.defineProperty(method, "name", { value: name });
  Object.defineProperty(method, "length", { value: length });
  Object.defineProperty(prototype, name, {
    value: method,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}

// -- onopen and the others -----------------------------------------------------------------------

/** A listener that stands in its place among the others for as long as the attribute is set. */
interface Handler {
  callback: object;
  listener: (event: Event) => void;
}

function defineHandler(prototype: object, type: string): void {
  const handlers = new WeakMap<EventTarget, Handler>();
  defineAccessor(
    prototype,
    `on${type}`,
    (_, self) => handlers.get(self)?.callback ?? null,
    (_, value, self) => {
      const handler = handlers.get(self);
      if (Object(value) !== value) {
        if (handler) self.removeEventListener(type, handler.listener);
        handlers.delete(self);
      } else if (handler) {
        handler.callback = value as object;
      } else {
        const added: Handler = {
          callback: value as object,
          listener: (event) => {
            if (typeof added.callback === "function") added.callback.call(self, event);
          },
        };
        handlers.set(self, added);
        self.addEventListener(type, added.listener);
      }
    },
  );
}

// -- methods -------------------------------------------------------------------------------------

// Of a literal, so that they are no constructors.
const { close, send } = {
  send(this: EventTarget, ...args: unknown[]): void {
    const socket = socketOf(this);
    if (!args.length) throw new TypeError("send: the message is missing");
    const data = args[0];
    const isObject = typeof data === "object"; // of other values nothing has to be found out
    const blob = isObject && isBlob(data);
    const binary = isObject ? bytesOf(data) : undefined;
    const payload = binary ?? (blob ? undefined : encodeText(`${data}`));
    if (socket.readyState === CONNECTING) {
      throw domException("send: the connection is not open yet", "InvalidStateError");
    }
    if (payload) socket.send(!binary, payload);
    else socket.sendBlob(data as Blob);
  },

  close(this: EventTarget, ...args: unknown[]): void {
    const socket = socketOf(this);
    const code = args[0] === undefined ? undefined : clamp(args[0]);
    const reason = args[1] === undefined ? "" : `${args[1]}`;
    if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999)) {
      throw domException(`close: ${code} is neither 1000 nor from 3000 to 4999`, "InvalidAccessError");
    }
    if (encodeText(reason).length > MAX_REASON) {
      throw domException(`close: the reason has more than ${MAX_REASON} bytes`, "SyntaxError");
    }
    socket.close(code, reason);
  },
};

// By the tag, because an object of another frame is no instance of this one's classes.
const tagOf = (value: unknown): string => Object.prototype.toString.call(value).slice(8, -1);

function isBlob(data: unknown): boolean {
  return tagOf(data) === "Blob" || tagOf(data) === "File";
}

/** The bytes of binary data; nothing of other data. */
function bytesOf(data: unknown): Bytes | undefined {
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  return tagOf(data) === "ArrayBuffer" ? new Uint8Array(data as ArrayBuffer) : undefined;
}

/** WebIDL's [Clamp] unsigned short. */
function clamp(value: unknown): number {
  const number = Math.min(Math.max(+(value as number), 0), 65535);
  const floor = Math.floor(number);
  const rest = number - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor || 0;
}
