"""The head of an HTTP/1.x request, read strictly (RFC 9112): bytes become a Head or an error.

Where the RFC lets a recipient choose between repairing a request and refusing it, it is refused:
what two programs repair in different ways is how requests are smuggled past a proxy. No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from . import lines

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_FIRST_BYTES: Final = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\r"
)  # a token's, or the empty line's that may come first
_VERSION: Final = re.compile(rb"HTTP/([0-9]\.[0-9])")
_NOT_IN_TARGET: Final = re.compile(rb"[^!-~]|#")  # browsers do send some that RFC 3986 forbids
_NOT_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 section 5.5
_ABSOLUTE: Final = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
_AUTHORITY: Final = re.compile(
    r"(?:(?:[a-z0-9._~!$&'()*+;=-]|%[0-9a-f]{2})+|\[(?P<v6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]*))?",
    re.IGNORECASE,
)  # RFC 3986 section 3.2; without user information (RFC 9110 4.2.4) and without a comma, which is
# how two Hosts look once they are joined


class HeadError(Exception):
    """The request can't be served. The connection is to be closed behind the answer, because
    where the next request would begin is not known.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status: Final = status
        self.reason: Final = reason
        """For the person who reads it. Quotes nothing of the request."""

    def __str__(self) -> str:
        return f"{self.status.value} {self.reason}"


class NoHTTPError(HeadError):
    """The first byte that came can't begin a request."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, "This is no HTTP request.")


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. Its text is ISO-8859-1, so that each character is one byte as sent."""

    method: str
    """As sent: methods are case-sensitive."""
    target: str
    """As sent, in whatever form (RFC 9112 section 3.2)."""
    path: str
    """The target's path, with its percent-escapes; "*" for the server as a whole."""
    query: str
    """What stands behind the first "?", with its percent-escapes; "" if there is none."""
    version: str
    """"HTTP/1.0" or "HTTP/1.1"."""
    headers: list[tuple[str, str]]
    """Names and values, as sent and in that order; but Host is the target's where that has one."""
    fields: dict[str, str]
    """Values by lower-case name; repeated ones joined by ", ", cookies by "; "."""
    content_length: int | None
    """Length of the body in bytes; None if no length was sent."""
    is_chunked: bool
    """Whether the body is chunked (RFC 9112 section 7.1); if not, it ends with its length."""

    @property
    def keep_alive(self) -> bool:
        """Whether the client leaves the connection open for more (RFC 9112 section 9.3)."""
        options = [
            option.strip() for option in self.fields.get("connection", "").lower().split(",")
        ]
        if "close" in options:
            return False
        return self.version == "HTTP/1.1" or "keep-alive" in options


# -- where it ends -------------------------------------------------------------------------------


def find_end(data: bytes | bytearray, start: int = 0, *, max_size: int) -> int | None:
    """Return where the head at the beginning of `data` ends, or None while more has to come.

    The end is the index behind the blank line. `start` is how much of `data` was there at the call
    before: that is not searched again, so the cost is linear however the bytes arrive.

    Raises HeadError as soon as it is clear that no head will come: 400 if the first byte cannot
    begin one (a TLS hello, for instance), and if `max_size` bytes are there without an end 414 if
    they are all request line (RFC 9110 section 15.5.15), otherwise 431 (RFC 6585 section 5).
    """
    if start == 0 and data and data[0] not in _FIRST_BYTES:
        raise NoHTTPError
    # A blank line without its CRs counts, so that parse_head refuses it now, not a timeout later.
    end = _behind_blank_line(data, max(0, start - 2))
    if end is None and len(data) < max_size:
        return None
    if end is not None and end <= max_size:
        return end
    if data.find(b"\n", 2, max_size) < 0:  # from 2 on, for the empty line that may come first
        raise HeadError(
            HTTPStatus.REQUEST_URI_TOO_LONG, f"The request line is longer than {max_size} bytes."
        )
    raise HeadError(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"The request's head is longer than {max_size} bytes.",
    )


def _behind_blank_line(data: bytes | bytearray, start: int) -> int | None:
    proper = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start, proper + 1 if proper >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return proper + 3 if proper >= 0 else None


# -- what it says --------------------------------------------------------------------------------


def parse_head(data: bytes, *, max_headers: int) -> Head:
    """Read a head: all bytes up to and including the blank line, as `find_end` found it.

    Raises HeadError: 431 for more than `max_headers` header lines, 505 for a version other than
    1.0 and 1.1, 501 for an unknown Transfer-Encoding, 413 for an absurd Content-Length, and 400
    for everything malformed.
    """
    data = data.removeprefix(b"\r\n")  # old clients sent one behind a body (RFC 9112 section 2.2)
    if not data.endswith(b"\r\n\r\n"):
        raise _bad("The head does not end with an empty line; its lines must end with CR and LF.")
    if data.count(b"\r\n") - 2 > max_headers:
        raise HeadError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"The request has more than {max_headers} headers.",
        )
    cut = lines.cut_lines(data)
    if cut is None:
        raise _what_is_wrong(data)
    method, target, version, headers, fields = cut
    authority, path, query = _split_target(method, target)
    if fields is None:
        fields = _join(headers)
    _check_host(fields.get("host"), version)
    if authority is not None:
        headers = _with_host(headers, authority)
        fields["host"] = authority
    is_chunked = _is_chunked(fields, version)
    content_length = _content_length(fields)
    return Head(method, target, path, query, version, headers, fields, content_length, is_chunked)


def _what_is_wrong(data: bytes) -> HeadError:
    """The error of a head that is not well-formed."""
    request_line, *lines = data[:-4].split(b"\r\n")
    return _wrong_request_line(request_line) or next(filter(None, map(_wrong_header, lines)))


def _wrong_request_line(line: bytes) -> HeadError | None:
    if b"\n" in line:
        return _bad(_BARE_LF)
    words = line.split(b" ")  # exactly one space between: RFC 9112 section 3 tells why
    if len(words) != 3:
        return _bad("The request line must be a method, a target and a version, one space between.")
    method, target, version = words
    if not _TOKEN.fullmatch(method):
        return _bad("The method is not a token (RFC 9110 section 5.6.2).")
    if not target or _NOT_IN_TARGET.search(target):
        return _bad("The target holds a character that must be percent-encoded, or a fragment.")
    if not (match := _VERSION.fullmatch(version)):
        return _bad("The request line does not end with an HTTP version.")
    if match[1] not in (b"1.0", b"1.1"):
        return HeadError(
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "This server speaks HTTP/1.1 and HTTP/1.0."
        )
    return None


def _wrong_header(line: bytes) -> HeadError | None:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        return _bad(_what_is_wrong_with_name(line, name, colon))
    value = value.strip(b" \t")
    if _NOT_IN_VALUE.search(value):
        return _bad(_BARE_LF if b"\n" in value else "A header's value holds a control character.")
    return None


def _split_target(method: str, target: str) -> tuple[str | None, str, str]:
    """Return authority, path and query (RFC 9112 section 3.2).

    Not by a URL parser: those take "//host/path" for something else than a path.
    """
    authority = None
    if method == "CONNECT":
        raise _bad("This server is no proxy: it has no CONNECT.")
    if target == "*":
        if method != "OPTIONS":
            raise _bad("The target * is for OPTIONS only.")
        return None, "*", ""
    if not target.startswith("/"):
        if not (match := _ABSOLUTE.fullmatch(target)):
            raise _bad("The target must begin with / or be a URL of http or https.")
        authority, target = match[1], match[2]
        if not is_authority(authority):
            raise _bad("The target's host is malformed.")
        if not target.startswith("/"):
            target = "/" + target
    path, _, query = target.partition("?")
    return authority, path, query


def parse_header(line: bytes) -> tuple[str, str]:
    """Read one header line, without its end. Raises HeadError."""
    if wrong := _wrong_header(line):
        raise wrong
    name, _, value = line.partition(b":")
    return name.decode("ascii"), value.strip(b" \t").decode("latin-1")


def _what_is_wrong_with_name(line: bytes, name: bytes, colon: bytes) -> str:
    if b"\n" in name:
        return _BARE_LF
    if line.startswith((b" ", b"\t")):
        return "A header goes on in a second line, which is obsolete (RFC 9112 section 5.2)."
    if not colon:
        return "A header line has no colon."
    if name.endswith((b" ", b"\t")):
        return "White space stands between a header's name and its colon (RFC 9112 section 5.1)."
    return "A header's name is not a token (RFC 9110 section 5.6.2)."


@lru_cache(maxsize=64)  # the clients of a server name few hosts
def is_authority(text: str) -> bool:
    """Whether it is "host" or "host:port"."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return False
    if match["v6"] is not None:
        try:
            IPv6Address(match["v6"])
        except AddressValueError:
            return False
    port = (match["port"] or "0").lstrip("0")
    return len(port) <= 5 and int(port or 0) <= 65535


def _with_host(headers: list[tuple[str, str]], authority: str) -> list[tuple[str, str]]:
    """The target's host counts, and the Host header does not (RFC 9112 section 3.2.2)."""
    replaced = [(name, authority if name.lower() == "host" else value) for name, value in headers]
    if all(name.lower() != "host" for name, _ in headers):
        replaced.insert(0, ("Host", authority))
    return replaced


def _join(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Values by lower-case name."""
    fields: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        if key not in fields:
            fields[key] = value
        elif key == "host":
            raise _bad("The request has more than one Host.")
        else:
            # A cookie may hold a comma (RFC 6265 section 5.4).
            fields[key] = f"{fields[key]}{'; ' if key == 'cookie' else ', '}{value}"
    return fields


def _check_host(host: str | None, version: str) -> None:
    """Only HTTP/1.0 may leave it out (RFC 9112 section 3.2)."""
    if host is None:
        if version != "HTTP/1.0":
            raise _bad("The request has no Host.")
    elif not is_authority(host):
        raise _bad("The Host is malformed.")


def _is_chunked(fields: dict[str, str], version: str) -> bool:
    """RFC 9112 sections 6.1 and 6.3."""
    value = fields.get("transfer-encoding")
    if value is None:
        return False
    if "content-length" in fields:
        raise _bad("The request has both a Content-Length and a Transfer-Encoding.")
    if version == "HTTP/1.0":
        raise _bad("HTTP/1.0 has no Transfer-Encoding.")
    *before, last = (coding.strip(" \t") for coding in value.lower().split(","))
    if "chunked" in before:
        raise _bad("Chunked must come once, as the last transfer coding.")
    if before or last != "chunked":
        raise HeadError(
            HTTPStatus.NOT_IMPLEMENTED, "The only Transfer-Encoding known here is chunked."
        )
    return True


def _content_length(fields: dict[str, str]) -> int | None:
    """RFC 9110 section 8.6. Equal ones are refused too: only a list's making could repeat them."""
    value = fields.get("content-length")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()):
        raise _bad("The Content-Length is not one decimal number.")
    if len(value) > _MAX_DIGITS:
        raise HeadError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The Content-Length is absurd.")
    return int(value)


_MAX_DIGITS: Final = 18  # what fits 64 bits; int() itself raises at some thousands of them
_BARE_LF: Final = "A line ends with LF alone; its end must be CR and LF."


def _bad(reason: str) -> HeadError:
    return HeadError(HTTPStatus.BAD_REQUEST, reason)
