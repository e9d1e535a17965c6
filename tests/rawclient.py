"""A client that sends exactly the bytes it is told to."""

from __future__ import annotations

import os
import socket
from types import TracebackType

from plainsocket.frames import Header, Opcode, apply_mask, header, read_close_payload, read_header

TIMEOUT = 10.0  # seconds


class RawClient:
    """One TCP connection to a server."""

    def __init__(
        self, port: int, host: str = "127.0.0.1", *, receive_buffer: int | None = None
    ) -> None:
        """`receive_buffer` is the kernel's, in bytes: a small one makes a slow reader."""
        self.host, self.port = host, port
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.settimeout(TIMEOUT)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((host, port))
        self._received = bytearray()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, path: str = "/echo", **changes: str | None) -> bytes:
        """An upgrade request; `changes` are headers, `_` for `-`, None to leave one out."""
        headers: dict[str, str | None] = {
            "host": f"{self.host}:{self.port}",
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        headers.update({name.replace("_", "-"): value for name, value in changes.items()})
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()

    def open(self, path: str = "/echo", **changes: str | None) -> str:
        """Do the handshake, expect the 101, return its head."""
        self.send(self.request(path, **changes))
        head = self.receive_head()
        assert head.startswith("HTTP/1.1 101 "), head
        return head

    def receive_head(self) -> str:
        while b"\r\n\r\n" not in self._received:
            data = self.socket.recv(65536)
            assert data, f"connection ended within the response head: {self._received!r}"
            self._received += data
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def receive_exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            data = self.socket.recv(65536)
            assert data, f"connection ended after {self._received!r}"
            self._received += data
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def receive_rest(self) -> bytes:
        """All that comes until the server ends the connection."""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                rest, self._received = bytes(self._received), bytearray()
                return rest
            self._received += data

    def send_frame(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv: int = 0,
        mask: bool = True,
    ) -> None:
        self.send(frame(opcode, payload, fin=fin, rsv=rsv, mask=mask))

    def receive_frame(self) -> tuple[Header, bytes]:
        while True:
            head = read_header(bytes(self._received[:14]))
            if head is not None and len(self._received) >= head.size + head.length:
                end = head.size + head.length
                payload = bytes(self._received[head.size : end])
                del self._received[:end]
                return head, payload
            data = self.socket.recv(65536)
            assert data, "connection ended where a frame was expected"
            self._received += data

    def receive_close(self) -> tuple[int, str]:
        """Skip messages until the close frame; return its code and reason."""
        while True:
            head, payload = self.receive_frame()
            if head.opcode == Opcode.CLOSE:
                return read_close_payload(payload)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True
) -> bytes:
    """The bytes of one frame, as a client sends it."""
    key = os.urandom(4) if mask else b""
    masked = apply_mask(payload, key) if mask else payload
    return header(opcode, len(payload), fin=fin, rsv=rsv, key=key) + masked
