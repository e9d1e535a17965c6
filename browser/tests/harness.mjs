// Runs the conformance suite where it is told to; a page and its workers load this same file.
//     window.runSuite({ where, which, base, only })
// `where` is "window", "worker", "shared", or "classic" and "classic shared" (workers with
//     `importScripts`); `which` names the WebSocket: see `choose`.

import { run, shapeOf } from "./conformance.mjs";

async function choose(which) {
  if (which === "native") return globalThis.WebSocket;
  const { WebSocket } = await import(which);
  return WebSocket;
}

async function work({ which, base, only }) {
  const WebSocket = await choose(which);
  return { shape: shapeOf(WebSocket), results: await run(WebSocket, base, only) };
}

function serve(port) {
  port.onmessage = async ({ data }) => {
    try {
      port.postMessage(await work(data));
    } catch (error) {
      port.postMessage({ shape: [], results: [{ name: "the worker", error: String(error) }] });
    }
  };
}

if (globalThis.document) {
  globalThis.runSuite = ({ where, ...job }) => {
    if (where === "window") return work(job);
    return new Promise((resolve, reject) => {
      const isClassic = where.includes("classic");
      const Kind = where.includes("shared") ? SharedWorker : Worker;
      const worker = isClassic ? new Kind("classic-worker.js") : new Kind("harness.mjs", { type: "module" });
      const port = worker.port ?? worker;
      worker.onerror = ({ message }) => reject(new Error(message));
      port.onmessage = ({ data }) => resolve(data);
      port.postMessage(job);
    });
  };
} else if (globalThis.SharedWorkerGlobalScope) {
  globalThis.onconnect = ({ ports: [port] }) => serve(port);
} else {
  serve(globalThis);
}
