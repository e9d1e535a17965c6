"""What is done to every byte, or once for every message: masking, UTF-8, and whole frames.

The same functions stand in wire.h in C. Compiled modules call those (see wire.pxd).
"""

from __future__ import annotations

from typing import Final

WHOLE_BELOW: Final = 32 * 1024
"""Characters or bytes: copying so few is cheaper than handling a frame in two buffers."""


def apply_mask(data: bytes | memoryview, key: bytes, offset: int = 0) -> bytes:
    """XOR `data` with the four bytes of `key`, beginning `offset` bytes into the payload."""
    if len(key) != 4:
        raise ValueError("a masking key is 4 bytes")
    size = len(data)
    offset &= 3
    if offset:
        key = key[offset:] + key[:offset]
    # One XOR of two large integers runs at memory speed; a loop over bytes does not.
    mask = (key * (size // 4 + 1))[:size]
    number = int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")
    return number.to_bytes(size, "little")


def unmask(data: bytes, start: int, end: int) -> bytes:
    """The payload at `data[start:end]`, unmasked by the key in the four bytes before it."""
    if not 4 <= start <= end <= len(data):
        raise IndexError("no masked payload there")
    return apply_mask(data[start:end], data[start - 4 : start])


def unmask_text(data: bytes, start: int, end: int) -> str:
    """The same, decoded from UTF-8. Raises UnicodeDecodeError."""
    return unmask(data, start, end).decode()


def length(message: str | bytes) -> int:
    """Characters or bytes."""
    return len(message)


def decode(data: bytes) -> str:
    """Decode UTF-8. Raises UnicodeDecodeError."""
    return data.decode()


def encode(text: str) -> bytes:
    """Encode as UTF-8. Raises UnicodeEncodeError."""
    return text.encode()


def blank(_size: int) -> bytearray:
    """Room for a payload of `_size` bytes that comes in pieces: see `fill` and `filled`."""
    return bytearray()  # it grows as they come: announcing much must not cost much


def fill(blank: bytearray, place: int, data: bytes, start: int, end: int, key: bytes) -> None:
    """Write the piece `data[start:end]`, unmasked by `key` if there is one, to `place`."""
    assert place == len(blank)
    piece = memoryview(data)[start:end]
    blank += apply_mask(piece, key, place) if key else piece


def room(blank: bytearray, place: int, size: int) -> memoryview:
    """Where to write up to `size` masked bytes of the payload from `place` on, with `placed` then.

    The view is to be released before.
    """
    assert place == len(blank)
    blank += bytes(size)
    return memoryview(blank)[place:]


def placed(blank: bytearray, place: int, size: int, key: bytes) -> None:
    """That has been done for `size` bytes, which are now unmasked by `key` if there is one."""
    del blank[place + size :]
    if key:
        blank[place:] = apply_mask(bytes(blank[place:]), key, place)


def filled(blank: bytearray) -> bytes:
    """The payload, after the last piece."""
    return bytes(blank)


def whole_frame(message: object, key: bytes = b"") -> bytes | None:
    """The frame of a `str` or `bytes` below WHOLE_BELOW; None for anything else.

    It is masked by `key`, if there is one. Raises UnicodeEncodeError for a `str` that is not text
    (lone surrogates).
    """
    if not isinstance(message, (str, bytes)) or len(message) >= WHOLE_BELOW:
        return None
    if isinstance(message, str):
        first, payload = 0x81, message.encode()
    else:
        first, payload = 0x82, message
    size = len(payload)
    masked = 0
    if key:
        masked, payload = 0x80, key + apply_mask(payload, key)
    if size < 126:
        return b"%c%c%b" % (first, masked | size, payload)
    if size < 65536:
        return b"%c%c%b%b" % (first, masked | 126, size.to_bytes(2, "big"), payload)
    return b"%c%c%b%b" % (first, masked | 127, size.to_bytes(8, "big"), payload)


def put_frame(room: bytearray, place: int, message: object, key: bytes = b"") -> int:
    """Write the frame of `whole_frame` to `place`; return its size, or 0: it is none, or there is
    no room for it."""
    frame = whole_frame(message, key)
    if frame is None or len(frame) > len(room) - place:
        return 0
    room[place : place + len(frame)] = frame
    return len(frame)
