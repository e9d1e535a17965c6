/**
 * The engine's own WebSocket where it has one; otherwise, or where `?carrier=http` behind this
 * file's address says so, one with the same interface over plain HTTP.
 */
declare const chosen: typeof globalThis.WebSocket;

/** The WebSocket over plain HTTP, whatever the engine has. */
declare const http: typeof globalThis.WebSocket;

/**
 * The engine's own WebSocket as long as that gets through, and one over plain HTTP where something
 * on the way blocks it: which of them is found out by a small request, and kept for half an hour.
 * With `?carrier=guard` behind this file's address `WebSocket` is this one.
 */
declare const guarded: typeof globalThis.WebSocket;

/**
 * What bears a connection: "native" is the engine's own WebSocket; "http" is a streaming response;
 * "http-poll" is long polling, where something between page and server holds streams back.
 */
export declare function carrierOf(socket: globalThis.WebSocket): "native" | "http" | "http-poll";

export { chosen as WebSocket, http as HTTPWebSocket, guarded as GuardedWebSocket };
