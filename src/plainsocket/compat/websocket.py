"""The WebSocket as gevent-websocket's applications know it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..errors import ConnectionClosed
from ..frames import CloseCode, Opcode, is_valid_close_code
from ..websocket import WebSocket as PlainWebSocket
from .exceptions import SocketDead
from .header import Header
from .once import warn_once

if TYPE_CHECKING:
    from .handler import WebSocketHandler

__all__ = ["MSG_ALREADY_CLOSED", "MSG_CLOSED", "MSG_SOCKET_DEAD", "Header", "Stream", "WebSocket"]

MSG_SOCKET_DEAD: Final = "Socket is dead"
MSG_ALREADY_CLOSED: Final = "Connection is already closed"
MSG_CLOSED: Final = "Connection closed"

_MAX_REASON: Final = 123  # bytes of UTF-8 (RFC 6455 section 5.5)


class WebSocket:
    """`environ["wsgi.websocket"]`; a `plainsocket.WebSocket` with gevent-websocket's manners."""

    __slots__ = ("__weakref__", "_is_over", "handler", "plain")

    OPCODE_CONTINUATION: ClassVar = int(Opcode.CONTINUATION)
    OPCODE_TEXT: ClassVar = int(Opcode.TEXT)
    OPCODE_BINARY: ClassVar = int(Opcode.BINARY)
    OPCODE_CLOSE: ClassVar = int(Opcode.CLOSE)
    OPCODE_PING: ClassVar = int(Opcode.PING)
    OPCODE_PONG: ClassVar = int(Opcode.PONG)

    def __init__(self, plain: PlainWebSocket, handler: WebSocketHandler) -> None:
        self.plain = plain
        """The same connection in plainsocket's own manners, for code that moves over by and by."""
        self.handler = handler
        self._is_over = False  # as far as the application has been told

    # -- what it is ------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it is over, or `close` has been called."""
        return self._is_over or self.plain.closed

    @property
    def environ(self) -> dict[str, Any]:
        return self.plain.environ

    @property
    def origin(self) -> str | None:
        return self.plain.origin

    @property
    def protocol(self) -> str | None:
        """The subprotocols that the client offers, as it sent them."""
        return self.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")

    @property
    def version(self) -> str | None:
        return self.environ.get("HTTP_SEC_WEBSOCKET_VERSION")

    @property
    def path(self) -> str | None:
        return self.environ.get("PATH_INFO")

    @property
    def logger(self) -> logging.Logger:
        return self.handler.logger

    @property
    def stream(self) -> Stream:
        return Stream(self.handler)

    def __repr__(self) -> str:
        return f"<geventwebsocket {self.plain!r}>"

    # -- messages --------------------------------------------------------------------------------

    def receive(self) -> str | bytearray | None:
        """The next message: `str`, or `bytearray` for a binary one.

        None where the connection ends instead, whatever ended it; after that, and after `close`,
        raises WebSocketError.
        """
        if self._is_over:
            raise self._dead(MSG_ALREADY_CLOSED)
        try:
            message = self.plain.receive()
        except ConnectionClosed:
            self._is_over = True
            return None
        return message if isinstance(message, str) else bytearray(message)

    read_message = receive

    def wait(self) -> str | bytearray | None:
        """`receive`'s name in the oldest tutorials; None each time the connection is over."""
        return None if self._is_over else self.receive()

    def __iter__(self) -> Iterator[str | bytearray]:
        return iter(self.wait, None)

    def send(self, message: Any, binary: bool | None = None) -> None:
        """Send `str` as text and anything else as binary, if `binary` does not tell.

        Raises WebSocketError when the connection is closing or over.
        """
        if self._is_over:
            raise self._dead(MSG_SOCKET_DEAD)
        if binary is not None and binary is isinstance(message, str):
            message = message.encode() if binary else bytes(message).decode()
        try:
            self.plain.send(message)
        except ConnectionClosed:
            raise self._dead(MSG_SOCKET_DEAD) from None

    def send_frame(self, message: Any, opcode: int) -> None:
        """Send one message, ping or close; the payload of a ping is plainsocket's own."""
        if opcode == Opcode.PING:
            if self._is_over or not self.plain._can_send:
                raise self._dead(MSG_ALREADY_CLOSED)
            self.plain._write_ping()  # ping() would wait for the pong
        elif opcode in (Opcode.TEXT, Opcode.BINARY):
            self.send(message or "", binary=opcode == Opcode.BINARY)
        elif opcode == Opcode.CLOSE:
            self.close()
        else:
            warn_once(f"send_frame can't send opcode {opcode}: plainsocket sends these itself")

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, message: str | bytes = b"") -> None:
        """Begin to close with a code and a reason, and return at once. May be called again."""
        self._is_over = True
        if not is_valid_close_code(code):
            warn_once(f"close({code!r}): not a code that may be sent (RFC 6455 7.4); 1000 instead")
            code = CloseCode.NORMAL_CLOSURE
        reason = message.encode() if isinstance(message, str) else bytes(message or b"")
        self.plain.close(code, reason[:_MAX_REASON].decode(errors="ignore"))

    def _dead(self, text: str) -> SocketDead:
        plain = self.plain
        return SocketDead(text, plain.close_code or CloseCode.ABNORMAL_CLOSURE, plain.close_reason)


class Stream:
    """What stood between the connection and the old WebSocket; here it moves no bytes."""

    __slots__ = ("handler",)

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    def read(self, size: int = -1) -> bytes:
        raise io.UnsupportedOperation("plainsocket reads the frames itself: use receive()")

    def write(self, data: bytes) -> None:
        raise io.UnsupportedOperation("plainsocket writes the frames itself: use send()")
