"""Every option of a server, with its default, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from .forwarded import TrustedProxies
from .origin import check_patterns

if TYPE_CHECKING:
    from .flashpolicy import FlashPolicy
    from .handshake import Request
    from .nodes import Nodes
    from .websocket import WebSocket


class Observer(Protocol):
    """Is told what happens to connections, each time in a greenlet and never in the hub."""

    def opened(self, websocket: WebSocket) -> object:
        """The 101 has been sent."""

    def closed(self, websocket: WebSocket) -> object:
        """The socket is closed; the WebSocket still tells its code and counts."""

    def refused(self, status: int) -> object:
        """A request was refused with this HTTP status by plainsocket, not by an application."""


@dataclass(frozen=True)
class Options:
    """Options of the connections of a server. Sizes are in bytes, times in seconds.

    `serve` and `Server` take these as keywords; a `WebSocketHandler` subclass sets them as
    `options = Options(…)`.
    """

    origins: str | Sequence[str] | Callable[[str, Request], bool] | None = None
    """Which pages may connect, by their Origin. None: those of this server's own host name, on
    any port. `"*"`: all. A list of origins such as `"https://example.com"`, in which `"self"` is
    the default rule, and a `*` stands for any run of letters, digits, dots and hyphens:
    `["self", "https://*.example.com", "http://localhost:*"]`. Or a function of the Origin and the
    request. Others are refused with 403. A client that sends no Origin is no browser, and may
    connect."""

    subprotocols: Sequence[str] = ()
    """Subprotocols that the server speaks, the preferred one first; the first one that the client
    offers is taken."""

    process_request: Callable[[Request], object] | None = None
    """Called with each good handshake before it is answered; may wait. It refuses by raising
    `Refused(status, body, headers)`, adds to the 101 by `request.response_headers`, chooses the
    subprotocol by `request.subprotocol`, and leaves what the handler needs in
    `request.context`."""

    trusted_proxies: Sequence[str] = ()
    """Addresses and networks (`"10.0.0.0/8"`) of the proxies whose word counts for who the client
    is, by `Forwarded` or `X-Forwarded-For`; `"unix"` for all peers of a Unix socket."""

    proxy_protocol: bool = False
    """Whether each connection begins with a PROXY header, version 1 or 2. It is taken only from
    `trusted_proxies`; other peers are cut."""

    flash_policy: FlashPolicy | None = None
    """What Flash Player is answered that asks on this port which programs may open sockets (see
    `plainsocket.flashpolicy`). None: it is told nothing. `serve` and `Server` take more: True
    allows this port and the pages that `origins` allows; a port, such as 843, or a
    `FlashPolicyServer` answer there as well."""

    observer: Observer | None = None
    """Told of what happens, to count it (see `plainsocket.metrics`)."""

    max_head_size: int = 16 * 1024
    """Largest request head taken, in bytes; a larger one is answered with 431, or 414 if that is
    its first line."""

    max_headers: int = 100
    """Most header fields in a request; more are answered with 431."""

    handshake_timeout: float = 10.0
    """Longest that a request's head may take to arrive, from the connection's start (with TLS and
    PROXY protocol) or from the request before it; then 408, or nothing if none of it came."""

    max_body_size: int = 64 << 20
    """Largest body of an ordinary request that an application may read, in bytes; 413."""

    body_timeout: float = 30.0
    """Longest that 64 KiB of such a body may take; then 408, if nothing was answered yet."""

    max_connections: int | None = None
    """Most connections at a time; more are answered with 503. None: what the process's limit of
    open files allows."""

    max_connections_per_address: int | None = None
    """Most WebSockets of one client address (see `trusted_proxies`); more are answered with 429.
    None: no limit."""

    max_message_size: int = 1 << 20
    """Largest message taken; a longer one ends its connection with 1009. Text counts as UTF-8."""

    max_fragments: int = 1 << 16
    """Most frames that one message may come in; more end the connection with 1008."""

    message_timeout: float = 60.0
    """Longest that a message may stand unfinished while less than 64 KiB of it arrive; then
    1008."""

    read_limit: int = 64 * 1024
    """Messages received and not taken, in bytes, at which reading pauses, and the peer has to
    wait. Also the most that one batch is read from."""

    batch_time: float = 0.005
    """Longest that a connection's handler may go from message to message before others have
    their turn."""

    max_handlers: int = 1000
    """Most methods of Endpoints that run at the same time; the other connections wait."""

    dispatch_timeout: float = 30.0
    """Longest that they wait for that; then 1013."""

    ping_interval: float | None = 20.0
    """Silence after which the peer is pinged; None: never."""

    ping_timeout: float = 20.0
    """Silence after a ping that ends the connection with 1006."""

    close_timeout: float = 10.0
    """Longest wait for the peer's part of a close; then the connection is cut (1006)."""

    write_limit: int = 256 * 1024
    """Bytes waiting to be sent at which `send` begins to wait for the peer."""

    send_timeout: float = 60.0
    """Longest that waiting bytes may stand while the peer takes less than 64 KiB of them; then
    the connection ends with 1006."""

    http_carrier: bool = True
    """Whether pages may come by ordinary HTTP requests where WebSocket does not get through
    (docs/http-carrier.md)."""

    http_polling: bool = True
    """Whether they may go over to long polling where something on the way holds streaming responses
    back; otherwise their WebSockets end with 1006 there."""

    browser_files: bool = True
    """Whether `/plainsocket.js`, and the other files of the browser half beside it, are served."""

    http_sessions: int = 1000
    """Most pages that do so at a time; more are answered with 503."""

    http_sessions_per_address: int | None = None
    """Most of them of one client address (see `trusted_proxies`); more are answered with 429. None:
    no limit, as a whole company may come from one address."""

    http_channels: int = 64
    """Most WebSockets of one such page that share its requests; then it gets another session."""

    http_window: int = 16 << 20
    """Bytes that such a page may leave unacknowledged, and that it may send ahead of the
    handlers; then they wait. Of the latter a page's only WebSocket may use all, and several share a
    quarter."""

    nodes: Nodes | None = None
    """Where the other processes are found that serve the same pages, so that requests of the http
    carrier's reach the one that holds their session (see `plainsocket.nodes`). None: there are
    none, or gunicorn tells of them."""

    compression: bool = False
    """Whether to compress messages where the peer can too (permessage-deflate, RFC 7692). What it
    costs and when it pays: docs/compression.md."""

    compression_threshold: int = 256
    """Smallest message sent compressed, in bytes of its own; 0: all are, even those that do not
    become smaller."""

    compression_level: int = 1
    """zlib's, from 1 (least time) to 9 (smallest)."""

    compression_context: bool = False
    """Whether messages are compressed with those before in mind, which makes small ones much
    smaller, and costs memory for each connection (RFC 7692's context takeover)."""

    compression_window_bits: int = 12
    """How far such a memory goes: 2 to this power bytes, from 9 to 15."""

    compression_idle: float = 10.0
    """Time without a compressed message after which a connection's compressor is dropped."""

    stop_timeout: float = 10.0
    """Longest that handlers may go on after the server was told to stop; then they are cut."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is None and name in _MAY_BE_NONE:
                continue
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}")
        for name in _TIMES:
            value = getattr(self, name)
            if value is None and name in _MAY_BE_NONE:
                continue
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{name} must be a number of seconds, not {value!r}")
            if value < 0 or (value == 0 and name != "stop_timeout"):
                least = "0 s or more" if name == "stop_timeout" else "above 0 s"
                raise ValueError(f"{name} must be {least}, not {value!r}")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= (high or value):
                upto = "on" if high is None else f"to {high}"
                raise ValueError(f"{name} must be a whole number from {low} {upto}, not {value!r}")
        if isinstance(self.origins, Sequence) and not isinstance(self.origins, str):
            check_patterns(self.origins)
        TrustedProxies(self.trusted_proxies)
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError("proxy_protocol needs trusted_proxies: whose PROXY headers to believe")
        # By its manners, because an optional part is not imported here.
        if self.flash_policy is not None and not hasattr(self.flash_policy, "reads_request"):
            raise TypeError("flash_policy is a FlashPolicy; serve() and Server take a port too")
        if isinstance(self.subprotocols, str):
            raise TypeError("subprotocols is a list of names, not one str")
        if isinstance(self.origins, str) and self.origins != "*":
            raise TypeError('origins is "*", a list of origins or a function, not one str')


_COUNTS: Final = (
    "max_head_size",
    "max_headers",
    "max_body_size",
    "max_connections",
    "max_connections_per_address",
    "max_message_size",
    "max_fragments",
    "read_limit",
    "max_handlers",
    "write_limit",
    "http_sessions",
    "http_sessions_per_address",
    "http_channels",
    "http_window",
)
_TIMES: Final = (
    "handshake_timeout",
    "body_timeout",
    "message_timeout",
    "dispatch_timeout",
    "batch_time",
    "ping_interval",
    "ping_timeout",
    "close_timeout",
    "send_timeout",
    "compression_idle",
    "stop_timeout",
)
_RANGES: Final = (
    ("compression_threshold", 0, None),
    ("compression_level", 1, 9),
    ("compression_window_bits", 9, 15),
)
_MAY_BE_NONE: Final = (
    "max_connections",
    "max_connections_per_address",
    "http_sessions_per_address",
    "ping_interval",
)
