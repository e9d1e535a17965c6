"""How bytes reach a WebSocket, and leave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..protocol import Frame
    from .tcp import Receiver


class Carrier(Protocol):
    """What a WebSocket needs of one. Until `start` it is a queue: what is written waits."""

    @property
    def name(self) -> str: ...

    @property
    def closed(self) -> bool: ...

    @property
    def buffered(self) -> int:
        """Bytes that wait to leave."""

    @property
    def bytes_accepted(self) -> int:
        """Bytes ever written."""

    def start(self, sock: Any, early: bytes = b"", *, head: bytes = b"") -> None: ...

    def end(self, *, linger: bool) -> None:
        """Write what is queued, then close."""

    def abort(self, *, reset: bool = False) -> None:
        """Close now."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def cork(self) -> None:
        """Queue all frames until `flush`."""

    def uncork(self) -> None: ...

    def write(self, frames: Sequence[Frame]) -> None: ...

    def write_control(self, frame: bytes) -> None:
        """Write a frame that goes before those that are not on their way."""

    def flush(self) -> None: ...

    @property
    def broken(self) -> bool:
        """Whether the peer can no longer be written to."""

    def unacknowledged(self) -> int:
        """Bytes queued, plus those on their way that the peer has not acknowledged."""

    def unread(self) -> int:
        """Bytes that have come and wait."""


NewCarrier = Callable[["Receiver"], Carrier]
"""Makes the carrier of a WebSocket."""
