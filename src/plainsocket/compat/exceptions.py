"""gevent-websocket's exceptions."""

from __future__ import annotations

from ..errors import ConnectionClosed, WebSocketError

__all__ = ["FrameTooLargeException", "ProtocolError", "SocketDead", "WebSocketError"]


class ProtocolError(WebSocketError):
    """Of the peer's; only for `except` clauses, as such a connection is closed with 1002."""


class FrameTooLargeException(ProtocolError):
    """Only for `except` clauses, as such a connection is closed with 1009."""


class SocketDead(ConnectionClosed):
    """What `receive` and `send` raise on a connection that is over.

    Its text is one of the `MSG_` constants, which is all that gevent-websocket told.
    """

    def __init__(self, text: str, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.args = (text,)
        self.text = text

    def __str__(self) -> str:
        return self.text
