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


class HandshakeError(WebSocketError):
    """`connect` reached something that does not open a WebSocket as RFC 6455 section 4.1 has it."""


class HandshakeRefused(HandshakeError):
    """The server answered `connect` with another status than 101."""

    def __init__(
        self, status: int, reason: str, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        super().__init__(f"refused with {status} {reason}".rstrip())
        self.status = status
        """The HTTP status."""
        self.headers = headers
        """Names and values, as sent and in that order."""
        self.body = body
        """At most 64 KiB of it, as far as it came in time."""


class ProxyError(HandshakeError):
    """The proxy did not make the connection. `status` is its HTTP status, if it gave one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
