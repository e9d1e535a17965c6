"""RFC 6455 section 5.2: the bytes of a frame, in and out. No I/O, no state."""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from . import wire

IS_COMPILED: Final = not __file__.endswith((".py", ".pyc"))
"""Whether the core is compiled: not without a compiler, nor where the environment variable
PLAINSOCKET_PURE is set."""


class Opcode(enum.IntEnum):
    """RFC 6455 section 11.8."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(enum.IntEnum):
    """RFC 6455 section 7.4.1, and the IANA registry for 1012 to 1014."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005  # never on the wire: the close frame had no code
    ABNORMAL_CLOSURE = 1006  # never on the wire: there was no close frame
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


MAX_CONTROL_PAYLOAD: Final = 125
"""Bytes (RFC 6455 section 5.5)."""

_KNOWN_OPCODES: Final = frozenset(Opcode)
_UINT16: Final = struct.Struct("!H")
_UINT64: Final = struct.Struct("!Q")


class FrameError(Exception):
    """The peer broke RFC 6455: fail the connection with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Header(NamedTuple):
    """The head of one frame, as read."""

    opcode: int
    fin: bool
    rsv: int
    """The three reserved bits: RSV1 is 0x40, RSV2 0x20, RSV3 0x10."""
    key: bytes
    """The masking key: four bytes, or none where the frame is not masked."""
    length: int
    """Of the payload, in bytes."""
    size: int
    """Of the head itself, in bytes."""


def read_header(data: bytes, start: int = 0) -> Header | None:
    """Read the head of the frame at `start`; None while it is not there in full.

    Raises FrameError (1002) as soon as the bytes at hand cannot begin a frame.
    """
    available = len(data) - start
    if available < 2:
        return None
    first, second = data[start], data[start + 1]
    opcode, fin, rsv = first & 0x0F, first >= 0x80, first & 0x70
    length = second & 0x7F
    if opcode not in _KNOWN_OPCODES:
        raise FrameError(CloseCode.PROTOCOL_ERROR, f"reserved opcode 0x{opcode:X}")
    if opcode >= Opcode.CLOSE:
        if not fin:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "fragmented control frame")
        if length > MAX_CONTROL_PAYLOAD:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "control frame longer than 125 bytes")
    size = 2
    if length == 126:
        size = 4
        if available < size:
            return None
        (length,) = _UINT16.unpack_from(data, start + 2)
        if length < 126:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "payload length not in its shortest form")
    elif length == 127:
        size = 10
        if available < size:
            return None
        (length,) = _UINT64.unpack_from(data, start + 2)
        if length < 1 << 16:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "payload length not in its shortest form")
        if length >= 1 << 63:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "payload length above 2**63 - 1")
    if second < 0x80:
        return Header(opcode, fin, rsv, b"", length, size)
    if available < size + 4:
        return None
    key = bytes(data[start + size : start + size + 4])
    return Header(opcode, fin, rsv, key, length, size + 4)


def header(opcode: int, length: int, *, fin: bool = True, rsv: int = 0, key: bytes = b"") -> bytes:
    """Build the head of a frame; `key` is the masking key, or empty for none."""
    first = opcode | rsv | (0x80 if fin else 0)
    masked = 0x80 if key else 0
    if length < 126:
        return bytes((first, masked | length)) + key
    if length < 1 << 16:
        return bytes((first, masked | 126)) + _UINT16.pack(length) + key
    return bytes((first, masked | 127)) + _UINT64.pack(length) + key


def apply_mask(data: bytes | memoryview, key: bytes, offset: int = 0) -> bytes:
    """XOR `data` with `key` (RFC 6455 section 5.3); masking and unmasking are the same.

    `offset` is the place of `data` in its payload, where a payload comes in pieces.
    """
    return wire.apply_mask(data, key, offset & 3)


def is_valid_close_code(code: int) -> bool:
    """Whether `code` may stand in a close frame (RFC 6455 section 7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_payload(code: int | None, reason: str = "") -> bytes:
    """Build a close frame's payload; `code` None gives an empty one.

    Raises ValueError for a code that may not be sent, and a reason over 123 bytes of UTF-8.
    """
    if code is None:
        return b""
    if not is_valid_close_code(code):
        raise ValueError(f"{code} is not a close code that may be sent (RFC 6455 section 7.4)")
    encoded = reason.encode()
    if len(encoded) > MAX_CONTROL_PAYLOAD - 2:
        raise ValueError(f"close reason of {len(encoded)} bytes: at most 123 bytes of UTF-8")
    return _UINT16.pack(code) + encoded


def read_close_payload(payload: bytes) -> tuple[int, str]:
    """Read a close frame's payload; 1005 stands for none. Raises FrameError."""
    if not payload:
        return CloseCode.NO_STATUS_RECEIVED, ""
    if len(payload) == 1:
        raise FrameError(CloseCode.PROTOCOL_ERROR, "close frame with a payload of one byte")
    (code,) = _UINT16.unpack_from(payload)
    if not is_valid_close_code(code):
        raise FrameError(CloseCode.PROTOCOL_ERROR, f"close code {code} may not be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError(CloseCode.INVALID_DATA, "close reason is not UTF-8") from None
