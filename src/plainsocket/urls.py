"""A WebSocket's URL, read strictly (RFC 6455 section 3). No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote, urlsplit

_SCHEMES: Final = {"ws": False, "wss": True, "http": False, "https": True}
_UNIX_SCHEMES: Final = {"ws+unix": False, "wss+unix": True}
_PORTS: Final = {False: 80, True: 443}

_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\\]")  # what browsers drop or repair
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_V6: Final = re.compile(r"[0-9a-f:.]+(%[A-Za-z0-9._~-]+)?")
_LEFT_AS_IT_IS: Final = "/?:@!$&'()*+,;=-._~%[]|"  # in a path and a query


@dataclass(frozen=True)
class Target:
    """What a URL names."""

    is_secure: bool
    host: str
    """A name in ASCII, or an address; "localhost" for a Unix socket."""
    port: int
    resource: str
    """Path and query, percent-encoded, as the request line has them."""
    unix: str | None = None
    """The path of a Unix socket; a name that begins with a NUL byte is abstract (Linux)."""
    user: tuple[str, str] | None = field(default=None, repr=False)
    """Name and password."""

    @property
    def authority(self) -> str:
        """The Host header's value: without the port where that is the scheme's own."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        if self.unix is not None or self.port == _PORTS[self.is_secure]:
            return host
        return f"{host}:{self.port}"

    @property
    def place(self) -> str:
        """Where to connect to, for a person."""
        return repr(self.unix) if self.unix is not None else host_and_port(self.host, self.port)

    def has_origin_of(self, other: Target) -> bool:
        """Whether what is secret to one may be told to the other (RFC 6454)."""
        return (self.is_secure, self.host, self.port, self.unix) == (
            other.is_secure,
            other.host,
            other.port,
            other.unix,
        )


def host_and_port(host: str, port: int) -> str:
    """As an authority has them (RFC 3986 section 3.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(url: str) -> Target:
    """Read `ws:`, `wss:`, or, meaning the same as in browsers, `http:` and `https:`; also
    `ws+unix:` and `wss+unix:`, with the socket's path, a colon, and the request's path:
    `ws+unix:/run/app.sock:/echo`.

    Characters outside ASCII are encoded. Raises ValueError.
    """
    if _FORBIDDEN.search(url):
        raise ValueError("the URL holds a control character or a backslash")
    if "#" in url:
        raise ValueError("the URL of a WebSocket has no fragment (RFC 6455 section 3)")
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if colon and scheme in _UNIX_SCHEMES:
        return _parse_unix(rest, is_secure=_UNIX_SCHEMES[scheme])
    if not colon or scheme not in _SCHEMES or not rest.startswith("//"):
        raise ValueError("the URL of a WebSocket begins with ws:// or wss:// (or ws+unix:)")
    parts = urlsplit(url)
    is_secure = _SCHEMES[scheme]
    port = parts.port  # raises ValueError where it is none
    if port == 0:
        raise ValueError("port 0 can't be connected to")
    user = None
    if parts.username is not None:
        user = (unquote(parts.username), unquote(parts.password or ""))
        if ":" in user[0]:
            raise ValueError("the URL's user name holds a colon (RFC 7617 section 2)")
    return Target(
        is_secure,
        _ascii_host(parts.hostname or "", is_v6="[" in parts.netloc),
        _PORTS[is_secure] if port is None else port,
        _resource(parts.path, parts.query, has_query="?" in url),
        user=user,
    )


def _parse_unix(rest: str, *, is_secure: bool) -> Target:
    if rest.startswith("//"):
        rest = rest[2:]
        if not rest.startswith("/"):
            raise ValueError("a Unix socket's URL has no host: ws+unix:///path/to/socket:/path")
    path, _, resource = rest.partition(":")
    if not path:
        raise ValueError("the URL names no Unix socket: ws+unix:/path/to/socket:/path")
    if resource and not resource.startswith("/"):
        raise ValueError("behind the Unix socket's path and a colon the request's path begins by /")
    request_path, mark, query = resource.partition("?")
    return Target(
        is_secure,
        "localhost",
        _PORTS[is_secure],
        _resource(request_path, query, has_query=bool(mark)),
        unix=unquote(path),
    )


def _ascii_host(host: str, *, is_v6: bool) -> str:
    if is_v6:
        if not _V6.fullmatch(host):
            raise ValueError("the URL's IPv6 address is malformed")
        return host.replace("%25", "%")  # a zone: RFC 6874
    try:
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"the URL's host is no name: {error}") from None
    if not _NAME.fullmatch(host):
        raise ValueError("the URL has no host, or a malformed one")
    return host


def _resource(path: str, query: str, *, has_query: bool) -> str:
    path = quote(path or "/", safe=_LEFT_AS_IT_IS)
    return f"{path}?{quote(query, safe=_LEFT_AS_IT_IS)}" if has_query else path
