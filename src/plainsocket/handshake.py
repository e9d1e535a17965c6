"""The opening handshake, server side (RFC 6455 section 4.2): a request becomes a 101 or a refusal.

No I/O.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from .deflate import Agreement, ExtensionError, accept_offer
from .options import Options
from .origin import host_name, host_of, is_allowed

try:  # OpenSSL's takes four times as long to set up
    from _sha1 import sha1  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha1

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
PROBE: Final = "plainsocket.probe"
"""The subprotocol by which a page finds out whether WebSocket gets through; no handler sees it."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2


@dataclass(slots=True)
class Request:
    """What a handshake is judged by."""

    method: str
    version: str
    """Such as "HTTP/1.1"."""
    headers: Mapping[str, str]
    """By lower-case name; repeated ones joined by commas."""
    environ: dict[str, Any] = field(default_factory=dict, repr=False)
    """The WSGI environ of the request (PEP 3333)."""

    context: dict[str, Any] = field(default_factory=dict, repr=False)
    """For `process_request`, to leave what the handler needs: it finds it at
    `ws.request.context`."""
    response_headers: list[tuple[str, str]] = field(default_factory=list, repr=False)
    """For `process_request`, to add headers to the 101, cookies for instance."""
    subprotocol: str | None = None
    """For `process_request`, to choose one of those that the client offers."""

    compression: Agreement | None = field(default=None, repr=False)
    """What is agreed on about compression, or None; `process_request` may set it to None."""

    @classmethod
    def from_environ(cls, environ: dict[str, Any]) -> Request:
        """Read it from a WSGI environ."""
        headers = {
            key[5:].replace("_", "-").lower(): value.strip()
            for key, value in environ.items()
            if key.startswith("HTTP_")
        }
        if environ.get("CONTENT_LENGTH"):
            headers["content-length"] = environ["CONTENT_LENGTH"]
        return cls(
            method=environ["REQUEST_METHOD"],
            version=environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
            headers=headers,
            environ=environ,
        )

    @property
    def path(self) -> str:
        """The path, percent-decoded (WSGI's SCRIPT_NAME + PATH_INFO)."""
        path = f"{self.environ.get('SCRIPT_NAME', '')}{self.environ.get('PATH_INFO', '')}"
        return path.encode("latin-1").decode(errors="replace")  # WSGI's strings are bytes

    @property
    def query(self) -> str:
        """What stands behind the `?`, as it came."""
        return str(self.environ.get("QUERY_STRING", ""))

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of the request (RFC 6265 section 4.2).

        Read as browsers and frameworks do: an odd one, perhaps another program's on the same host,
        does not hide the others.
        """
        cookies: dict[str, str] = {}
        for pair in self.headers.get("cookie", "").split(";"):
            name, equals, value = pair.partition("=")
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            if equals:
                cookies.setdefault(name.strip(), value)  # the most specific one comes first
        return cookies

    @property
    def remote_address(self) -> str | None:
        """The client's IP address; None where it has none, as behind a Unix socket."""
        return self.environ.get("REMOTE_ADDR")

    @property
    def client(self) -> Any:
        """The client's IP address and port, or what a Unix socket has instead, for the log."""
        address = self.remote_address
        return address and (address, self.environ.get("REMOTE_PORT", 0))

    @property
    def wants_websocket(self) -> bool:
        """Whether it asks for a WebSocket, rightly or not."""
        return _lists(self.headers.get("upgrade", ""), "websocket")


@dataclass(frozen=True)
class Accepted:
    """The handshake is good."""

    headers: list[tuple[str, str]]
    """Of the 101."""

    is_probe: bool = False
    """Whether no handler shall see the WebSocket (`probe.answer`)."""

    @property
    def head(self) -> bytes:
        """The 101 as bytes."""
        lines = ["HTTP/1.1 101 Switching Protocols"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Refused(Exception):
    """A handshake is refused, with an HTTP response.

    `process_request` may raise it. `status` is the HTTP status, `body` is for the person who
    reads it (`str`, sent as UTF-8), `headers` are added to the response. Raises ValueError for a
    status that is none, and for header lines that would not be one line.
    """

    def __init__(
        self, status: int, body: str = "", headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        super().__init__(status, body)
        self.status = HTTPStatus(status)
        self.body = body
        self.headers = checked(headers)

    @property
    def status_line(self) -> str:
        return f"{self.status.value} {self.status.phrase}"


def checked(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    pairs = list(headers)
    for name, value in pairs:
        if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise ValueError(f"not a header: {name!r}: {value!r}")
        value.encode("latin-1")
    return pairs


def accept(request: Request, options: Options) -> Accepted:
    """Accept `request`, or raise Refused. Calls `options.process_request`."""
    headers = request.headers
    if request.method != "GET":
        raise Refused(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"A WebSocket is opened by GET, not {printable(request.method)}.",
            [("Allow", "GET")],
        )
    if not request.wants_websocket:
        raise upgrade_required(request)
    if request.version != "HTTP/1.1":
        version = printable(request.version)
        raise _bad_request(f"A WebSocket is opened over HTTP/1.1, not {version}.")
    if not _lists(headers.get("connection", ""), "upgrade"):
        raise _bad_request(
            'The header "Connection: Upgrade" is missing. If the client sent it, a proxy between '
            "has removed it and must be told to pass it on."
        )
    own_host = host_name(headers.get("host", ""))
    if own_host is None:
        raise _bad_request("The Host header is missing or malformed.")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _bad_request("A request that opens a WebSocket has no body.")
    if headers.get("sec-websocket-version") != "13":
        version = printable(headers.get("sec-websocket-version", "missing"))
        raise Refused(
            HTTPStatus.UPGRADE_REQUIRED,
            "This server speaks WebSocket version 13 (RFC 6455) only; the request's "
            f"Sec-WebSocket-Version is {version}.",
            [("Sec-WebSocket-Version", "13"), *_UPGRADE],
        )
    key = headers.get("sec-websocket-key", "")
    if not _KEY.fullmatch(key):
        raise _bad_request("Sec-WebSocket-Key must be 16 bytes in base64.")
    _check_origin(request, own_host, options)
    offered = _offered_subprotocols(headers.get("sec-websocket-protocol"))
    if offered == [PROBE]:
        request.subprotocol, request.compression = PROBE, None
        answer = [*_UPGRADE, ("Sec-WebSocket-Accept", accept_key(key))]
        return Accepted([*answer, ("Sec-WebSocket-Protocol", PROBE)], is_probe=True)
    request.subprotocol = None
    for name in options.subprotocols:
        if name in offered:
            request.subprotocol = name
            break
    try:
        request.compression = accept_offer(headers.get("sec-websocket-extensions"), options)
    except ExtensionError as error:
        raise _bad_request(f"{error} (RFC 6455 section 9.1).") from None
    if options.process_request is not None:
        options.process_request(request)
        if request.subprotocol is not None and request.subprotocol not in offered:
            raise ValueError(f"the client did not offer the subprotocol {request.subprotocol!r}")
    answer = [*_UPGRADE, ("Sec-WebSocket-Accept", accept_key(key))]
    if request.subprotocol is not None:
        answer.append(("Sec-WebSocket-Protocol", request.subprotocol))
    if request.compression is not None:
        answer.append(("Sec-WebSocket-Extensions", str(request.compression)))
    answer += checked(request.response_headers)
    return Accepted(answer)


_UPGRADE: Final = [("Upgrade", "websocket"), ("Connection", "Upgrade")]


class Precedents:
    """The answers to handshakes that were accepted, for others that say the same.

    Pages of one site differ in their key only. What is remembered holds as long as the options do;
    with a `process_request`, or a function that judges origins, nothing is.
    """

    __slots__ = ("_answers", "_lists", "are_kept")

    def __init__(self, options: Options) -> None:
        self.are_kept = options.process_request is None and not callable(options.origins)
        self._answers: dict[bytes, Precedent] = {}
        # Those among the options that somebody might change, and what they were.
        self._lists: list[tuple[Any, list[str]]] = [
            (each, list(each))
            for each in (options.origins, options.subprotocols)
            if isinstance(each, Sequence) and not isinstance(each, (str, tuple))
        ]

    def find(self, said: bytes) -> Precedent | None:
        """What is known about a request that is flawless and says `said` (`lines.cut_upgrade`)."""
        for each, before in self._lists:
            if list(each) != before:
                before[:] = each
                self._answers.clear()
        return self._answers.get(said)

    def add(self, said: bytes, request: Request, accepted: Accepted) -> None:
        """Remember that `request`, which says `said`, was accepted."""
        if accepted.is_probe:
            return
        if len(self._answers) >= _MOST_PRECEDENTS:
            self._answers.clear()
        key = accept_key(request.headers["sec-websocket-key"])
        before, _, after = accepted.head.partition(key.encode())
        self._answers[said] = Precedent(before, after, request.subprotocol, request.compression)


class Precedent:
    """How a handshake was accepted."""

    __slots__ = ("_after", "_before", "compression", "subprotocol")

    def __init__(
        self, before: bytes, after: bytes, subprotocol: str | None, compression: Agreement | None
    ) -> None:
        self._before = before
        self._after = after
        self.subprotocol = subprotocol
        self.compression = compression

    def head(self, accept: bytes) -> bytes:
        """The 101 as bytes, with this Sec-WebSocket-Accept."""
        return self._before + accept + self._after


_MOST_PRECEDENTS: Final = 256


def upgrade_required(request: Request) -> Refused:
    """The answer to an ordinary request where only a WebSocket is served (RFC 9110 15.5.22)."""
    body = "This address is served by WebSocket only: open it with new WebSocket(url)."
    if "sec-websocket-key" in request.headers:
        body += (
            ' The request has a Sec-WebSocket-Key but no "Upgrade: websocket": a proxy between '
            "has removed it and must be told to pass it on."
        )
    return Refused(HTTPStatus.UPGRADE_REQUIRED, body, [("Sec-WebSocket-Version", "13"), *_UPGRADE])


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    digest = sha1(key.encode("latin-1") + _GUID).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def printable(text: str) -> str:
    """Quote what a peer chose, so that it can neither forge a log line nor fill a log."""
    return ascii(text if len(text) <= 200 else text[:200] + "…")


def one_line(text: str) -> str:
    """The same for text of this end's own, in which something of a peer's may be quoted."""
    return re.sub(r"[^ -~]", lambda match: ascii(match[0])[1:-1], text[:1000])


def _bad_request(body: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, body)


def _lists(value: str, wanted: str) -> bool:
    """Whether `wanted` is one of the tokens in a list (RFC 9110 section 5.6.1)."""
    value = value.lower()
    return value == wanted or wanted in [token.strip() for token in value.split(",")]


_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64


def _offered_subprotocols(offer: str | None) -> list[str]:
    if offer is None:
        return []
    offered = [name.strip() for name in offer.split(",")]
    if not all(_TOKEN.fullmatch(name) for name in offered) or len(set(offered)) < len(offered):
        raise _bad_request("Sec-WebSocket-Protocol must list different names (RFC 6455 4.1).")
    return offered


def check_origin(request: Request, options: Options) -> None:
    """Raise Refused if the page that the request comes from may not connect."""
    _check_origin(request, host_name(request.headers.get("host", "")) or "", options)


_SELF: Final = ("self",)


def _check_origin(request: Request, own_host: str, options: Options) -> None:
    origin, origins = request.headers.get("origin"), options.origins
    if origin is None or origins == "*":
        return
    if origins is None and is_allowed(origin, _SELF, own_host):
        return
    shown = printable(origin)
    if callable(origins):
        if not origins(origin, request):
            raise Refused(HTTPStatus.FORBIDDEN, f"Pages from {shown} may not connect.")
    elif origins is None:
        if host_of(origin) is None:
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"Pages from {shown} may not connect: they have no host, and this server's is "
                f"{printable(own_host)}. Serve the page by HTTP, from the same host.",
            )
        raise Refused(
            HTTPStatus.FORBIDDEN,
            f"Pages from {shown} may not connect: their host is "
            f"{printable(host_of(origin) or origin)}, this server's is "
            f"{printable(own_host)}. To allow them, the server's operator passes "
            f"origins=['self', {shown}].",
        )
    elif not is_allowed(origin, origins, own_host):
        raise Refused(
            HTTPStatus.FORBIDDEN,
            f"Pages from {shown} may not connect: this server's list of origins does not name "
            "it. The server's operator can add it there.",
        )
