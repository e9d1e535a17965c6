"""The Origin policy: which pages may open a WebSocket here.

Against cross-site WebSocket hijacking (RFC 6455 section 10.2): a browser sends the user's cookies
whatever page opens the socket, so the page has to be one that the server knows. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_HOST_AND_PORT: Final = re.compile(
    r"(?P<host>[a-z0-9_.~%!$&'()*+;=-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{0,5}))?"
)  # RFC 3986 section 3.2, without user information and without a comma
_PATTERN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9_.*\[\]:-]+")
_DEFAULT_PORT: Final = re.compile(r"^(http://.*):80$|^(https://.*):443$")
_MAX_ORIGIN: Final = 300  # characters: a host name has 253 at most
_RUN: Final = re.compile(r"[a-z0-9.-]+")


@lru_cache(maxsize=64)  # the clients of a server name few hosts
def host_name(host_and_port: str) -> str | None:
    """The host name in "host" or "host:port", None if it is neither.

    By a strict pattern and not by a URL parser: those disagree with browsers on odd input.
    """
    match = _HOST_AND_PORT.fullmatch(host_and_port.lower())
    if match is None or int(match["port"] or 0) > 65535:
        return None
    return match["host"].rstrip(".") or None


def host_of(origin: str) -> str | None:
    """The host name of an Origin (RFC 6454 section 6.2), None if it has none."""
    scheme, _, host_and_port = origin.partition("://")
    return host_name(host_and_port) if scheme else None


def check_patterns(patterns: Sequence[str]) -> None:
    """Raise ValueError for what no Origin can match."""
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"an origin is a str, not {pattern!r}")
        if pattern in ("self", "null"):
            continue
        if not _PATTERN.fullmatch(pattern.lower().rstrip("/")):
            raise ValueError(
                f'an origin looks like "https://example.com" or "http://localhost:8000", '
                f"not {pattern!r}"
            )


def is_allowed(origin: str, patterns: Sequence[str], own_host: str) -> bool:
    """Whether one of `patterns` allows `origin`; "self" there is the host name of this server."""
    if len(origin) > _MAX_ORIGIN:
        return False
    for pattern in patterns:
        if host_of(origin) == own_host if pattern == "self" else _matches(origin, pattern):
            return True
    return False


def _matches(origin: str, pattern: str) -> bool:
    """A star is a run of what host names, and ports, are made of.

    Found from left to right without going back, so that no Origin takes long.
    """
    origin = origin.lower()
    pattern = _without_default_port(pattern.lower().rstrip("/"))
    if "*" not in pattern:
        return origin == pattern
    first, *between, last = pattern.split("*")
    end = len(origin) - len(last)
    if not (origin.startswith(first) and origin.endswith(last)):
        return False
    position = len(first)
    for part in between:
        found = origin.find(part, position + 1, end)
        if found < 0 or not _RUN.fullmatch(origin, position, found):
            return False
        position = found + len(part)
    return _RUN.fullmatch(origin, position, end) is not None


def _without_default_port(origin: str) -> str:
    match = _DEFAULT_PORT.match(origin)  # which a browser's Origin never has
    return (match[1] or match[2]) if match else origin
