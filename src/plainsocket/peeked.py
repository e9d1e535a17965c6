"""The upgrade's fast path: a plain request for a WebSocket, answered without pywsgi.

The request's head is peeked at. What is not one such request, whole and flawless, stays unread
for pywsgi, which answers everything else.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

import gevent

from . import lines
from .carriers import calls
from .endpoint import is_endpoint
from .handshake import Accepted, Precedents, Refused, Request
from .head import Head, HeadError, find_end, is_authority, parse_head
from .opening import address_name, believe_proxies, gevent_socket, refusal_headers
from .options import Options
from .routed import Routed
from .websocket import WebSocket

if TYPE_CHECKING:
    from .server import HTTPServer

PEEK_SIZE: Final = 8192  # bytes: a head that is longer is no plain one


class PeekedRequest(Request):
    """A request of which only the head's bytes are kept.

    They are read again where somebody asks: what they say would take ten times their memory for
    as long as the connection lasts.
    """

    __slots__ = ("_address", "_data", "_make_environ", "_options", "_path", "answer", "said")

    # The slots that Request has for what are properties here.
    _context: Any = vars(Request)["context"]
    _environ: Any = vars(Request)["environ"]
    _headers: Any = vars(Request)["headers"]
    _response_headers: Any = vars(Request)["response_headers"]

    def __init__(
        self,
        data: bytes,
        path: str,
        headers: dict[str, str] | None,
        address: Any,
        options: Options,
        make_environ: Callable[[], dict[str, Any]],
    ) -> None:
        """`headers`: None where they have not been read. `make_environ` makes what is the same in
        the environ of all requests."""
        self.method = "GET"
        self.version = "HTTP/1.1"
        self.subprotocol = None
        self.compression = None
        self.answer: bytes | None = None
        """The head of the 101, where one like it has been accepted before."""
        self.said: bytes | None = None
        """What to remember it by, where it is accepted."""
        self._context = None
        self._response_headers = None
        self._data = data
        """The head; and behind it, once the handshake is done, host and port of the client."""
        self._headers = headers
        self._address = address
        self._options = options
        self._make_environ = make_environ
        self._environ = None
        self._path: str | None = _decoded(path)

    def read_head(self) -> Head:
        """What the head's bytes say."""
        return parse_head(self._data[: self.size], max_headers=self._options.max_headers)

    @property
    def size(self) -> int:
        """Bytes of the head."""
        return self._data.rindex(_END) + len(_END)

    def forget(self) -> None:
        """The handshake is done: the bytes will do."""
        self._headers = self._path = self.answer = self.said = None
        if not self._response_headers:
            self._response_headers = None
        if isinstance(self._address, tuple):
            self._data += f"{self._address[0]} {self._address[1]}".encode()
            self._address = None

    @property
    def address(self) -> Any:
        """The peer's: host and port; or what a Unix socket has."""
        if self._address is not None:
            return self._address
        host, _, port = self._data[self.size :].decode().rpartition(" ")
        return host, int(port)

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
        if self._address is None:
            return self._data[self.size :].rpartition(b" ")[0].decode()
        return self._address[0] if isinstance(self._address, tuple) else None

    def _build_environ(self) -> dict[str, Any]:
        """As pywsgi does for the same request."""
        head = self.read_head()
        environ = self._make_environ()
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


_END: Final = b"\r\n\r\n"


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode(errors="replace") if "%" in path else path


def read_request(
    data: bytes,
    address: Any,
    options: Options,
    make_environ: Callable[[], dict[str, Any]],
    precedents: Precedents | None = None,
) -> PeekedRequest | None:
    """The request at the beginning of `data`, if it is a plain one for a WebSocket.

    If one that says the same as a known one, it has its `answer`.
    """
    if not data.startswith(b"GET "):
        return None
    said = None
    if precedents is not None and precedents.are_kept:
        cut = lines.cut_upgrade(data, options.max_headers)
        if cut is not None and cut[0] <= options.max_head_size:
            size, path, accept, said = cut
            found = precedents.find(said)
            if found is not None:
                request = PeekedRequest(data[:size], path, None, address, options, make_environ)
                request.answer = found.head(accept)
                request.subprotocol = found.subprotocol
                request.compression = found.compression
                return request
    read = _read_plain(data, options) or _read_any(data, options)
    if read is None or read[2].get("upgrade", "").lower() != "websocket":
        return None
    size, path, fields = read
    request = PeekedRequest(data[:size], path, fields, address, options, make_environ)
    request.said = said
    return request


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
        size = find_end(data, max_size=min(options.max_head_size, PEEK_SIZE))
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


class PeekedHost(Routed):
    """Serves a request that was peeked at, without pywsgi."""

    __slots__ = ("_deadline", "_request", "_socket", "options")

    def __init__(
        self, server: HTTPServer, sock: Any, deadline: float, request: PeekedRequest
    ) -> None:
        self.server = server
        self.options = server.owner.options
        self.reserved = None
        self._socket = sock
        self._deadline = deadline
        self._request = request

    def run(self) -> None:
        """Answer the request, and serve its WebSocket; but what has no handler is pywsgi's."""
        request = self._request
        try:
            handler = self.server.owner.handler_of(request)
            if handler is None:
                sock, self._socket = self._socket, None
                self.server.serve_by_pywsgi(sock, request.address, self._deadline)
                return
            self.reserve_address(request)
            if request.answer is None:
                self.server.serve_websocket(self, handler, request)
            elif is_endpoint(handler):
                websocket = self.new_websocket(request)
                runner = self.server.new_runner(handler, websocket)
                self._start(websocket, request.answer)
                websocket.start_endpoint(runner)
            else:
                websocket = self.new_websocket(request)
                self._start(websocket, request.answer)
                self.run_handler(websocket, handler)
        except Refused as refused:
            self.refuse(refused)
        except Exception as error:
            if not self.is_open:
                self.fail()
            elif not isinstance(error, ConnectionError):  # or it is just gone
                raise
        finally:
            self.release_address()
            self.close()

    @property
    def client_name(self) -> str:
        return address_name(self._request.client)

    @property
    def is_open(self) -> bool:
        """Whether the connection has been taken over, or answered."""
        return self._socket is None

    @property
    def environ(self) -> dict[str, Any]:  # type: ignore[override]
        return {}  # nothing that this class does needs one to be built

    def open_websocket(self, websocket: WebSocket, accepted: Accepted) -> None:
        request = self._request
        if request.said is not None:
            self.server.precedents.add(request.said, request, accepted)
        self._start(websocket, accepted.head)

    def _start(self, websocket: WebSocket, head: bytes) -> None:
        websocket.start(self._take_socket(), head=head)
        self.observe_opening(websocket)
        self.enter(websocket)
        self._request.forget()  # at last: what has been asked of it until here is still at hand

    def refuse(self, refused: Refused) -> None:
        """Answer with a refusal, and log it."""
        self.report_refusal(self._request, refused)
        headers = "".join(f"{name}: {value}\r\n" for name, value in refusal_headers(refused))
        self._answer(f"{refused.status_line}\r\n{headers}", refused.body)

    def fail(self) -> None:
        """In an `except` block: answer 500 for an error that is the server's own."""
        gevent.get_hub().handle_error((self.client_name, self._request.path), *sys.exc_info())
        self.observe_refusal(500)
        self._answer(
            "500 Internal Server Error\r\nConnection: close\r\nContent-Type: text/plain\r\n"
            "Content-Length: 21\r\n",
            "Internal Server Error",
        )

    def close(self) -> None:
        """Close the connection, unless it has been taken over."""
        if self._socket is not None:
            self._socket.close()

    def _answer(self, head: str, body: str) -> None:
        sock = gevent_socket(self._take_socket())
        date = f"Date: {formatdate(usegmt=True)}\r\n\r\n"
        with contextlib.suppress(OSError):
            sock.settimeout(self.options.handshake_timeout)
            sock.sendall(f"HTTP/1.1 {head}{date}".encode("latin-1") + body.encode())
        sock.close()

    def _take_socket(self) -> Any:
        """Read from the socket what was only peeked at, and not a byte more."""
        sock, self._socket = self._socket, None
        calls.skip(sock.fileno(), self._request.size)
        return sock
