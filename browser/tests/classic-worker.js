// A worker of the old kind without a WebSocket of its own, which gets ours from the loader.

delete self.WebSocket;
importScripts("plainsocket.js");

function serve(port) {
  port.onmessage = async ({ data: { base, only } }) => {
    const { run, shapeOf } = await import("./conformance.mjs");
    port.postMessage({ shape: shapeOf(self.WebSocket), results: await run(self.WebSocket, base, only) });
  };
}

if (self.SharedWorkerGlobalScope) self.onconnect = ({ ports: [port] }) => serve(port);
else serve(self);
