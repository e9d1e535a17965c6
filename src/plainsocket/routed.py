"""What serves WebSockets by the handlers of a Server, however their requests were read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .frames import CloseCode
from .handshake import Accepted, Request
from .opening import Host
from .websocket import WebSocket

if TYPE_CHECKING:
    from .server import HTTPServer


class Routed(Host):
    """Keeps a Server's books of who is there."""

    __slots__ = ("reserved",)

    server = cast("HTTPServer", None)  # those that inherit this have one

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.reserved: str | None = None
        """The address that is counted until its WebSocket is open."""

    def reserve_address(self, request: Request) -> None:
        """Count the client from now on: until it is open, others could pass the limit with it."""
        limit = self.options.max_connections_per_address
        if limit is not None and self.server.owner.reserve_for(request):
            self.reserved = request.remote_address

    def release_address(self) -> None:
        if self.reserved is not None:
            self.server.owner.reserve(self.reserved, -1)
            self.reserved = None

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        super().open_websocket(websocket, accepted)
        self.enter(websocket)

    def enter(self, websocket: WebSocket) -> None:
        """It is open."""
        self.release_address()
        self.server.owner.add(websocket)
        if self.server.is_over:
            self.turn_out(websocket)

    def turn_out(self, websocket: WebSocket) -> None:
        """It came while the server was stopping."""
        websocket.close(CloseCode.GOING_AWAY, "server is stopping")

    def let_go(self, websocket: WebSocket) -> None:
        super().let_go(websocket)
        self.server.owner.remove(websocket)
