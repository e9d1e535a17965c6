"""plainsocket with its defaults: a blocking handler for each connection."""

from __future__ import annotations

import plainsocket

from arguments import HOST, read_arguments

connected: set[plainsocket.WebSocket] = set()


def echo(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        ws.send(message)


def broadcast(ws: plainsocket.WebSocket) -> None:
    connected.add(ws)
    try:
        for message in ws:
            plainsocket.broadcast(connected, message)
    finally:
        connected.discard(ws)


arguments = read_arguments()
plainsocket.serve(
    {"/echo": echo, "/broadcast": broadcast},
    host=HOST,
    port=arguments.port,
    ssl_context=arguments.ssl_context(),
    compression=arguments.deflate,
)
