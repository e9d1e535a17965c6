"""The server of test_hostile_peers.py: a program, so that its CPU time and memory can be measured.

    python hostile_server.py OPTIONS

OPTIONS are those of `Server`, in JSON; besides, `handshake_delay` is how long `process_request`
takes. SIGUSR1 makes it print what is open.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterable
from typing import Any

import gevent

import plainsocket

FILES = 10_500
"""Open files that 10,000 connections take, on either end."""


def echo(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        if message == "quit":
            break
        ws.send(message)


def sink(ws: plainsocket.WebSocket) -> None:
    for _ in ws:
        pass


def deaf(ws: plainsocket.WebSocket) -> None:
    while ws.close_code is None:
        gevent.sleep(0.05)


class EchoEndpoint(plainsocket.Endpoint):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


def raise_file_limit() -> None:
    """Allow as many open files as the machine does. The test sees to it that it is enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    raise_file_limit()
    options = json.loads(sys.argv[1])
    delay = options.pop("handshake_delay", None)
    if delay is not None:
        options["process_request"] = lambda request: gevent.sleep(delay)
    executed: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        executed.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        body = b""
        try:
            body = environ["wsgi.input"].read()
        except OSError:
            if environ["PATH_INFO"] != "/careless":
                raise
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    routes: dict[str, Any] = {
        "/echo": echo,
        "/endpoint": EchoEndpoint,
        "/sink": sink,
        "/deaf": deaf,
    }
    server = plainsocket.Server(routes, port=0, app=app, **options)
    server.start()
    reports = 0

    def report() -> None:
        nonlocal reports
        reports += 1
        objects = gc.get_objects()
        state = {
            "connections": len(server.connections),
            "websockets": sum(isinstance(each, plainsocket.WebSocket) for each in objects),
            "executed": executed,
        }
        print(f"state {reports} {json.dumps(state)}", flush=True)

    gevent.signal_handler(signal.SIGUSR1, report)
    print(f"serving on port {server.address[1]} in process {os.getpid()}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
