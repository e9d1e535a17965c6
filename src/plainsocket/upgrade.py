"""The opening handshake, client side (RFC 6455 section 4.1): a request out, the 101 checked.

No I/O.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .errors import HandshakeError
from .handshake import accept_key, checked
from .head import HeadError, parse_header
from .urls import Target

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9]{2})(?: ([\t -~\x80-\xff]*))?")

_OWN: Final = frozenset(
    {
        "upgrade",
        "connection",
        "content-length",
        "transfer-encoding",
        "origin",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "sec-websocket-accept",
    }
)  # headers that the handshake makes itself

MAX_HEADERS: Final = 128
"""Header lines in an answer, at most."""


def new_key() -> str:
    """A Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16)).decode()


def basic(user: tuple[str, str]) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(":".join(user).encode()).decode()


def check_subprotocols(subprotocols: Sequence[str]) -> None:
    """Raise ValueError for names that can't be offered, TypeError for a `str` instead of a list."""
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols is a list of names, not one str")
    if not all(_TOKEN.fullmatch(name) for name in subprotocols):
        raise ValueError(f"not a list of subprotocols: {subprotocols!r}")
    if len(set(subprotocols)) < len(subprotocols):
        raise ValueError("a subprotocol is offered twice (RFC 6455 section 4.1)")


def check_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers of a user's; raises ValueError for what is none, and for our own."""
    pairs = checked(headers)
    for name, _ in pairs:
        if name.lower() in _OWN:
            raise ValueError(f"the header {name} is the handshake's own")
    return pairs


def request_headers(
    target: Target,
    key: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    extensions: str | None = None,
    user_agent: str,
) -> list[tuple[str, str]]:
    """Return the request's headers; `headers` are the user's, which go before ours."""
    given = list(headers)
    names = {name.lower() for name, _ in given}
    ours = [
        ("Host", target.authority),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
    ]
    if subprotocols:
        ours.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    if extensions is not None:
        ours.append(("Sec-WebSocket-Extensions", extensions))
    if origin is not None:
        ours.append(("Origin", origin))
    if target.user is not None:
        ours.append(("Authorization", basic(target.user)))
    ours.append(("User-Agent", user_agent))
    return checked([*(header for header in ours if header[0].lower() not in names), *given])


def request_head(method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The bytes of a request without a body."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True)
class Response:
    """The head of an HTTP response."""

    version: str
    """"1.0" or "1.1"."""
    status: int
    reason: str
    headers: list[tuple[str, str]]
    """Names and values, as sent and in that order."""

    def values(self, name: str) -> list[str]:
        """The values of the headers of this lower-case name."""
        return [value for each, value in self.headers if each.lower() == name]

    def tokens(self, name: str) -> list[str]:
        """The members, in lower case, of the list that these headers hold."""
        parts = ",".join(self.values(name)).split(",")
        return [part.strip(" \t").lower() for part in parts if part.strip(" \t")]


def parse_response(head: bytes) -> Response:
    """Read a head, up to and including the blank line. Raises HandshakeError."""
    status_line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise HandshakeError("the answer is not HTTP/1.1")
    if len(lines) > MAX_HEADERS:
        raise HandshakeError(f"the answer has more than {MAX_HEADERS} headers")
    try:
        headers = [parse_header(line) for line in lines]
    except HeadError as error:
        raise HandshakeError(f"the answer is malformed: {error.reason}") from None
    version, status, reason = match.groups()
    return Response(
        version.decode(), int(status), (reason or b"").decode("latin-1").strip(), headers
    )


def check_response(
    response: Response, key: str, subprotocols: Sequence[str], *, extensions: str | None
) -> str | None:
    """Check a 101; return the subprotocol agreed on.

    `extensions` is what was offered. Raises HandshakeError.
    """
    if response.version != "1.1":
        raise HandshakeError("the 101 is of HTTP/1.0")
    if response.tokens("upgrade") != ["websocket"]:
        raise HandshakeError('the 101 lacks "Upgrade: websocket"')
    if "upgrade" not in response.tokens("connection"):
        raise HandshakeError('the 101 lacks "Connection: Upgrade"')
    if response.values("sec-websocket-accept") != [accept_key(key)]:
        raise HandshakeError("the Sec-WebSocket-Accept of the 101 does not answer our key")
    if extensions is None and response.tokens("sec-websocket-extensions"):
        raise HandshakeError("the 101 has an extension that was not offered")
    chosen = response.values("sec-websocket-protocol")
    if not chosen:
        return None
    if len(chosen) > 1 or chosen[0] not in subprotocols:
        raise HandshakeError("the 101 has a subprotocol that was not offered")
    return chosen[0]
