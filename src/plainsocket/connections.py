"""The open WebSockets of a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

from .websocket import WebSocket


class Connections(Set[WebSocket]):
    """A set whose members know their places in it, so that each takes eight bytes here.

    A `set` takes up to a hundred. Iterating gives those that were there when it began.
    """

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: list[WebSocket] = []

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        return set(it)  # of what the operators of sets give

    def add(self, websocket: WebSocket) -> None:
        """Add what is in no such set."""
        websocket.place = len(self._members)
        self._members.append(websocket)

    def remove(self, websocket: WebSocket) -> None:
        """Remove what is there."""
        last = self._members.pop()
        if last is not websocket:
            self._members[websocket.place] = last
            last.place = websocket.place
        websocket.place = -1

    def __contains__(self, websocket: object) -> bool:
        if not isinstance(websocket, WebSocket) or websocket.place < 0:
            return False
        place = websocket.place
        return place < len(self._members) and self._members[place] is websocket

    def __iter__(self) -> Iterator[WebSocket]:
        return iter(self._members.copy())

    def __len__(self) -> int:
        return len(self._members)
