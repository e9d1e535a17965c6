"""Every option of a server, with its default, in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Options of the connections of a server. Sizes are in bytes, times in seconds.

    `serve` and `Server` take these as keywords; a `WebSocketHandler` subclass sets them as
    `options = Options(…)`.
    """

    origins: str | Sequence[str] | None = None
    """Which pages may connect, by their Origin. None: those of this server's own host name, on
    any port; `"*"`: all; otherwise a list of origins such as `"https://example.com"`. A client
    that sends no Origin is no browser and may connect."""

    subprotocols: Sequence[str] = ()
    """Subprotocols that the server speaks, the preferred one first; the first one that the client
    offers is taken."""

    max_message_size: int = 1 << 20
    """Largest message taken; a longer one ends its connection with 1009. Text counts as UTF-8."""

    max_fragments: int = 1 << 16
    """Most frames that one message may come in; more end the connection with 1008."""

    handshake_timeout: float = 10.0
    """Longest that a request's head may take to arrive, from the connection's start (or from the
    request before it); then 408."""

    ping_interval: float | None = 20.0
    """Silence after which the peer is pinged; None: never."""

    ping_timeout: float = 20.0
    """Silence after a ping that ends the connection with 1006."""

    close_timeout: float = 10.0
    """Longest wait for the peer's part of a close; then the connection is cut."""

    write_limit: int = 256 * 1024
    """Bytes waiting to be sent at which `send` begins to wait for the peer."""

    send_timeout: float = 60.0
    """Longest that waiting bytes may stand still (less than 64 KiB of them taken); then the
    connection ends with 1006."""

    stop_timeout: float = 10.0
    """Longest that handlers may go on after the server was told to stop; then they are cut."""

    def __post_init__(self) -> None:
        for name in ("max_message_size", "max_fragments", "write_limit"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}")
        for name in (
            "handshake_timeout",
            "ping_interval",
            "ping_timeout",
            "close_timeout",
            "send_timeout",
            "stop_timeout",
        ):
            value = getattr(self, name)
            if name == "ping_interval" and value is None:
                continue
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{name} must be a number of seconds, not {value!r}")
            if value < 0 or (value == 0 and name != "stop_timeout"):
                raise ValueError(f"{name} must be above 0 s, not {value!r}")
        if isinstance(self.subprotocols, str):
            raise TypeError("subprotocols is a list of names, not one str")
        if isinstance(self.origins, str) and self.origins != "*":
            raise TypeError('origins is "*" or a list of origins, not one str')
