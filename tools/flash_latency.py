"""Measures what the Flash carrier adds to a round trip, beside a native WebSocket in one run.

    PYTHONPATH=tests .venv/bin/python tools/flash_latency.py

Ruffle is no Flash Player. Its part is told by two more rows: a native WebSocket through the relay
that Ruffle's sockets go through, and Ruffle with its own frames, once in which it hands events on.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from gevent import socket
from gevent.server import StreamServer

import plainsocket
import ruffle
from browsers import browser
from serving import echo, serving

ROUND_TRIPS = 300  # of each kind, in turns of 10, so that all see the same machine

MEASURE = """
const [kinds, echoPort, roundTrips, done] = arguments;
const native = window.__ruffleWS;
const base = "ws://" + location.host;
const open = {
  native: () => new native(base + "/echo"),
  "native, through the relay": () => new native(base + "/relay/" + echoPort),
  flash: () => new WebSocket(base + "/echo"),
};
const trip = (ws) => new Promise((resolve) => {
  const start = performance.now();
  ws.onmessage = () => resolve(performance.now() - start);
  ws.send(ws.binary ? new Uint8Array(16) : "0123456789abcdef");
});
(async () => {
  const sockets = {}, times = {};
  for (const kind of kinds) {
    const ws = sockets[kind] = open[kind]();
    ws.binary = kind.includes("relay");
    times[kind] = [];
    await new Promise((resolve) => { ws.onopen = resolve; });
  }
  for (let turn = -3; turn < roundTrips / 10; turn++) {
    for (const kind of kinds) {
      for (let i = 0; i < 10; i++) {
        const time = await trip(sockets[kind]);
        if (turn >= 0) times[kind].push(time);
      }
    }
  }
  done(times);
})();
"""


def handler(ws: plainsocket.WebSocket) -> None:
    (ruffle.relay if ws.path.startswith("/relay/") else echo)(ws)


def echo_bytes(sock: socket.socket, _address: Any) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def page(extra: str) -> str:
    flash = '<script src="/plainsocket-flash.js"></script>'
    return f"<!doctype html>{ruffle.head(extra=extra)}{flash}<body>"


def main() -> None:
    pages = {"/fast": page(ruffle.FAST_FRAMES), "/frames": page("")}
    with serving(handler, app=ruffle.site(pages)) as server:

        def start_echo() -> int:
            bytes_server = StreamServer(("127.0.0.1", 0), echo_bytes)
            bytes_server.start()
            return int(bytes_server.server_port or 0)

        echo_port = server.call(start_echo)
        for engine in ("chromium", "firefox"):
            with (
                tempfile.TemporaryDirectory() as scratch,
                browser(engine, Path(scratch)) as started,
            ):
                driver = started.driver
                for path, name in (("/fast", "flash"), ("/frames", "flash, with Ruffle's frames")):
                    driver.get(f"http://127.0.0.1:{server.port}{path}")
                    kinds = ["native", "native, through the relay", "flash"]
                    times: Any = driver.execute_async_script(
                        MEASURE, kinds if path == "/fast" else ["flash"], echo_port, ROUND_TRIPS
                    )
                    for kind, values in times.items():
                        cut = statistics.quantiles(values, n=100)
                        shown = name if kind == "flash" else kind
                        print(f"{engine:9} {shown:28} p50 {cut[49]:6.2f} ms  p99 {cut[98]:6.2f} ms")


if __name__ == "__main__":
    main()
