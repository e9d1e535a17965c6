/** What the shared modules want of the engine, in one place: a bundle for old ones has its twin. */

export type Bytes = Uint8Array<ArrayBuffer>;

/** An object that events can be dispatched to, of the given prototype. */
export function createTarget(prototype: object): EventTarget {
  return Object.setPrototypeOf(new EventTarget(), prototype) as EventTarget;
}

export function fireEvent(target: EventTarget, type: string): void {
  target.dispatchEvent(new Event(type));
}

export function fireMessage(target: EventTarget, data: unknown, origin: string): void {
  target.dispatchEvent(new MessageEvent("message", { data, origin }));
}

export function fireClose(target: EventTarget, code: number, reason: string, wasClean: boolean): void {
  target.dispatchEvent(new CloseEvent("close", { code, reason, wasClean }));
}

export function domException(message: string, name: string): Error {
  return new DOMException(message, name);
}

// -- text ----------------------------------------------------------------------------------------

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** UTF-8; a lone surrogate becomes U+FFFD. */
export function encodeText(text: string): Bytes {
  return encoder.encode(text);
}

/** Throws where the bytes are no UTF-8. */
export function decodeText(bytes: Bytes): string {
  return decoder.decode(bytes);
}

// -- blobs ---------------------------------------------------------------------------------------

export function makeBlob(bytes: Bytes): Blob {
  return new Blob([bytes]);
}

/** Call back with a Blob's bytes, or with nothing where they can't be read. */
export function readBlob(blob: Blob, done: (bytes?: Bytes) => void): void {
  blob.arrayBuffer().then(
    (buffer) => done(new Uint8Array(buffer)),
    () => done(),
  );
}

// -- tasks ---------------------------------------------------------------------------------------

// By a MessageChannel, because the timers of a hidden page are slowed down.
const { port1, port2 } = new MessageChannel();
let coming: (() => void)[] = [];
let going: (() => void)[] = []; // backwards

port1.onmessage = () => {
  if (!going.length) [going, coming] = [coming.reverse(), going];
  going.pop()!();
};

/**
 * Run `task` by itself after all that runs now, in the order of the calls. Between two tasks
 * promises settle, as between two events of the engine's own.
 */
export function queueTask(task: () => void): void {
  coming.push(task);
  port2.postMessage(0);
}
