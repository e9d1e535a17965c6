/** Objects, events and errors of the engine. */

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
