// Runs by itself what the address asks for, on the engine's own WebSocket and on ours over http in
// turns, and posts what it measured. Nothing else may be attached to the browser: a debugger's
// protocol slows both down, and not by the same.

import { HTTPWebSocket } from "./plainsocket.mjs";

const asked = new URLSearchParams(location.search);
const carriers = { native: WebSocket, http: HTTPWebSocket };
const measured = { native: [], http: [] };
const requests = { native: [], http: [] }; // a second

async function open(carrier, path = "/echo") {
  const socket = new carriers[carrier](path);
  socket.binaryType = "arraybuffer";
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });
  return socket;
}

/** Send all of them at once; resolves when so many have come back. */
function exchange(socket, messages) {
  let left = messages.length;
  return new Promise((resolve, reject) => {
    socket.onmessage = () => --left || resolve();
    socket.onclose = reject;
    for (const message of messages) socket.send(message);
  });
}

async function times(socket, count) {
  const taken = [];
  for (let n = -20; n < count; n++) {
    const began = performance.now();
    await exchange(socket, ["x".repeat(32)]);
    if (n >= 0) taken.push(performance.now() - began);
  }
  return taken;
}

/** Round trips of one message at a time, in ms; beside the browser's own POSTs. */
async function echo(carrier) {
  if (carrier === "http") (measured.post ??= []).push(...(await posts(Number(asked.get("count")))));
  return withSocket(carrier, (socket) => times(socket, Number(asked.get("count"))));
}

async function posts(count) {
  const taken = [];
  for (let n = -20; n < count; n++) {
    const began = performance.now();
    await fetch("/nothing", { method: "POST", body: new Uint8Array(100), cache: "no-store" });
    if (n >= 0) taken.push(performance.now() - began);
  }
  return taken;
}

/** Behind what warms a carrier up: what the other one has left to be done is done by then, too. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 200));

/** 2,000 messages at once: messages a second. */
async function many(carrier) {
  const messages = Array.from({ length: 2000 }, (_, n) => "x".repeat(28) + String(n).padStart(4));
  return withSocket(carrier, async (socket) => {
    await exchange(socket, messages);
    await settled();
    const began = performance.now();
    await exchange(socket, messages);
    return [2_000_000 / (performance.now() - began)];
  });
}

/** 20 messages of 1 MiB at once: MB/s, one way. */
async function large(carrier) {
  const message = new Uint8Array(1 << 20);
  return withSocket(carrier, async (socket) => {
    await exchange(socket, Array(4).fill(message));
    await settled();
    const began = performance.now();
    await exchange(socket, Array(20).fill(message));
    return [(20 * message.length) / 1000 / (performance.now() - began)];
  });
}

/** 1,000 messages a second from the server: each one's delay beyond the shortest, in ms. */
async function ticks(carrier) {
  const delays = [];
  performance.clearResourceTimings();
  const socket = await open(carrier, "/ticks");
  const began = performance.now();
  await new Promise((resolve) => {
    socket.onmessage = ({ data }) => delays.push(performance.now() - Number(data));
    socket.onclose = resolve;
  });
  const seconds = (performance.now() - began) / 1000;
  requests[carrier].push(performance.getEntriesByType("resource").length / seconds);
  const settled = delays.slice(200);
  const least = Math.min(...settled);
  return settled.map((delay) => delay - least);
}

/** Round trips while another of 25 sockets is saturated both ways; `http alone` is without that. */
async function beside(carrier) {
  const sockets = await Promise.all(Array.from({ length: 25 }, () => open(carrier)));
  const [busy, quick] = sockets;
  const alone = await times(quick, Number(asked.get("count")));
  (measured[carrier + " alone"] ??= []).push(...alone);
  const payload = new Uint8Array(1 << 16);
  busy.onmessage = () => busy.send(payload);
  for (let n = 0; n < 32; n++) busy.send(payload);
  const taken = await times(quick, Number(asked.get("count")));
  sockets.forEach((socket) => socket.close());
  return taken;
}

async function withSocket(carrier, action) {
  const socket = await open(carrier);
  try {
    return await action(socket);
  } finally {
    socket.onclose = null;
    socket.close();
  }
}

const jobs = { echo, many, large, ticks, beside };
let error;
try {
  const job = jobs[asked.get("job")];
  for (let round = 0; round < Number(asked.get("rounds")); round++) {
    for (const carrier in carriers) measured[carrier].push(...(await job(carrier)));
  }
} catch (thrown) {
  error = String(thrown.stack ?? thrown.type ?? thrown);
}
await fetch("/measured", { method: "POST", body: JSON.stringify({ measured, requests, error }) });
