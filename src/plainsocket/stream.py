"""MessageStream: a message that is received piece by piece."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .protocol import Message

if TYPE_CHECKING:
    from .websocket import WebSocket


class MessageStream:
    """One message, in pieces as they come: see `WebSocket.receive_stream`.

    Iterating over it gives `str` pieces of a text and `bytes` of a binary message, none of them
    empty, and ends with the message; ConnectionClosed is raised where the connection ends before.
    `close`, or the end of a `with` block, drops what is still to come of the message.
    """

    __slots__ = ("_websocket", "has_begun", "is_complete", "is_taken", "is_text", "pieces")

    def __init__(self, websocket: WebSocket | None = None) -> None:
        """Made by `receive_stream`, not by applications."""
        self._websocket = websocket  # None once no piece is waited for
        self.pieces: deque[Message] = deque()
        """Those that have come and were not taken."""
        self.has_begun = False
        self.is_taken = False
        """Whether `receive_stream` has returned it."""
        self.is_complete = False
        """Whether the last piece has come."""
        self.is_text = False
        """Whether the pieces are `str`."""

    @classmethod
    def of(cls, message: Message) -> MessageStream:
        """A message that is there as a whole."""
        stream = cls()
        stream.is_complete = True
        stream.is_text = isinstance(message, str)
        if message:
            stream.pieces.append(message)
        return stream

    def __iter__(self) -> MessageStream:
        return self

    def __next__(self) -> Message:
        websocket = self._websocket
        if websocket is None:
            if self.pieces:
                return self.pieces.popleft()
            if self.is_complete:
                raise StopIteration
            raise RuntimeError("the rest of this message has been dropped")
        piece = websocket.receive_piece(self)
        if piece is None:
            raise StopIteration
        return piece

    def detach(self) -> None:
        """The WebSocket has nothing more for it."""
        self._websocket = None

    def close(self) -> None:
        """Drop what is still to come. The next message can be received."""
        if self._websocket is not None:
            self._websocket.leave_stream()

    def __enter__(self) -> MessageStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
