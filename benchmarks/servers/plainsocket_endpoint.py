"""plainsocket with its defaults: Endpoints, no greenlet between messages."""

from __future__ import annotations

import plainsocket

from arguments import HOST, read_arguments, skip

if not hasattr(plainsocket, "Endpoint"):
    skip("this plainsocket has no Endpoint")


class Echo(plainsocket.Endpoint):
    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


connected: set[plainsocket.WebSocket] = set()


class Broadcast(plainsocket.Endpoint):
    def on_open(self) -> None:
        connected.add(self.ws)

    def on_message(self, message: str | bytes) -> None:
        plainsocket.broadcast(connected, message)

    def on_close(self, code: int, reason: str) -> None:
        connected.discard(self.ws)


arguments = read_arguments()
plainsocket.serve(
    {"/echo": Echo, "/broadcast": Broadcast},
    host=HOST,
    port=arguments.port,
    ssl_context=arguments.ssl_context(),
    compression=arguments.deflate,
)
