"""permessage-deflate (RFC 7692) without I/O: what two ends agree on, and the work of both halves.

Two ways of sending. Without context each message is compressed by itself, by one compressor that
all connections of a thread share, so that a connection costs no memory. With context (context
takeover) each connection has a compressor of its own, which remembers the messages before and so
makes small ones much smaller; it is made when first used, and may be dropped between any two
messages.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from .frames import CloseCode, FrameError
from .options import Options

EXTENSION: Final = "permessage-deflate"

MAX_WINDOW_BITS: Final = 15
"""The largest window of DEFLATE, 32 KiB; meant where nothing is said (RFC 7692 section 7.1.2)."""

_SERVER_CONTEXT: Final = "server_no_context_takeover"
_CLIENT_CONTEXT: Final = "client_no_context_takeover"
_SERVER_BITS: Final = "server_max_window_bits"
_CLIENT_BITS: Final = "client_max_window_bits"

_TAIL: Final = b"\x00\x00\xff\xff"  # what a flush ends with, and no message has (section 7.2.1)
_EMPTY: Final = b"\x00"  # an empty block but for its tail: the empty message, the end of a stream

_SAMPLE: Final = 512  # bytes
_SAMPLE_FROM: Final = 8 * _SAMPLE  # smaller messages are compressed without a trial
_MAX_ENDS: Final = 256  # final blocks in a message; zlib copies what stands behind each

_BITS: Final = re.compile(r"[89]|1[0-5]")
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 section 5.6.2
_NAME: Final = re.compile(rf"[ \t]*({_TOKEN})[ \t]*")
_VALUE: Final = re.compile(rf'=[ \t]*(?:({_TOKEN})|"({_TOKEN})")[ \t]*')


class ExtensionError(ValueError):
    """Sec-WebSocket-Extensions is malformed, or answers what was not asked."""


@dataclass(frozen=True)
class Agreement:
    """The parameters agreed on (RFC 7692 section 7.1); None where nothing was said."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    def __str__(self) -> str:
        """As it stands in the 101's Sec-WebSocket-Extensions."""
        parts = [EXTENSION]
        if self.server_no_context_takeover:
            parts.append(_SERVER_CONTEXT)
        if self.client_no_context_takeover:
            parts.append(_CLIENT_CONTEXT)
        if self.server_max_window_bits is not None:
            parts.append(f"{_SERVER_BITS}={self.server_max_window_bits}")
        if self.client_max_window_bits is not None:
            parts.append(f"{_CLIENT_BITS}={self.client_max_window_bits}")
        return "; ".join(parts)


# -- negotiation ---------------------------------------------------------------------------------


def accept_offer(header: str | None, options: Options) -> Agreement | None:
    """A server's answer to Sec-WebSocket-Extensions: to the first offer that it can take.

    None where compression is off or nothing fits; the connection is then without. Raises
    ExtensionError for a header that is malformed (RFC 6455 section 9.1).
    """
    if header is None or not options.compression:
        return None
    for name, parameters in _read_extensions(header):
        if name == EXTENSION:
            try:
                return _answer(_checked(parameters, is_offer=True), options)
            except ExtensionError:
                continue  # this offer is declined (RFC 7692 section 7.1), the next may be good
    return None


def _answer(offer: dict[str, int | None], options: Options) -> Agreement:
    keeps_context = options.compression_context
    client_bits = None
    if keeps_context and _CLIENT_BITS in offer:
        # Its window is memory of ours: what inflates has to remember as much.
        client_bits = min(offer[_CLIENT_BITS] or MAX_WINDOW_BITS, options.compression_window_bits)
    return Agreement(
        not keeps_context or _SERVER_CONTEXT in offer,
        not keeps_context or _CLIENT_CONTEXT in offer,
        offer.get(_SERVER_BITS),
        client_bits,
    )


def offer(options: Options) -> str | None:
    """A client's offer, for Sec-WebSocket-Extensions; None where compression is off."""
    if not options.compression:
        return None
    contexts = [] if options.compression_context else [_SERVER_CONTEXT, _CLIENT_CONTEXT]
    return "; ".join([EXTENSION, *contexts, _CLIENT_BITS])


def check_answer(header: str | None, options: Options) -> Agreement | None:
    """A client's reading of the answer to `offer(options)`; None: the server declines.

    Raises ExtensionError for an answer that does not fit the offer, upon which the connection has
    to be failed (RFC 7692 section 5.2).
    """
    if header is None:
        return None
    extensions = list(_read_extensions(header))
    if not options.compression or [name for name, _ in extensions] != [EXTENSION]:
        raise ExtensionError("the server has answered with an extension that was not offered")
    answer = _checked(extensions[0][1], is_offer=False)
    if not options.compression_context and _SERVER_CONTEXT not in answer:
        raise ExtensionError(f"the server has ignored {_SERVER_CONTEXT}")
    return Agreement(
        _SERVER_CONTEXT in answer,
        _CLIENT_CONTEXT in answer or not options.compression_context,
        answer.get(_SERVER_BITS),
        answer.get(_CLIENT_BITS),
    )


def _checked(parameters: list[tuple[str, str | None]], *, is_offer: bool) -> dict[str, int | None]:
    """The parameters by name. Raises ExtensionError for those that RFC 7692 does not know."""
    checked: dict[str, int | None] = {}
    for name, value in parameters:
        if name in checked:
            raise ExtensionError(f"parameter {name} given twice")
        if name in (_SERVER_CONTEXT, _CLIENT_CONTEXT):
            if value is not None:
                raise ExtensionError(f"parameter {name} with a value")
            checked[name] = None
        elif name == _CLIENT_BITS and value is None and is_offer:
            checked[name] = None
        elif name in (_SERVER_BITS, _CLIENT_BITS):
            if value is None or not _BITS.fullmatch(value):
                raise ExtensionError(f"parameter {name} is not a number from 8 to 15")
            checked[name] = int(value)
        else:
            raise ExtensionError("unknown parameter")
    return checked


def _read_extensions(header: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Read RFC 6455 section 9.1's list: the extensions, each with its parameters."""
    position = 0
    while position < len(header):
        if header[position] in ", \t":  # elements may be empty (RFC 9110 section 5.6.1)
            position += 1
            continue
        names: list[tuple[str, str | None]] = []
        while True:
            name = _NAME.match(header, position)
            if name is None:
                raise ExtensionError("Sec-WebSocket-Extensions is malformed")
            position = name.end()
            value = _VALUE.match(header, position) if names else None
            if value is not None:
                position = value.end()
            names.append((name[1], value and (value[1] or value[2])))
            if header[position : position + 1] != ";":
                break
            position += 1
        if header[position : position + 1] not in ("", ","):
            raise ExtensionError("Sec-WebSocket-Extensions is malformed")
        yield names[0][0], names[1:]


# -- compressing ---------------------------------------------------------------------------------


class SharedCompressors:
    """Compressors without context, for all connections of one thread.

    They are never reset but flushed in full after each message, which makes them forget it
    (Z_FULL_FLUSH) and costs far less than to make a new one. Level 1 is isal's where that is
    installed: it takes a third of zlib's time, and a memory that would be too much for each
    connection.
    """

    __slots__ = ("_compressors",)

    def __init__(self) -> None:
        self._compressors: dict[tuple[int, int], Any] = {}

    @staticmethod
    def of_hub(hub: Any) -> SharedCompressors:
        """Those of a hub's thread."""
        shared: SharedCompressors | None = hub.__dict__.get("plainsocket_compressors")
        if shared is None:
            shared = hub.__dict__["plainsocket_compressors"] = SharedCompressors()
        return shared

    def compress(self, payload: bytes | memoryview, level: int, bits: int) -> bytes:
        """Compress bytes that are not empty; the result refers to nothing before itself."""
        key = (level, bits)
        # Taken out meanwhile: after an error it may still hold a part of somebody's message.
        compressor = self._compressors.pop(key, None) or self._compressor(level, bits)
        compressed: bytes = compressor.compress(payload)
        compressed += compressor.flush(zlib.Z_FULL_FLUSH)
        self._compressors[key] = compressor
        return compressed

    @staticmethod
    def _compressor(level: int, bits: int) -> Any:
        if level == 1 and bits > 8:
            with contextlib.suppress(ImportError):
                isal_zlib: Any = importlib.import_module("isal.isal_zlib")
                return isal_zlib.compressobj(1, zlib.DEFLATED, -bits)
        return _compressor(level, bits, 8)


class Deflater:
    """Compresses the messages that one connection sends."""

    __slots__ = (
        "_compressor",
        "_is_idle",
        "_keeps_context",
        "_level",
        "_shared",
        "bits",
        "threshold",
    )

    def __init__(
        self,
        bits: int,
        *,
        keeps_context: bool,
        level: int = 1,
        threshold: int = 1,
        shared: SharedCompressors | None = None,
    ) -> None:
        """`bits` are the window's, `level` is zlib's; messages below `threshold` bytes are not to
        be compressed, and with 0 all are, whatever comes of it."""
        self.bits = bits
        self.threshold = threshold
        self._level = level
        self._keeps_context = keeps_context
        self._shared = shared if shared is not None else SharedCompressors()
        self._compressor: Any = None
        self._is_idle = False

    @property
    def keeps_memory(self) -> bool:
        """Whether it may hold a compressor of its own, which `release_if_idle` gives back."""
        return self._keeps_context

    def is_worth(self, payload: bytes) -> bool:
        """Whether bytes, which need not be text, seem to shrink: by a piece out of their middle."""
        if len(payload) < _SAMPLE_FROM or not self.threshold:
            return True
        middle = len(payload) // 2
        sample = self._shared.compress(
            payload[middle : middle + _SAMPLE], self._level, MAX_WINDOW_BITS
        )
        return len(sample) <= _SAMPLE * 7 // 8

    def compress(self, payload: bytes) -> bytes | None:
        """Compress a whole message; None where it would not become smaller and need not be."""
        if not payload:
            return _EMPTY
        compressed = self.compress_piece(payload)[: -len(_TAIL)]
        if self._keeps_context:
            return compressed
        return self._if_smaller(compressed, payload)

    def compress_piece(self, payload: bytes | memoryview) -> bytes:
        """Compress a part of a message, not an empty one; `END` is to follow the last."""
        if not self._keeps_context:
            return self._shared.compress(payload, self._level, self.bits)
        self._is_idle = False
        if self._compressor is None:
            # As much memory for what it looks up as for the window.
            self._compressor = _compressor(self._level, self.bits, self.bits - 7)
        compressed: bytes = self._compressor.compress(payload)
        compressed += self._compressor.flush(zlib.Z_SYNC_FLUSH)
        return compressed

    def compress_alone(self, payload: bytes) -> bytes | None:
        """As `compress`, but without context, so that the result is good for any connection with
        the same `shared_key`. Who sends it has to `forget`."""
        if not payload:
            return _EMPTY
        compressed = self._shared.compress(payload, self._level, self.bits)[: -len(_TAIL)]
        return self._if_smaller(compressed, payload)

    def _if_smaller(self, compressed: bytes, payload: bytes) -> bytes | None:
        return compressed if len(compressed) < len(payload) or not self.threshold else None

    @property
    def shared_key(self) -> tuple[int, int, int]:
        """Equal where `compress_alone` gives the same."""
        return self._level, self.bits, self.threshold

    def forget(self) -> None:
        """Drop the context and its memory: what follows refers to nothing before."""
        self._compressor = None

    def release_if_idle(self) -> None:
        """Forget if nothing was compressed since the last call."""
        if self._is_idle:
            self.forget()
        self._is_idle = True


END: Final = _EMPTY
"""The payload that ends a message compressed by `compress_piece`."""


def _compressor(level: int, bits: int, memory_level: int) -> Any:
    # zlib knows no raw window of 8 bits, but with 9 it never looks back further than
    # 512 - 262 = 250 bytes (MAX_DIST in its deflate.h).
    return zlib.compressobj(level, zlib.DEFLATED, -max(bits, 9), memory_level)


# -- inflating -----------------------------------------------------------------------------------


class Inflater:
    """Inflates the messages that one connection receives, never more than it is asked for.

    `bits` are the window's. A peer that looks back further is understood by chance, as zlib takes
    what happens to be there still.
    """

    __slots__ = (
        "_bits",
        "_decompressor",
        "_ends",
        "_is_ending",
        "_keeps_context",
        "_rest",
        "has_more",
    )

    def __init__(self, bits: int, *, keeps_context: bool) -> None:
        self._bits = bits
        self._keeps_context = keeps_context
        self._decompressor: Any = None
        self._rest = b""  # compressed bytes not looked at yet
        self._is_ending = False
        self._ends = 0
        self.has_more = False
        """Whether the last call stopped at its `limit`: call `inflate` again, with b""."""

    def inflate(self, data: bytes, limit: int, *, is_last: bool) -> bytes:
        """Inflate the next bytes of a message, to at most `limit` bytes, which is at least 1.

        Raises FrameError (1007) for bytes that are not DEFLATE's: they are inconsistent with what
        their message claims to be, as text that is not UTF-8.
        """
        if self._rest:
            data = self._rest + data
        if is_last and not self._is_ending:
            self._is_ending = True
            data += _TAIL
        if self._decompressor is None:
            self._decompressor = zlib.decompressobj(-self._bits)
        try:
            output: bytes = self._decompressor.decompress(data, limit)
            self._rest = self._decompressor.unconsumed_tail
            if self._decompressor.eof:
                output = self._go_on_behind_end(output, limit)
        except zlib.error:
            raise FrameError(CloseCode.INVALID_DATA, "message can't be inflated") from None
        self.has_more = len(output) == limit or bool(self._rest)
        if self._is_ending and not self.has_more:
            self._end_message()
        return output

    def _go_on_behind_end(self, output: bytes, limit: int) -> bytes:
        """A final block (BFINAL) ends zlib's stream, but not the message (section 7.2.1)."""
        pieces = [output]
        while self._decompressor.eof:
            self._ends += 1
            if self._ends > _MAX_ENDS:
                raise FrameError(CloseCode.INVALID_DATA, "too many final blocks in a message")
            self._rest = self._decompressor.unused_data
            self._decompressor = zlib.decompressobj(-self._bits)
            limit -= len(pieces[-1])
            if limit == 0 or not self._rest:
                break
            pieces.append(self._decompressor.decompress(self._rest, limit))
            self._rest = self._decompressor.unconsumed_tail
        return b"".join(pieces)

    def _end_message(self) -> None:
        if self._ends or not self._keeps_context:
            # The next one starts afresh. (After a final block so does the sender's zlib.)
            self._decompressor = None
        self._is_ending = False
        self._ends = 0


def halves(
    agreement: Agreement,
    role: Literal["server", "client"],
    options: Options,
    shared: SharedCompressors | None = None,
) -> tuple[Deflater, Inflater]:
    """What `role` needs to do as agreed."""
    server = (agreement.server_max_window_bits, agreement.server_no_context_takeover)
    client = (agreement.client_max_window_bits, agreement.client_no_context_takeover)
    out, into = (server, client) if role == "server" else (client, server)
    bits = out[0] or MAX_WINDOW_BITS
    if not out[1]:
        bits = min(bits, options.compression_window_bits)
    deflater = Deflater(
        bits,
        keeps_context=not out[1],
        level=options.compression_level,
        threshold=options.compression_threshold,
        shared=shared,
    )
    return deflater, Inflater(into[0] or MAX_WINDOW_BITS, keeps_context=not into[1])
