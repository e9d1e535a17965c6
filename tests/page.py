"""A page's half of the http carrier, written from docs/http-carrier.md and from nothing else.

Blocking, on threads. Requests go through `Page.request`, which tests replace to cut, repeat and
reorder them.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from plainsocket.frames import Opcode, close_payload, header, read_close_payload, read_header
from rawclient import RawClient

PATIENCE = 10.0  # seconds
CONTENT_TYPE = "text/plain; plainsocket=1"

DATA, CREDIT, OPENED, END, ACK, PING = range(6)
STREAM, POLL = 0, 1


# -- the bytes of requests and records -----------------------------------------------------------


def open_body(
    channel: int = 1,
    *,
    token: bytes = b"",
    nonce: bytes | None = None,
    mode: int = STREAM,
    seconds: int = 50,
    credit: int = 1 << 20,
    subprotocols: str = "",
    extensions: str = "",
) -> bytes:
    return (
        bytes((1, len(token)))
        + token
        + (os.urandom(16) if nonce is None else nonce)
        + struct.pack("!IBBI", channel, mode, seconds, credit)
        + struct.pack("!H", len(subprotocols))
        + subprotocols.encode("latin-1")
        + struct.pack("!H", len(extensions))
        + extensions.encode("latin-1")
    )


def up_body(token: bytes, offset: int, data: bytes = b"", received: int = 0) -> bytes:
    return bytes((2, len(token))) + token + struct.pack("!QQ", received, offset) + data


def down_body(
    token: bytes, offset: int, number: int, *, mode: int = STREAM, seconds: int = 50
) -> bytes:
    rest = struct.pack("!QIBB", offset, number, mode, seconds)
    return bytes((3, len(token))) + token + rest


def record(kind: int, channel: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("!BBHI", kind, 0, len(payload), channel) + payload


def data_records(channel: int, data: bytes) -> bytes:
    pieces = range(0, len(data), 16384)
    return b"".join(record(DATA, channel, data[start : start + 16384]) for start in pieces)


class Records:
    """What a stream holds, as it comes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        self._rest += data
        while len(self._rest) >= 8:
            kind, zero, length, channel = struct.unpack_from("!BBHI", self._rest)
            assert not zero
            if len(self._rest) < 8 + length:
                return
            payload, self._rest = self._rest[8 : 8 + length], self._rest[8 + length :]
            yield kind, channel, payload


class NewSession:
    """What stands before the stream in the answer that makes a session."""

    def __init__(self, data: bytes) -> None:
        assert data[0] == 1
        end = 2 + data[1]
        self.token = data[2:end]
        heartbeat, reach, self.largest, self.flags, offset = struct.unpack_from("!IIIBQ", data, end)
        self.heartbeat, self.reach = heartbeat / 1000, reach / 1000
        assert offset == 0
        self.size = end + 21


# -- requests ------------------------------------------------------------------------------------


class Upload(RawClient):
    """An up request that lasts: written by chunks."""

    def __init__(self, port: int, token: bytes, *, offset: int = 0, origin: str = "") -> None:
        super().__init__(port)
        self.send(
            f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Origin: {origin or f'http://127.0.0.1:{port}'}\r\nTransfer-Encoding: chunked\r\n"
            "Content-Type: text/plain; plainsocket=1\r\n\r\n".encode()
        )
        self.write(up_body(token, offset))

    def __enter__(self) -> Upload:
        return self

    def write(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def end(self) -> str:
        """No more; the answer's head."""
        self.end_unheard()
        return self.receive_head()

    def end_unheard(self) -> None:
        self.send(b"0\r\n\r\n")


class Reply:
    """An answer whose body is read as it comes."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        self.connection = connection
        self._socket = connection.sock or response.fp.raw._sock  # type: ignore[attr-defined]
        self.response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def read_some(self) -> bytes:
        return self.response.read1(65536)

    def read(self) -> bytes:
        return self.response.read()

    def read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.response.read1(size - len(data))
            assert piece, f"the response ended after {data!r}"
            data += piece
        return data

    def close(self) -> None:
        # A shutdown first: closing waits for a thread that is reading.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.response.close()
        self.connection.close()


replies: list[Reply] = []
"""All that have been given, for a test to close."""


def post(port: int, path: str, body: bytes, **headers: str | None) -> Reply:
    """Send one request on a connection of its own; `headers` with `_` for `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    fields: dict[str, str | None] = {
        "content-type": CONTENT_TYPE,
        "origin": f"http://127.0.0.1:{port}",
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {name: value for name, value in fields.items() if value is not None}
    connection.request("POST", path, body, sent)
    reply = Reply(connection, connection.getresponse())
    replies.append(reply)
    return reply


# -- a page --------------------------------------------------------------------------------------


class Socket:
    """One WebSocket of a page."""

    def __init__(self, page: Page, channel: int) -> None:
        self.page = page
        self.channel = channel
        self.subprotocol: str | None = None
        self.opened = threading.Event()
        self.closed = threading.Event()
        self.close_frame: tuple[int, str] | None = None
        self.messages: queue.SimpleQueue[str | bytes] = queue.SimpleQueue()
        self.is_reading = True  # gives credit
        self.credit = 0
        self._unsent = bytearray()
        self._received = bytearray()
        self._kind = 0
        self._message = bytearray()
        self._used = 0
        self._sent_end = self._sent_close = False

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.send_frame(Opcode.TEXT, message.encode())
        else:
            self.send_frame(Opcode.BINARY, message)

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        with self.page.lock:
            self._unsent += header(opcode, len(payload), fin=fin) + payload
            self.flush()

    def flush(self) -> None:
        allowed = min(len(self._unsent), self.credit)
        if allowed:
            self.page.put(data_records(self.channel, bytes(self._unsent[:allowed])))
            self.credit -= allowed
            del self._unsent[:allowed]

    def receive(self, timeout: float = PATIENCE) -> str | bytes:
        return self.messages.get(timeout=timeout)

    def close(self, code: int = 1000, reason: str = "") -> None:
        with self.page.lock:
            if not self._sent_close:
                self._sent_close = True
                self.send_frame(Opcode.CLOSE, close_payload(code, reason))

    def take(self, kind: int, payload: bytes) -> None:
        if kind == OPENED:
            (self.credit,) = struct.unpack_from("!I", payload)
            self.subprotocol = payload[5 : 5 + payload[4]].decode() or None
            self.opened.set()
            self.flush()
        elif kind == CREDIT:
            self.credit += int.from_bytes(payload, "big")
            self.flush()
        elif kind == END:
            self.end()
            self.closed.set()
        else:
            assert self.opened.is_set()
            self._received += payload
            self._used += len(payload)
            self._take_frames()
            if self.is_reading and self._used >= self.page.credit // 2:
                self.page.put(record(CREDIT, self.channel, struct.pack("!I", self._used)))
                self._used = 0

    def end(self) -> None:
        if not self._sent_end:
            self._sent_end = True
            self.page.put(record(END, self.channel))

    def _take_frames(self) -> None:
        while (head := read_header(bytes(self._received[:14]))) is not None:
            end = head.size + head.length
            if len(self._received) < end:
                return
            assert not head.key
            payload = bytes(self._received[head.size : end])
            del self._received[:end]
            if head.opcode < Opcode.CLOSE:
                self._kind = head.opcode or self._kind
                self._message += payload
                if head.fin:
                    message, self._message = bytes(self._message), bytearray()
                    self.messages.put(message.decode() if self._kind == Opcode.TEXT else message)
            elif head.opcode == Opcode.PING:
                self.send_frame(Opcode.PONG, payload)
            elif head.opcode == Opcode.CLOSE:
                self.close_frame = read_close_payload(payload)
                self.close(1000 if self.close_frame[0] == 1005 else self.close_frame[0])


class Page:
    """One session, and the WebSockets on it."""

    def __init__(
        self,
        port: int,
        path: str = "/echo",
        *,
        mode: int = STREAM,
        seconds: int = 50,
        credit: int = 1 << 20,
        request: Callable[..., Reply] = post,
        **headers: str | None,
    ) -> None:
        self.port, self.path = port, path
        self.mode, self.credit = mode, credit
        self.seconds = min(seconds, 1) if mode == POLL else seconds  # a test waits for that long
        self.headers = headers
        self.request = request
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self.token = b""
        self.sockets: dict[int, Socket] = {}
        self.channels = 0
        self._records = Records()
        self.received = 0  # of the down stream
        self._told = 0
        self._told_at = 0.0
        self._must_answer = False
        self._unacknowledged = bytearray()
        self._up_start = 0  # the offset of its first byte
        self._up_sent = 0  # the offset that has been sent, at least once
        self._number = 0
        self.is_over = threading.Event()
        self.status: int | None = None  # that ended it
        self.written = 0
        self.pings = 0
        self.acks = 0
        self._reply: Reply | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Go without a word."""
        self.over()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def over(self, status: int | None = None) -> None:
        with self._changed:
            if not self.is_over.is_set():
                self.status = status
            self.is_over.set()
            self._changed.notify_all()
            if self._reply is not None:
                self._reply.close()
            for socket in self.sockets.values():
                socket.closed.set()

    def socket(self, path: str | None = None, *, subprotocols: str = "", **headers: Any) -> Socket:
        """Open a WebSocket; raises AssertionError where it is refused."""
        with self.lock:
            self.channels += 1
            socket = self.sockets[self.channels] = Socket(self, self.channels)
        body = open_body(
            socket.channel,
            token=self.token,
            mode=self.mode,
            seconds=self.seconds,
            credit=self.credit,
            subprotocols=subprotocols,
        )
        reply = self.request(self.port, path or self.path, body, **{**self.headers, **headers})
        if self.token:
            assert reply.status == 204, (reply.status, reply.read())
            reply.close()
        else:
            assert reply.status == 200, (reply.status, reply.read())
            head = reply.read_exactly(2)
            self.session = NewSession(head + reply.read_exactly(head[1] + 21))
            self.token = self.session.token
            down = functools.partial(self._run_down, reply)
            for target in (down, self._run_up, self._run_up):
                thread = threading.Thread(target=target, daemon=True)
                self._threads.append(thread)
                thread.start()
        assert socket.opened.wait(PATIENCE)
        return socket

    # -- up ----------------------------------------------------------------------------------------

    def put(self, data: bytes) -> None:
        with self._changed:
            self._unacknowledged += data
            self._changed.notify_all()

    def _has_something(self) -> bool:
        if self.is_over.is_set() or self._must_answer:
            return True
        if self._up_sent < self._up_start + len(self._unacknowledged):
            return True
        return self.received - self._told >= 256 * 1024

    def _run_up(self) -> None:
        """One of two: so that there are two requests at a time at most."""
        while True:
            with self._changed:
                waits = None if self.received == self._told else 1.0
                self._changed.wait_for(self._has_something, waits)
                if self.is_over.is_set():
                    return
                self._must_answer = False
                offset = self._up_sent
                data = self._take_piece()
                received = self._told = self.received
            self._send(offset, data, received)

    def _take_piece(self) -> bytes:
        """What is sent next."""
        start = self._up_sent - self._up_start
        data = bytes(self._unacknowledged[start : start + self.piece()])
        self._up_sent += len(data)
        return data

    @property
    def unacknowledged(self) -> int:
        """Bytes of the up stream."""
        return len(self._unacknowledged)

    def piece(self) -> int:
        """Bytes that the next request may have."""
        return int(self.session.largest) - 300

    def _send(self, offset: int, data: bytes, received: int) -> None:
        try:
            body = up_body(self.token, offset, data, received)
            reply = self.request(self.port, self.path, body, **self.headers)
            try:
                reply.read()
            finally:
                reply.close()
        except (OSError, http.client.HTTPException, ValueError):
            self._again()
            return
        self._settle(reply.status, reply.headers.get("plainsocket"))

    def _settle(self, status: int, told: str | None) -> None:
        """What the answer to an up request has said."""
        if status == 204:
            assert told is not None
            acknowledged, self.written = map(int, told.split())
            self._acknowledge(acknowledged)
        elif status in (408, 409, 429) or status >= 500:
            self._again()
        else:
            self.over(status)

    def _again(self) -> None:
        """Send what is not acknowledged once more."""
        time.sleep(0.01)
        with self._changed:
            self._up_sent = self._up_start
            self._must_answer = True
            self._changed.notify_all()

    def _acknowledge(self, offset: int) -> None:
        with self.lock:
            if offset > self._up_start:
                del self._unacknowledged[: offset - self._up_start]
                self._up_start = offset
                self._up_sent = max(self._up_sent, offset)

    # -- down --------------------------------------------------------------------------------------

    def _run_down(self, reply: Reply | None) -> None:
        offset = 0
        while not self.is_over.is_set():
            try:
                if reply is None:
                    reply, offset = self._ask()
                    if reply is None:
                        continue
                self._reply = reply
                while data := reply.read_some():
                    self._take(offset, data)
                    offset += len(data)
            except (OSError, http.client.HTTPException, ValueError, AttributeError):
                time.sleep(0.01)
            if reply is not None:
                reply.close()
            reply = None

    def _ask(self) -> tuple[Reply | None, int]:
        self._number += 1
        offset = self._told = self.received
        body = down_body(self.token, offset, self._number, mode=self.mode, seconds=self.seconds)
        reply = self.request(self.port, self.path, body, **self.headers)
        if reply.status in (408, 429) or reply.status >= 500:
            reply.close()
            time.sleep(0.01)
            return None, 0
        if reply.status != 200:
            reply.close()
            self.over(reply.status)
            return None, 0
        head = reply.read_exactly(9)
        assert head[0] == 3
        return reply, int.from_bytes(head[1:], "big")  # higher, where an up request was faster

    def _take(self, offset: int, data: bytes) -> None:
        with self._changed:
            assert offset <= self.received
            data = data[self.received - offset :]
            self.received += len(data)
            for kind, channel, payload in self._records.feed(data):
                if kind == PING:
                    self.pings += 1
                    self._must_answer = True
                elif kind == ACK:
                    self.acks += 1
                    self._acknowledge(int.from_bytes(payload, "big"))
                elif not channel:
                    self.over()
                else:
                    self.sockets[channel].take(kind, payload)
            self._changed.notify_all()


def converse(sockets: list[Socket], size: int) -> None:
    """Have messages of all kinds echoed on all of them, the largest of `size` bytes; close them."""
    for message in ("one", b"", "\N{SNOWMAN}" * 9000, bytes(size)):
        for ws in sockets:
            ws.send(message)
        for ws in sockets:
            assert ws.receive() == message
    for ws in sockets:
        ws.close(4000)
        assert ws.closed.wait(PATIENCE)
        assert ws.close_frame == (4000, "")
