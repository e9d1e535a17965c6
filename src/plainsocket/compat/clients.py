"""Who is connected to a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .websocket import WebSocket


class Client:
    """One open WebSocket. Applications leave attributes of their own here."""

    def __init__(self, address: Any, ws: WebSocket) -> None:
        self.address = address
        self.ws = ws


class Clients(dict[Any, Client]):
    """`Client`s by address.

    A loop over them goes over a copy, as others come and go while it sends; and it leaves out
    those whose connection is over, to which sending would raise.
    """

    def _open(self) -> dict[Any, Client]:
        return {key: client for key, client in super().items() if not client.ws.closed}

    def __iter__(self) -> Iterator[Any]:
        return iter(self._open())

    def keys(self) -> Any:
        return self._open().keys()

    def values(self) -> Any:
        return self._open().values()

    def items(self) -> Any:
        return self._open().items()

    def add(self, client: Client, *names: Any) -> Any:
        """Add a client under the first of `names` that is free; return the key.

        Behind a proxy several may have one address, and at a Unix socket they have none.
        """
        key = next((name for name in names if name and name not in self), id(client))
        self[key] = client
        return key
