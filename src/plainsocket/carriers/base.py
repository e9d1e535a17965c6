"""What a WebSocket and its carrier are to each other.

Classes, and not only types, because compiled code calls their methods without looking them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..protocol import Frame, Message, Protocol


class Receiver:
    """What a carrier reports to, always from the hub."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer's frames have come."""
        raise NotImplementedError

    def room(self) -> memoryview | None:
        """Where the next bytes may be written, instead of being received: see Protocol.room."""
        raise NotImplementedError

    def data_placed(self, size: int) -> None:
        """So many bytes have been written to `room`, which was released."""
        raise NotImplementedError

    def eof_received(self) -> None:
        """The peer will send nothing more, or the connection is broken."""
        raise NotImplementedError

    def write_progressed(self) -> None:
        """Bytes have left the queue, or it was given up."""
        raise NotImplementedError

    def write_waits(self) -> None:
        """Of what was written while corked some can't leave yet."""
        raise NotImplementedError

    def loop_is_needed(self) -> None:
        """What was flushed while corked leaves when the loop has its next turn."""
        raise NotImplementedError

    def carrier_closed(self) -> None:
        """The carrier is closed. Called once, the last."""
        raise NotImplementedError


class Carrier:
    """Moves the frames of one WebSocket. Until `start` it is a queue: what is written waits."""

    __slots__ = ("broken", "buffered", "bytes_accepted", "closed")

    name = ""
    """What `WebSocket.carrier` says."""

    def __init__(self) -> None:
        self.buffered = 0
        """Bytes waiting to be taken by the kernel."""
        self.bytes_accepted = 0
        """Bytes ever written to this carrier."""
        self.broken = False
        """Whether the peer can no longer be written to."""
        self.closed = False

    def start(self, sock: Any, early: bytes = b"", head: bytes = b"") -> None:
        """Take over `sock`; `early` was read already, `head` is written before all else."""
        raise NotImplementedError

    def end(self, *, linger: bool) -> None:
        """Write what is queued, then close; with `linger`, once the peer has ended too."""
        raise NotImplementedError

    def abort(self, *, reset: bool = False) -> None:
        """Close now; with `reset`, what the kernel has not sent is lost as well."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError

    def cork(self) -> None:
        """Queue all frames until `flush`."""
        raise NotImplementedError

    def uncork(self) -> None:
        """Write what was queued, perhaps with that of others in this turn of the loop, and from
        now on at once. The receiver is told if some of it has to wait."""
        raise NotImplementedError

    def write_whole(self, _protocol: Protocol, _message: Message | bytearray | memoryview) -> bool:
        """While corked: queue a message's frame in the quickest way. False: there is none."""
        return False

    def write_frame(self, frame: bytes) -> None:
        """Queue a frame, and write what can be written unless corked."""
        raise NotImplementedError

    def write(self, frames: Sequence[Frame]) -> None:
        """The same for several frames, each in pieces."""
        raise NotImplementedError

    def write_control(self, frame: bytes) -> None:
        """The same for a control frame, which goes before the frames that are not on their way."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write what can be written; the rest when more can be."""
        raise NotImplementedError

    def unacknowledged(self) -> int:
        """Bytes written that the peer is not known to have."""
        raise NotImplementedError

    def unread(self) -> int:
        """Bytes that have come and were not reported yet."""
        raise NotImplementedError
