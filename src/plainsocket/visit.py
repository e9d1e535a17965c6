"""The upgrade's fast path: a plain request for a WebSocket, answered without pywsgi.

What is not one such request, whole and flawless, as soon as its first bytes are there, is left to
pywsgi.
"""

from __future__ import annotations

import contextlib
import io
import struct
import sys
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

import gevent

from . import lines
from .carriers import calls
from .deadlines import Common
from .deflate import Agreement
from .endpoint import is_endpoint
from .handshake import Accepted, Precedent, Precedents, Refused, Request
from .head import Head, HeadError, find_end, is_authority, parse_head
from .opening import address_name, believe_proxies, gevent_socket, refusal_headers
from .options import Options
from .routed import Routed
from .websocket import WebSocket

if TYPE_CHECKING:
    from .server import HTTPServer

FIRST_READ: Final = 8192
"""Bytes: a head that is longer is no plain one. And the first buffer of pywsgi's holds as many."""


class Desk:
    """What the requests of one server are read by."""

    __slots__ = ("_heads", "common", "make_environ", "options", "precedents", "server")

    def __init__(
        self,
        server: HTTPServer,
        options: Options,
        precedents: Precedents,
        make_environ: Callable[[], dict[str, Any]],
    ) -> None:
        """`make_environ` makes what is the same in the environ of all requests."""
        self.server = server
        self.options = options
        self.make_environ = make_environ
        self.precedents = precedents
        self.common: Common | None = None
        """Of the WebSockets, once there are any."""
        self._heads: dict[bytes, SharedHead] = {}

    def shared_head(self, rest: bytes, at: int, precedent: Precedent | None) -> SharedHead:
        """The one object for a head like this: see SharedHead."""
        head = self._heads.get(rest)
        if head is None or head.precedent is not precedent:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            head = self._heads[rest] = SharedHead(self, rest, at, precedent)
        return head


class SharedHead:
    """What the heads of many requests have in common: all but the Sec-WebSocket-Key."""

    __slots__ = ("at", "desk", "precedent", "rest")

    def __init__(self, desk: Desk, rest: bytes, at: int, precedent: Precedent | None) -> None:
        self.desk = desk
        self.rest = rest
        self.at = at
        """Where the key belongs; -1: `rest` is all, and not shared."""
        self.precedent = precedent
        """How one that says the same was answered before."""


def address_of(peer: int, address: Any) -> Any:
    """A client's address: `peer`, as `calls.peer` tells it, or where that is -1 `address`."""
    return calls.ipv4_address(peer) if peer >= 0 else address


class Kept:
    """What is kept of a request: its head's bytes, as what many have in common and the key.

    They are read again where somebody asks: what they say would take twenty times their memory for
    as long as the connection lasts.
    """

    __slots__ = ("_address", "_key_0", "_key_1", "_key_2", "_peer", "_shared")

    def __init__(
        self, desk: Desk, head: bytes, peer: int, address: Any, precedent: Precedent | None
    ) -> None:
        """`peer` is the client's address as `calls.peer` tells it, or -1: then it is `address`."""
        self._peer = peer
        self._address = address
        at = head.find(_KEY_HEADER) + len(_KEY_HEADER)
        end = at + _KEY.size
        if at < len(_KEY_HEADER) or head[end : end + 2] != b"\r\n":
            self._shared = SharedHead(desk, head, -1, precedent)
            self._key_0 = self._key_1 = self._key_2 = 0
        else:
            self._shared = desk.shared_head(head[:at] + head[end:], at, precedent)
            self._key_0, self._key_1, self._key_2 = _KEY.unpack_from(head, at)

    @property
    def desk(self) -> Desk:
        return self._shared.desk

    @property
    def subprotocol(self) -> str | None:
        """What was agreed on, where one that says the same was answered before."""
        precedent = self._shared.precedent
        return None if precedent is None else precedent.subprotocol

    @property
    def compression(self) -> Agreement | None:
        """The same."""
        precedent = self._shared.precedent
        return None if precedent is None else precedent.compression

    @property
    def head(self) -> bytes:
        rest, at = self._shared.rest, self._shared.at
        if at < 0:
            return rest
        return rest[:at] + _KEY.pack(self._key_0, self._key_1, self._key_2) + rest[at:]

    @property
    def address(self) -> Any:
        """The peer's: host and port; or what a Unix socket has."""
        return address_of(self._peer, self._address)

    def read(self) -> KeptRequest:
        """The request."""
        return KeptRequest(self, None, None)


_MOST_HEADS: Final = 256  # that are known to be the same when they come again
_KEY_HEADER: Final = b"\r\nSec-WebSocket-Key: "  # as all browsers spell it
_KEY: Final = struct.Struct("<3Q")  # 24 characters, as numbers: C has room for them without bytes


class KeptRequest(Request):
    """A request of which only the head's bytes are kept."""

    __slots__ = ("_path", "kept")

    # The slots that Request has for what are properties here.
    _context: Any = vars(Request)["context"]
    _environ: Any = vars(Request)["environ"]
    _headers: Any = vars(Request)["headers"]
    _response_headers: Any = vars(Request)["response_headers"]

    def __init__(self, kept: Kept, path: str | None, headers: dict[str, str] | None) -> None:
        """`path` and `headers`: None where they have not been read."""
        self.method = "GET"
        self.version = "HTTP/1.1"
        self.subprotocol = kept.subprotocol
        self.compression = kept.compression
        self._context = None
        self._response_headers = None
        self.kept = kept
        self._headers = headers
        self._environ = None
        self._path = path

    def read_head(self) -> Head:
        """What the head's bytes say."""
        return parse_head(self.kept.head, max_headers=self._options.max_headers)

    def forget(self) -> None:
        """The handshake is done: the bytes will do."""
        self._headers = self._path = None
        if not self._response_headers:
            self._response_headers = None

    @property
    def _options(self) -> Options:
        return self.kept.desk.options

    @property
    def address(self) -> Any:
        """The peer's: host and port; or what a Unix socket has."""
        return self.kept.address

    @property
    def client(self) -> Any:
        return (self._options.trusted_proxies and super().client) or self.address

    @property
    def context(self) -> dict[str, Any]:
        if self._context is None:
            self._context = {}
        context: dict[str, Any] = self._context
        return context

    @context.setter
    def context(self, context: dict[str, Any]) -> None:
        self._context = context

    @property
    def response_headers(self) -> list[tuple[str, str]]:
        if self._response_headers is None:
            self._response_headers = []
        headers: list[tuple[str, str]] = self._response_headers
        return headers

    @response_headers.setter
    def response_headers(self, headers: list[tuple[str, str]]) -> None:
        self._response_headers = headers

    @property
    def headers(self) -> dict[str, str]:  # type: ignore[override]
        return self._headers or _without_underscore(self.read_head())

    @property
    def environ(self) -> dict[str, Any]:  # type: ignore[override]
        if self._environ is None:
            self._environ = self._build_environ()
        environ: dict[str, Any] = self._environ
        return environ

    @property
    def path(self) -> str:
        if self._path is None:
            self._path = _decoded(self.read_head().path)
        return self._path

    @property
    def query(self) -> str:
        return self.read_head().query

    @property
    def remote_address(self) -> str | None:
        if self._options.trusted_proxies:
            return super().remote_address
        address = self.address
        return address[0] if isinstance(address, tuple) else None

    def _build_environ(self) -> dict[str, Any]:
        """As pywsgi does for the same request."""
        head = self.read_head()
        environ = self.kept.desk.make_environ()
        environ["REQUEST_METHOD"] = head.method
        environ["SCRIPT_NAME"] = ""
        environ["PATH_INFO"] = unquote_to_bytes(head.path).decode("latin-1")
        environ["QUERY_STRING"] = head.query
        environ["SERVER_PROTOCOL"] = head.version
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            value = head.fields.get(key.replace("_", "-").lower())
            if value is not None:
                environ[key] = value
        address = self.address
        if isinstance(address, tuple):
            environ["REMOTE_ADDR"] = str(address[0])
            environ["REMOTE_PORT"] = str(address[1])
        for name, value in head.headers:
            key = "HTTP_" + name.replace("-", "_").upper()
            if "_" in name or key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
                continue
            if key in environ:
                value = f"{environ[key]}{'; ' if 'COOKIE' in key else ','}{value}"
            environ[key] = value
        environ["wsgi.input"] = io.BytesIO()
        environ["wsgi.input_terminated"] = False
        if self._options.trusted_proxies:
            believe_proxies(environ, head.fields, self._options)
        return environ


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode(errors="replace") if "%" in path else path


def read_visit(
    desk: Desk, data: bytes, sock: Any, peer: int, address: Any, deadline: float
) -> Visit | None:
    """What serves the request at the beginning of `data`, if it is a plain one for a WebSocket.

    `peer` and `address` are those of `Kept`. The first head is to be there by `deadline`.
    """
    if not data.startswith(b"GET "):
        return None
    options, precedents = desk.options, desk.precedents
    said = None
    if precedents.are_kept:
        cut = lines.cut_upgrade(data, options.max_headers)
        if cut is not None and cut[0] <= options.max_head_size:
            size, path, accept, said = cut
            found = precedents.find(said)
            if found is not None:
                kept = Kept(desk, data[:size], peer, address, found)
                visit = Visit(desk, sock, deadline, kept, _decoded(path), data[size:])
                visit.answer = found.head(accept)
                return visit
    read = _read_plain(data, options) or _read_any(data, options)
    if read is None or read[2].get("upgrade", "").lower() != "websocket":
        return None
    size, path, fields = read
    kept = Kept(desk, data[:size], peer, address, None)
    visit = Visit(desk, sock, deadline, kept, _decoded(path), data[size:])
    visit.said = said
    visit.request = KeptRequest(kept, visit.path, fields)
    return visit


def _read_plain(data: bytes, options: Options) -> tuple[int, str, dict[str, str]] | None:
    """Size of the head, path, and headers by lower-case name, of a head as browsers send it."""
    cut = lines.cut_plain(data)
    if cut is None:
        return None
    size, target, version, fields = cut
    if (
        version != "HTTP/1.1"
        or target[0] != "/"
        or size > options.max_head_size
        or len(fields) > options.max_headers
        or "content-length" in fields
        or "transfer-encoding" in fields
        or not is_authority(fields.get("host", ""))
    ):
        return None
    return size, target.partition("?")[0], fields


def _read_any(data: bytes, options: Options) -> tuple[int, str, dict[str, str]] | None:
    """The same of any head that is flawless."""
    try:
        size = find_end(data, max_size=options.max_head_size)
        if size is None:
            return None
        head = parse_head(data[:size], max_headers=options.max_headers)
    except HeadError:
        return None
    if head.version != "HTTP/1.1" or head.is_chunked:
        return None
    return size, head.path, _without_underscore(head)


def _without_underscore(head: Head) -> dict[str, str]:
    """As pywsgi does: in a WSGI environ such a name could not be told from one with a dash."""
    return {name: value for name, value in head.fields.items() if "_" not in name}


class Visit(Routed):
    """Serves a plain request for a WebSocket, without pywsgi."""

    __slots__ = (
        "_deadline",
        "_desk",
        "_socket",
        "answer",
        "early",
        "kept",
        "path",
        "request",
        "said",
    )

    def __init__(
        self, desk: Desk, sock: Any, deadline: float, kept: Kept, path: str, early: bytes
    ) -> None:
        """`early` are bytes that came behind the request."""
        self._desk = desk
        self._socket = sock
        self._deadline = deadline
        self.kept = kept
        self.path = path
        self.early = early
        self.request: KeptRequest | None = None
        """Where all of it has been read."""
        self.answer: bytes | None = None
        """The head of the 101, where a request like it has been accepted before."""
        self.said: bytes | None = None
        """What to remember it by, where it is accepted."""
        self.reserved = None

    def run(self) -> None:
        """Answer the request, and serve its WebSocket; but what has no handler is pywsgi's."""
        server = self._desk.server
        try:
            handler = server.owner.handler_at(self.path)
            if handler is None:
                sock, self._socket = self._socket, None
                begun = self.kept.head + self.early
                server.serve_by_pywsgi(sock, self.kept.address, self._deadline, begun)
                return
            if server.owner.counts_addresses:
                self.reserve_address(self._read())
            if self.answer is None:
                server.serve_websocket(self, handler, self._read())
                return
            desk = self._desk
            if desk.common is None:
                desk.common = Common.of(desk.options)
            websocket = WebSocket(desk.options, self.kept, common=desk.common)
            if is_endpoint(handler):
                runner = server.new_runner(handler, websocket)
                self._start(websocket, self.answer)
                server.start_endpoint(runner)
            else:
                self._start(websocket, self.answer)
                self.run_handler(websocket, handler)
        except Refused as refused:
            self.refuse(refused)
        except Exception as error:
            if not self.is_open:
                self.fail()
            elif not isinstance(error, ConnectionError):  # or it is just gone
                raise
        finally:
            if self.reserved is not None:
                self.release_address()
            if self._socket is not None:
                self._socket.close()

    @property
    def server(self) -> HTTPServer:  # type: ignore[override]
        return self._desk.server

    @property
    def options(self) -> Options:  # type: ignore[override]
        return self._desk.options

    @property
    def client_name(self) -> str:
        return address_name(self._read().client)

    @property
    def is_open(self) -> bool:
        """Whether the connection has been taken over, or answered."""
        return self._socket is None

    def enter(self, websocket: WebSocket) -> None:
        server = self._desk.server
        if self.reserved is not None:
            self.release_address()
        server.owner.add(websocket)
        if server.is_over:
            self.turn_out(websocket)

    def let_go(self, websocket: WebSocket) -> None:
        self._desk.server.owner.remove(websocket)  # and nothing else knows of it

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        request = self._read()
        if self.said is not None:
            self._desk.precedents.add(self.said, request, accepted)
        self._start(websocket, accepted.head)
        request.forget()  # at last: what has been asked of it until here is still at hand

    def _read(self) -> KeptRequest:
        """The request, all of it."""
        if self.request is None:
            self.request = self.kept.read()
        return self.request

    def _start(self, websocket: WebSocket, head: bytes) -> None:
        sock, self._socket = self._socket, None
        websocket.start(sock, self.early, head)
        if self.options.observer is not None:
            self.observe_opening(websocket)
        self.enter(websocket)
        # Not to be kept as long as the connection lasts:
        self.answer = self.said = None
        self.early = b""

    def refuse(self, refused: Refused) -> None:
        """Answer with a refusal, and log it."""
        self.report_refusal(self._read(), refused)
        headers = "".join(f"{name}: {value}\r\n" for name, value in refusal_headers(refused))
        self._answer(f"{refused.status_line}\r\n{headers}", refused.body)

    def fail(self) -> None:
        """In an `except` block: answer 500 for an error that is the server's own."""
        gevent.get_hub().handle_error((self.client_name, self.path), *sys.exc_info())
        self.observe_refusal(500)
        self._answer(
            "500 Internal Server Error\r\nConnection: close\r\nContent-Type: text/plain\r\n"
            "Content-Length: 21\r\n",
            "Internal Server Error",
        )

    def _answer(self, head: str, body: str) -> None:
        sock, self._socket = gevent_socket(self._socket), None
        date = f"Date: {formatdate(usegmt=True)}\r\n\r\n"
        with contextlib.suppress(OSError):
            sock.settimeout(self.options.handshake_timeout)
            sock.sendall(f"HTTP/1.1 {head}{date}".encode("latin-1") + body.encode())
        sock.close()
