/** bridge.swf in Flash Player: TCP sockets by number. There is one for the page. */

import type { Bytes } from "../engine.ts";
import type { Connect } from "../link.ts";
import { fromCharacters, toCharacters } from "./characters.ts";

/** What happens to a socket. */
export interface SocketEvents {
  onConnect(): void;
  onData(bytes: Bytes): void;
  /** It is closed, or could not be opened. */
  onEnd(): void;
}

/** The SWF's methods, which the player puts on its element. */
interface Bridge {
  psOpen(id: number, host: string, port: number, secure: boolean): void;
  psSend(id: number, characters: string): void;
  psClose(id: number): void;
  psPolicy(url: string): void;
}

const ID = "plainsocket-flash";
const START_TIMEOUT = 20_000; // ms that the player may take, or the user to allow it

const sockets: Record<number, SocketEvents> = {};
const asked: Record<string, true> = {}; // the ports whose policy has been asked for
let last = 0; // number of a socket
let bridge: Bridge | undefined;
let waiting: ((bridge: Bridge) => void)[] = [];
let timer: ReturnType<typeof setTimeout> | undefined;

/** Open a socket; return its number. Nothing is called back while this is running. */
export function open(host: string, port: number, secure: boolean, events: SocketEvents): number {
  const id = ++last;
  sockets[id] = events;
  // Of this port first: without that the player waits for port 843, which may be blocked.
  loadPolicy(`xmlsocket://${/:/.test(host) ? `[${host}]` : host}:${port}`);
  whenReady((swf) => {
    if (sockets[id]) swf.psOpen(id, host, port, secure);
  });
  return id;
}

/** All at once: a frame in two packets would wait for the peer to acknowledge the first. */
export function send(id: number, ...chunks: Bytes[]): void {
  bridge!.psSend(id, chunks.map(toCharacters).join(""));
}

export function close(id: number): void {
  delete sockets[id];
  bridge?.psClose(id);
}

/** Have the player ask for a policy at `xmlsocket://host:port`. */
export function loadPolicy(url: string): void {
  if (asked[url]) return;
  asked[url] = true;
  whenReady((swf) => swf.psPolicy(url));
}

function whenReady(action: (swf: Bridge) => void): void {
  if (bridge) {
    action(bridge);
    return;
  }
  waiting.push(action);
  timer ??= isInstalled() ? (embed(), setTimeout(giveUp, START_TIMEOUT)) : setTimeout(giveUp, 0);
}

/** The player is not there, or is not let; should it come after all, the next socket has it. */
function giveUp(): void {
  timer = undefined;
  waiting = [];
  for (const id in sockets) {
    const events = sockets[id]!;
    delete sockets[id];
    events.onEnd();
  }
}

/** What the bridge calls, and no other function; of several copies of this file, the first one's. */
export interface Callback {
  (id: number, event: string, data: string): void;
  first?: { connect: Connect; loadPolicy: typeof loadPolicy };
}

const page = window as unknown as { plainsocketFlash?: Callback };

export const callback: Callback = (page.plainsocketFlash ||= (id, event, data) => {
  const events = sockets[id];
  if (event === "ready") setTimeout(start, 0); // the player is still in the middle of its own call
  else if (!events) return;
  else if (event === "open") events.onConnect();
  else if (event === "data") events.onData(fromCharacters(data));
  else if (event === "close") {
    delete sockets[id];
    events.onEnd();
  }
});

function start(): void {
  bridge = document.getElementById(ID) as unknown as Bridge;
  clearTimeout(timer);
  const actions = waiting;
  waiting = [];
  for (const action of actions) action(bridge);
}

// -- the element ---------------------------------------------------------------------------------

const TYPE = "application/x-shockwave-flash";
const ActiveX = (window as unknown as { ActiveXObject?: new (name: string) => unknown }).ActiveXObject;

/** The script tag that this file came by; of several, the last one so far. */
export const script = ((): HTMLScriptElement | undefined => {
  const scripts = document.getElementsByTagName("script");
  for (let i = scripts.length - 1; i >= 0; i--) {
    if (/(^|\/)plainsocket-flash\.js(\?|$)/.test(scripts[i]!.src)) return scripts[i];
  }
  return undefined;
})();
// The SWF is in the same folder.
const folder = script ? script.src.replace(/[^/]*(\?.*)?$/, "") : "";

export function isInstalled(): boolean {
  const { plugins, mimeTypes } = navigator;
  if (plugins?.["Shockwave Flash" as never] || mimeTypes?.[TYPE as never]) return true;
  try {
    return !!ActiveX && !!new ActiveX("ShockwaveFlash.ShockwaveFlash");
  } catch {
    return false;
  }
}

let isEmbedded = false;

function embed(): void {
  if (isEmbedded) return;
  if (!document.body) {
    setTimeout(embed, 10);
    return;
  }
  isEmbedded = true;
  const swf = `${folder}bridge.swf`.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;");
  const kind = ActiveX ? 'classid="clsid:d27cdb6e-ae6d-11cf-96b8-444553540000"' : `type="${TYPE}" data="${swf}"`;
  const holder = document.createElement("div");
  // In view, as players do not start what nobody would see.
  holder.style.cssText = "position:fixed;left:0;bottom:0;width:1px;height:1px;overflow:hidden";
  document.body.appendChild(holder);
  holder.innerHTML =
    `<object id="${ID}" width="1" height="1" ${kind}><param name="movie" value="${swf}">` +
    '<param name="allowScriptAccess" value="sameDomain"></object>';
}
