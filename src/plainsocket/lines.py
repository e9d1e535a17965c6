"""The lines of an HTTP request's head, cut into names and values.

The same functions stand in lines.h in C. Compiled modules call those (see lines.pxd).
"""

from __future__ import annotations

import re
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
