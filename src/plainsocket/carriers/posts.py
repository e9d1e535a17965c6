"""The bodies of the http carrier's requests, and the heads of its answers (docs/http-carrier.md).

No I/O.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

from .records import MAX_CHANNEL, MAX_CREDIT, MAX_OFFSET, Kind, encode

OPEN: Final = 1
UP: Final = 2
DOWN: Final = 3

NEW: Final = 1  # the first byte of the answer that makes a session
STREAM: Final = 3  # and of one to a down request

POLL: Final = 1  # a mode; the other is 0

VERSION: Final = 1
READS_AS_IT_COMES: Final = 1  # a flag of a session

MAX_OPEN: Final = 64 * 1024
"""Bytes of an open's, and a down request's body."""

_MARK: Final = re.compile(r"text/plain *; *plainsocket=([0-9]+)", re.IGNORECASE)
_OPEN: Final = struct.Struct("!16sIBBI")
_UP: Final = struct.Struct("!QQ")
_DOWN: Final = struct.Struct("!QIBB")
_NEW: Final = struct.Struct("!IIIBQ")
_UINT16: Final = struct.Struct("!H")


class PostError(Exception):
    """The body is malformed."""


class Open(NamedTuple):
    token: bytes
    nonce: bytes
    channel: int
    is_poll: bool
    seconds: int
    credit: int
    subprotocols: str
    extensions: str


class Up(NamedTuple):
    token: bytes
    received: int
    """The down stream's offset that the client has."""
    offset: int
    data: bytes
    """The beginning of what follows."""


class Down(NamedTuple):
    token: bytes
    offset: int
    number: int
    is_poll: bool
    seconds: int


def version_of(content_type: str) -> int | None:
    """The version of the protocol; None if it is not this protocol's request."""
    match = _MARK.fullmatch(content_type.strip())
    return int(match[1][:9]) if match else None


def read_up(data: bytes) -> Up | None:
    """Read the beginning of an up request; None while more of it is needed."""
    token, position = _token(data)
    if len(data) < position + _UP.size:
        return None
    received, offset = _UP.unpack_from(data, position)
    if not (token and received <= MAX_OFFSET and offset <= MAX_OFFSET):
        raise PostError("a token and two offsets are wanted")
    return Up(token, received, offset, data[position + _UP.size :])


def read_down(data: bytes) -> Down:
    token, position = _token(data)
    if not token or len(data) != position + _DOWN.size:
        raise PostError("a down request has another length")
    offset, number, mode, seconds = _DOWN.unpack_from(data, position)
    if offset > MAX_OFFSET or not number or mode > POLL:
        raise PostError("a down request has an offset, a number from 1 on, and a mode")
    return Down(token, offset, number, mode == POLL, seconds)


def read_open(data: bytes) -> Open:
    token, position = _token(data)
    if len(data) < position + _OPEN.size:
        raise PostError("an open request is longer")
    nonce, channel, mode, seconds, credit = _OPEN.unpack_from(data, position)
    position += _OPEN.size
    subprotocols, position = _text(data, position)
    extensions, position = _text(data, position)
    if position != len(data):
        raise PostError("an open request is shorter")
    if not 0 < channel <= MAX_CHANNEL or credit > MAX_CREDIT or mode > POLL:
        raise PostError("an open request has a channel from 1 on, a credit, and a mode")
    return Open(token, nonce, channel, mode == POLL, seconds, credit, subprotocols, extensions)


def _token(data: bytes) -> tuple[bytes, int]:
    """The token, and where it ends."""
    end = 2 + data[1] if len(data) > 1 else 2
    return data[2:end], end


def _text(data: bytes, position: int) -> tuple[str, int]:
    if len(data) < position + 2:
        raise PostError("an open request is longer")
    start = position + 2
    end = start + _UINT16.unpack_from(data, position)[0]
    if len(data) < end:
        raise PostError("an open request is longer")
    text = data[start:end].decode("latin-1")
    if not text.isprintable():
        raise PostError("a header has no control characters")
    return text, end


def new_session(token: bytes, heartbeat: float, reach: float, largest: int, flags: int) -> bytes:
    """What stands before the stream where a session was made; times in seconds."""
    rest = _NEW.pack(round(heartbeat * 1000), round(reach * 1000), largest, flags, 0)
    return bytes((NEW, len(token))) + token + rest


def stream_from(offset: int) -> bytes:
    """What stands before the stream in the answer to a down request."""
    return bytes((STREAM,)) + offset.to_bytes(8, "big")


def opened(channel: int, credit: int, subprotocol: str | None, extensions: str = "") -> bytes:
    """The record that a channel is open."""
    name, offer = (subprotocol or "").encode("latin-1"), extensions.encode("latin-1")
    payload = credit.to_bytes(4, "big") + bytes((len(name),)) + name
    return encode(Kind.OPENED, channel, payload + _UINT16.pack(len(offer)) + offer)
