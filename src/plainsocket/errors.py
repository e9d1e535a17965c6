"""The errors that plainsocket raises.

All are `OSError`s, so that code which guards a socket guards a WebSocket.
"""

from __future__ import annotations


class WebSocketError(OSError):
    """Base of every error that has to do with a WebSocket connection."""


class ConnectionClosed(WebSocketError):
    """The connection is over: nothing more can be received, or sent.

    `code` is the close code (RFC 6455 section 7.4): the peer's; or the one with which this end
    failed the connection (1002, 1007, 1009, 1011 …); 1005 if the peer gave none; 1006 if the
    connection ended without a close frame. `reason` is the text that came with it, or what
    happened.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".rstrip()
