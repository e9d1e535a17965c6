"""The lines of an HTTP request's head, cut into names and values.

The same functions stand in lines.h in C. Compiled modules call those (see lines.pxd).
"""

from __future__ import annotations

import base64
import re
from hashlib import sha1
from typing import Final

_WELL_FORMED: Final = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-\"$-~]+ HTTP/1\.[01]\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)*\r\n"
)  # RFC 9112 sections 3 and 5, RFC 9110 sections 5.5 and 5.6.2
_HEADER: Final = re.compile(r"([^:]+):[\t ]*([^\r]*)\r\n")


def cut_lines(
    data: bytes,
) -> tuple[str, str, str, list[tuple[str, str]], dict[str, str] | None] | None:
    """Method, target, version, headers as sent, and headers by lower-case name.

    The last is None where a name comes twice. None for a head that is not well-formed.
    """
    if not _WELL_FORMED.fullmatch(data):
        return None
    request_line, _, lines = data.decode("latin-1").partition("\r\n")
    method, target, version = request_line.split(" ")
    headers = [(name, value.rstrip("\t ")) for name, value in _HEADER.findall(lines)]
    fields = {name.lower(): value for name, value in headers}
    return method, target, version, headers, fields if len(fields) == len(headers) else None


def cut_plain(data: bytes) -> tuple[int, str, str, dict[str, str]] | None:
    """The length of the head at the beginning of `data`, its target, version and headers.

    The latter by lower-case name. None where that is not all: for another method than GET, for a
    name that comes twice or holds a "_", and for a head that is not whole or not well-formed.
    """
    match = _WELL_FORMED.match(data)
    cut = cut_lines(match[0]) if match is not None and data.startswith(b"GET ") else None
    if match is None or cut is None:
        return None
    _, target, version, _, fields = cut
    if fields is None or any("_" in name for name in fields):
        return None
    return match.end(), target, version, fields


def cut_upgrade(data: bytes, max_headers: int) -> tuple[int, str, bytes, bytes] | None:
    """What a plain request for a WebSocket is, where `data` begins with one.

    The length of its head, its path, the Sec-WebSocket-Accept (RFC 6455 section 4.2.2), and what
    it says by the headers that are not judged here but may be remembered: Host, Origin,
    subprotocols and extensions, as they came. None for any other request, also for one that
    something is wrong with.
    """
    match = _WELL_FORMED.match(data)
    cut = cut_lines(match[0]) if match is not None and data.startswith(b"GET /") else None
    if match is None or cut is None or cut[2] != "HTTP/1.1" or len(cut[3]) > max_headers:
        return None
    judged: dict[str, str] = {}
    for name, value in cut[3]:
        if (lower := name.lower()) in _JUDGED:
            if lower in judged:
                return None
            judged[lower] = value
    connection = judged.get("connection", "").lower().split(",")
    if (
        judged.get("upgrade", "").lower() != "websocket"
        or "upgrade" not in [token.strip(" \t") for token in connection]
        or judged.get("sec-websocket-version") != "13"
        or not _KEY.fullmatch(judged.get("sec-websocket-key", ""))
        or "content-length" in judged
        or "transfer-encoding" in judged
    ):
        return None
    said = [f"{n}{judged[name]}\n" for n, name in enumerate(_SAID) if name in judged]
    others = "".join(said).encode("latin-1")
    if len(others) > _MOST_SAID:
        return None
    digest = sha1(judged["sec-websocket-key"].encode() + _GUID).digest()
    return match.end(), cut[1].partition("?")[0], base64.b64encode(digest), others


_SAID: Final = ("host", "origin", "sec-websocket-protocol", "sec-websocket-extensions")
_JUDGED: Final = {
    *_SAID,
    *("upgrade", "connection", "sec-websocket-version", "sec-websocket-key"),
    *("content-length", "transfer-encoding"),
}
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MOST_SAID: Final = 512  # bytes
