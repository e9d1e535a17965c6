"""One WebSocket connection without I/O (RFC 6455), for either role.

Bytes go in by `receive`, which gives the messages they complete; frames to write come from
`send`, `ping`, `close`, and, after each `receive`, from `take_pongs` and `take_close`. What a peer
sends never raises: it ends the connection with the right close code.
"""

from __future__ import annotations

import codecs
import enum
import os
import sys
from typing import Any, Final, Literal

from . import wire
from .deflate import END, Deflater, Inflater
from .frames import (
    MAX_CONTROL_PAYLOAD,
    CloseCode,
    FrameError,
    Header,
    Opcode,
    close_payload,
    header,
    read_close_payload,
    read_header,
)

Message = str | bytes
"""What applications send and receive: `str` is text, `bytes` binary."""

Frame = tuple[bytes | memoryview, ...]
"""One frame to write: its bytes, in one buffer or in two (head, payload)."""

Role = Literal["server", "client"]

FRAGMENT_SIZE: Final = 1 << 20
"""Bytes of payload in an outgoing frame at most: a longer message leaves in fragments, so that a
control frame can go in between."""

HOLD_SIZE: Final = 64 * 1024
"""Bytes that inflating may make of one read before the rest of it is held back."""

FRAMES_AT_ONCE: Final = 1024
"""Frames of one read before the rest of it is held back: of empty ones it may have eleven thousand,
which in pure Python would keep all others waiting."""

_FRAMES_AT_ONCE: Final = FRAMES_AT_ONCE  # a C integer where this is compiled

ROOM_SIZE: Final = 256 * 1024
"""Bytes of a large frame that are read at once to where they stay."""

MAX_PINGS: Final = 64
"""Pings waiting for their pong; of more the oldest are forgotten."""

_RSV1: Final = 0x40  # of a compressed message's first frame (RFC 7692 section 6)

_MOST_INFLATED: Final = 1032  # bytes that come out of one at most: DEFLATE allows no more

_LARGE: Final = 4096  # bytes of payload

_NONE: Final[list[Any]] = []  # never filled: an idle connection has no list of its own

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class State(enum.IntEnum):
    """As the browser's `readyState`."""

    OPEN = 1
    CLOSING = 2
    CLOSED = 3


OPEN: Final = State.OPEN  # by names of their own, because attributes of an enum are slow
CLOSING: Final = State.CLOSING
CLOSED: Final = State.CLOSED
_ABNORMAL: Final = CloseCode.ABNORMAL_CLOSURE


class SharedMessage:
    """A message that goes to many: encoded once, and compressed once for each way of doing it."""

    __slots__ = ("frames", "message", "opcode", "payload", "size", "whole")

    def __init__(self, message: Message | bytearray | memoryview) -> None:
        """Raises TypeError for what is no message, UnicodeEncodeError as `Protocol.send`."""
        self.opcode, self.payload = _encoded(message)
        self.message = message if isinstance(message, str) else self.payload
        self.size = len(self.payload)
        self.whole = wire.whole_frame(self.message, b"")
        """Its frame, uncompressed, where that is one in one buffer."""
        self.frames: dict[tuple[int, int, int] | None, tuple[list[Frame], bool]] = {}
        """By `Deflater.shared_key`, None: uncompressed; each with whether it is compressed."""


def _encoded(message: Message | bytearray | memoryview) -> tuple[Opcode, bytes]:
    if isinstance(message, str):
        return Opcode.TEXT, wire.encode(message)
    if isinstance(message, (bytes, bytearray, memoryview)):
        return Opcode.BINARY, bytes(message)
    raise TypeError(f"a message is str or bytes, not {type(message).__name__}")


class _Part:
    """What has come in part: a frame, or a message in several frames."""

    __slots__ = (
        "compressed",
        "control",
        "decoder",
        "fragments",
        "frame",
        "inflated",
        "kind",
        "large",
        "message",
        "rest",
        "seen",
        "size",
    )

    def __init__(self) -> None:
        self.rest = b""  # the beginning of a frame's head, at most 13 bytes; or what is held back
        self.frame: Header | None = None  # that is being read
        self.seen = 0  # bytes of its payload so far
        self.large: Any = None  # where its payload is written to, if it comes in pieces
        self.control = b""  # its payload so far, where it is a control frame
        self.kind: int | None = None  # TEXT or BINARY between a message's first and last frame
        self.message: bytearray | None = None
        self.size = 0  # of the payloads announced so far
        self.fragments = 0
        self.decoder: codecs.IncrementalDecoder | None = None
        self.compressed = False  # whether the message is
        self.inflated = 0  # bytes that came out of it so far


class _Stream:
    """A message that is given in pieces: see `Protocol.start_stream`."""

    __slots__ = ("dropped", "ended", "is_next", "kind", "limit", "lives", "pieces")

    def __init__(self) -> None:
        self.limit = 0
        self.is_next = False  # whether it is the next message
        self.lives = False  # whether it is the one being read …
        self.dropped = False  # … and nobody wants it any more
        self.kind = 0  # TEXT or BINARY once it has begun
        self.pieces: list[Message] = _NONE
        self.ended = False


class _Ending:
    """How a connection ends."""

    __slots__ = ("code", "due", "frame", "reason", "sent", "to_skip")

    def __init__(self) -> None:
        self.due: tuple[int, str, bool] | None = None  # code, reason, by an error?
        self.code: int | None = None
        self.reason = ""
        self.sent: tuple[int, str] | None = None
        self.frame: bytes | None = None  # to be written, behind all else
        self.to_skip = 0


class Protocol:
    """The state of one connection after its handshake."""

    __slots__ = (
        "_deflater",
        "_ending",
        "_inflater",
        "_is_masked",
        "_max_fragments",
        "_max_message_size",
        "_part",
        "_piece_opcode",
        "_piece_rsv",
        "_pings",
        "_stream",
        "_yield",
        "end_is_due",
        "failed",
        "holding",
        "holds_long",
        "is_client",
        "may_hold_long",
        "message_begun",
        "pings_due",
        "pongs",
        "state",
    )

    def __init__(
        self,
        role: Role = "server",
        *,
        max_message_size: int = 1 << 20,
        max_fragments: int = 1 << 16,
        masked: bool = True,
        deflater: Deflater | None = None,
        inflater: Inflater | None = None,
    ) -> None:
        """`max_message_size` is in bytes, text counted as UTF-8; `max_fragments` in frames.

        `masked`: whether the client's frames are masked (RFC 6455 section 5.3). `deflater` and
        `inflater` are given where permessage-deflate was agreed on.
        """
        self.is_client = role == "client"
        self._is_masked = masked
        self._max_message_size = max_message_size
        self._max_fragments = max_fragments

        # What most connections do not have at most times is None, or in an object that is.
        self.state: State = OPEN
        self.failed = False
        """The connection ended by an error of the peer's, not by a closing handshake."""
        self._ending: _Ending | None = None
        self.pings_due: list[bytes] = _NONE
        """The payloads of pings that came and were not answered: see `take_pongs`."""
        self.pongs: list[bytes] = _NONE
        """The payloads of pings that were answered, until `take_answered`."""
        self.holding = False
        """Bytes of the peer's are held back: call `receive(b"")` when what they would make can be
        taken."""
        self.may_hold_long = False
        """Whether a message over the limit is held back, for `start_stream` or until this is
        False again, and not refused."""
        self.holds_long = False
        """That is why bytes are held back."""
        self.end_is_due = False
        """Whether the messages just returned are the last: once their receiver has had the chance
        to answer them, call `receive(b"")`, which ends the connection."""
        self.message_begun = False
        """Whether a message, or a frame, has come in part."""

        # Input
        self._part: _Part | None = None
        self._inflater = inflater
        self._yield = 0  # bytes that came out of this read
        self._stream: _Stream | None = None  # once one has been asked for

        # Output
        self._deflater = deflater
        self._piece_opcode: int = Opcode.TEXT  # of the message being sent in pieces
        self._piece_rsv = 0
        self._pings: dict[bytes, None] | None = None  # sent and not answered, the oldest first

    # -- the end ---------------------------------------------------------------------------------

    @property
    def close_code(self) -> int | None:
        """Set once `state` is CLOSED; ConnectionClosed says what it may be."""
        return None if self._ending is None else self._ending.code

    @property
    def close_reason(self) -> str:
        return "" if self._ending is None else self._ending.reason

    @property
    def close_sent(self) -> tuple[int, str] | None:
        """Code and reason of the close frame that this end has sent."""
        return None if self._ending is None else self._ending.sent

    @property
    def to_skip(self) -> int:
        """Bytes still to come of a frame that was refused for its size. A peer that is busy
        sending it learns of the close only if it may finish: many proxies, and clients that do
        not read while they write, drop the close frame when the connection ends before."""
        return 0 if self._ending is None else self._ending.to_skip

    def _ends(self) -> _Ending:
        if self._ending is None:
            self._ending = _Ending()
        return self._ending

    # -- input -----------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Message]:
        """Take bytes from the peer; return the messages that they complete."""
        messages: list[Message] = []
        if self.end_is_due:
            self._apply_end()
        if self.state is CLOSED:
            self._ends().to_skip = max(0, self.to_skip - len(data))
            return messages
        part = self._part
        if part is not None and part.rest:
            data = part.rest + data
            part.rest = b""
        self.holding = self.holds_long = False
        self._yield = 0
        try:
            self._read(data, messages)
        except FrameError as error:
            self._let_end(error.code, error.reason, failed=True)
        if self.end_is_due and not messages:
            self._apply_end()
        else:
            self._forget_whole()
        return messages

    def _forget_whole(self) -> None:
        """What came in part is no longer kept once it is whole."""
        part = self._part
        if part is not None and part.kind is None and part.frame is None and not part.rest:
            self._part = part = None
        self.message_begun = part is not None

    def room(self) -> memoryview | None:
        """Where to write the peer's next bytes, instead of giving them to `receive`.

        None unless they are the inside of a large frame. The view is to be released before
        `receive_placed`.
        """
        part = self._part
        if part is None or part.large is None or part.frame is None:
            return None
        seen = part.seen
        return wire.room(part.large, seen, min(part.frame.length - seen, ROOM_SIZE))

    def receive_placed(self, size: int) -> list[Message]:
        """As `receive`, of `size` bytes that were written to `room`."""
        part = self._part
        assert part is not None
        frame = part.frame
        assert frame is not None
        wire.placed(part.large, part.seen, size, frame.key)
        part.seen += size
        if part.seen < frame.length:
            return []
        message = wire.filled(part.large)
        self._part = None
        self.message_begun = False
        return [message]

    def receive_eof(self) -> None:
        """The peer will send nothing more."""
        if self.end_is_due:
            self._apply_end()
        if self.state is not CLOSED:
            self._end(_ABNORMAL, "connection ended without a close frame")

    def _read(self, data: bytes, messages: list[Message]) -> None:
        position, end = 0, len(data)
        others = 0  # frames that were not whole messages
        stream = self._stream
        while True:
            part = self._part
            frame = None if part is None else part.frame
            if frame is None:
                if (part is None or part.kind is None) and not (stream and stream.is_next):
                    position = self._read_whole(data, position, end, messages)
                    if position == end:
                        return
                if part is None:
                    part = self._part = _Part()
                others += 1
                if others + len(messages) > _FRAMES_AT_ONCE and position < end:
                    part.rest = data[position:]
                    self.holding = True
                    return
                frame = read_header(data, position)
                if frame is None:
                    part.rest = data[position:]
                    return
                try:
                    self._begin_frame(part, frame)
                except FrameError as error:
                    if error.code == CloseCode.MESSAGE_TOO_BIG:
                        if self.may_hold_long and not (stream and (stream.lives or stream.is_next)):
                            part.rest = data[position:]
                            self.holding = self.holds_long = True
                            return
                        rest = frame.length - (end - position - frame.size)
                        self._ends().to_skip = max(0, rest)
                    raise
                position += frame.size
                part.frame, part.seen = frame, 0
                if (
                    frame.length >= _LARGE
                    and end - position < frame.length <= 32 * (end - position)  # or it would cost
                    and frame.opcode == Opcode.BINARY  # more than the peer has paid for
                    and frame.fin
                    and not (part.compressed or (stream and stream.lives))
                ):
                    part.large = wire.blank(frame.length)
            assert part is not None
            seen = part.seen
            take = min(frame.length - seen, end - position)
            if part.large is not None:
                wire.fill(part.large, seen, data, position, position + take, frame.key)
                position += take
                part.seen = seen + take
                if part.seen < frame.length:
                    return
                messages.append(wire.filled(part.large))
                part.large = part.kind = part.frame = None
                continue
            if frame.key:
                piece = memoryview(data)[position : position + take]
                payload = wire.apply_mask(piece, frame.key, seen & 3)
            else:
                payload = data[position : position + take]
            position += take
            part.seen = seen + take
            frame_is_complete = part.seen == frame.length
            if frame.opcode >= Opcode.CLOSE:
                part.control += payload
            else:
                is_last = frame_is_complete and frame.fin
                if part.compressed:
                    payload = self._inflate(part, payload, is_last=is_last)
                if stream and stream.lives:
                    self._add_piece(part, payload, is_last=is_last and not self.holding)
                elif is_last and not seen and frame.opcode and not self.holding:
                    # The usual case: a whole message in one frame in one read.
                    messages.append(_decode(payload) if frame.opcode == Opcode.TEXT else payload)
                    part.kind = None
                else:
                    self._add_payload(part, payload, is_last=is_last and not self.holding)
                if self.holding:
                    part.rest = data[position:]
                    return
            if not frame_is_complete:
                return
            part.frame = None
            if frame.opcode >= Opcode.CLOSE:
                self._end_control_frame(part, frame.opcode)
                if self.end_is_due:
                    return
            elif stream and stream.lives:
                if frame.fin:
                    self._end_stream(part, stream)
            elif frame.fin and (seen or not frame.opcode):
                self._end_message(part, messages)
            if self._yield >= HOLD_SIZE and position < end:
                part.rest = data[position:]
                self.holding = True
                return

    def _read_whole(self, data: bytes, position: int, end: int, messages: list[Message]) -> int:
        """Take messages that came whole, each in one frame and in this read, as most do.

        Return the place of the first that did not. What is wrong with that is not found out here.
        """
        masked = 0 if self.is_client or not self._is_masked else 0x80
        head = 6 if masked else 2
        while end - position >= head and len(messages) < _FRAMES_AT_ONCE:
            kind, length = data[position], data[position + 1] - masked
            if not 0 <= length <= 126:
                break
            start = position + head
            if length == 126:
                if end - position < 4:
                    break
                length = data[position + 2] << 8 | data[position + 3]
                start += 2
                if length < 126:
                    break
            if length > self._max_message_size or start + length > end:
                break
            if kind == 0x81:  # text, final
                try:
                    if masked:
                        messages.append(wire.unmask_text(data, start, start + length))
                    else:
                        messages.append(wire.decode(data[start : start + length]))
                except UnicodeDecodeError:
                    break
            elif kind == 0x82:  # binary, final
                if masked:
                    messages.append(wire.unmask(data, start, start + length))
                else:
                    messages.append(data[start : start + length])
            elif kind in (0xC1, 0xC2) and self._inflater is not None:  # the same, compressed
                # Small ones, which can't become too large.
                most = (length + 4) * _MOST_INFLATED
                if most > self._max_message_size or self._yield >= HOLD_SIZE:
                    break
                payload = data[start : start + length]
                if masked:
                    payload = wire.unmask(data, start, start + length)
                payload = self._inflater.inflate(payload, self._max_message_size + 1, is_last=True)
                self._yield += len(payload)
                messages.append(_decode(payload) if kind == 0xC1 else payload)
            else:
                break
            position = start + length
        return position

    def _begin_frame(self, part: _Part, frame: Header) -> None:
        """Check what the head alone can tell, before any payload is kept."""
        if frame.rsv:
            self._check_reserved_bits(frame)
        if bool(frame.key) is (self.is_client or not self._is_masked):
            wrong = "masked frame" if frame.key else "unmasked frame"
            wrong += " from a server" if self.is_client else " from a client"
            raise FrameError(CloseCode.PROTOCOL_ERROR, wrong)
        if frame.opcode >= Opcode.CLOSE:
            part.control = b""
            return
        stream = self._stream
        if frame.opcode == Opcode.CONTINUATION:
            if part.kind is None:
                raise FrameError(CloseCode.PROTOCOL_ERROR, "continuation of no message")
            size, fragments = part.size + frame.length, part.fragments + 1
            streams, compressed = stream is not None and stream.lives, part.compressed
        else:
            if part.kind is not None:
                raise FrameError(CloseCode.PROTOCOL_ERROR, "new message inside a fragmented one")
            size, fragments = frame.length, 1
            streams, compressed = stream is not None and stream.is_next, frame.rsv != 0
        limit = stream.limit if stream is not None and streams else self._max_message_size
        # What is compressed and does not shrink grows a little: no need to be precise.
        if size > (2 * limit + 1024 if compressed else limit):
            raise self._too_big(limit)
        if fragments > self._max_fragments and not streams:
            raise FrameError(
                CloseCode.POLICY_VIOLATION, f"message of over {self._max_fragments} fragments"
            )
        part.size, part.fragments = size, fragments
        if frame.opcode != Opcode.CONTINUATION:
            part.kind = frame.opcode
            part.compressed = compressed
            part.inflated = 0
            if stream is not None:
                stream.lives, stream.is_next = streams, False
                stream.dropped = False
                if streams:
                    stream.kind = frame.opcode

    def _too_big(self, limit: int) -> FrameError:
        return FrameError(CloseCode.MESSAGE_TOO_BIG, f"message over {limit} bytes")

    def _check_reserved_bits(self, frame: Header) -> None:
        if self._inflater is None or frame.rsv != _RSV1:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "reserved bit set without an extension")
        if frame.opcode >= Opcode.CLOSE:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "compressed control frame")
        if frame.opcode == Opcode.CONTINUATION:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "RSV1 in a continuation frame")

    def _inflate(self, part: _Part, payload: bytes, *, is_last: bool) -> bytes:
        """Inflate a part of a message, but never more than a message may have.

        Where `holding` is true afterwards, there is more of it.
        """
        assert self._inflater is not None
        stream = self._stream
        streams = stream is not None and stream.lives
        limit = stream.limit if stream is not None and streams else self._max_message_size
        room = limit - part.inflated
        most = min(room + 1, HOLD_SIZE) if streams else room + 1
        inflated = self._inflater.inflate(payload, max(most, 1), is_last=is_last)
        part.inflated += len(inflated)
        self._yield += len(inflated)
        if len(inflated) > room:
            if not self.may_hold_long or streams:
                assert part.frame is not None
                self._ends().to_skip = part.frame.length - part.seen
                raise self._too_big(limit)
            self.holding = self.holds_long = True
        elif self._inflater.has_more:
            self.holding = True
        return inflated

    def _add_payload(self, part: _Part, payload: bytes, *, is_last: bool) -> None:
        if part.message is None:
            part.message = bytearray(payload)
        else:
            part.message += payload
        if part.kind == Opcode.TEXT:
            # Checked as it comes, so that bad text fails at once and not after the last fragment.
            self._decode_part(part, payload, is_last=is_last)

    def _decode_part(self, part: _Part, payload: bytes, *, is_last: bool) -> str:
        if part.decoder is None:
            part.decoder = _new_utf8_decoder()
        try:
            text = part.decoder.decode(payload, is_last)
        except UnicodeDecodeError:
            raise FrameError(CloseCode.INVALID_DATA, "text is not UTF-8") from None
        kept, _ = part.decoder.getstate()
        if kept[:1] == b"\xed" and kept[1:] >= b"\xa0":  # a surrogate, which it lets begin
            raise FrameError(CloseCode.INVALID_DATA, "text is not UTF-8")
        return text

    # -- input in pieces -------------------------------------------------------------------------

    def start_stream(self, max_size: int | None) -> None:
        """Give the next message, or what has begun of one, by `take_pieces` and not as a message.

        `max_size` is its limit in bytes, where that is above `max_message_size`; None: none.
        """
        if max_size is None:
            max_size = sys.maxsize // 4
        if self._stream is None:
            self._stream = _Stream()
        stream, part = self._stream, self._part
        stream.limit = max(max_size, self._max_message_size)
        stream.kind = 0
        if self.end_is_due:
            return  # nothing more will come
        if part is None or part.kind is None or stream.lives:
            stream.is_next = True
            return
        stream.lives = True
        stream.dropped = False
        stream.kind = part.kind
        if part.large is not None:
            part.message = bytearray(wire.filled(part.large)[: part.seen])
            part.large = None
        begun = part.message or b""
        if part.kind == Opcode.TEXT:
            kept = part.decoder.getstate()[0] if part.decoder is not None else b""
            self._put_piece(stream, begun[: len(begun) - len(kept)].decode())
        else:
            self._put_piece(stream, bytes(begun))
        part.message = None

    @property
    def stream_kind(self) -> int:
        """TEXT or BINARY once the message has begun that the last `start_stream` asked for."""
        return 0 if self._stream is None else self._stream.kind

    def take_pieces(self) -> list[Message]:
        """Return what has come of the message that is streamed."""
        stream = self._stream
        if stream is None:
            return _NONE
        pieces, stream.pieces = stream.pieces, _NONE
        return pieces

    def take_stream_end(self) -> bool:
        """Whether its last piece has come; told once."""
        stream = self._stream
        if stream is None or not stream.ended:
            return False
        stream.ended = False
        return True

    def drop_stream(self) -> None:
        """Nobody wants the rest of it, or no longer waits for it to begin."""
        stream = self._stream
        if stream is not None:
            stream.is_next = False
            stream.dropped = stream.lives
            stream.pieces = _NONE
            stream.ended = False

    def _add_piece(self, part: _Part, payload: bytes, *, is_last: bool) -> None:
        assert self._stream is not None
        piece: Message = payload
        if part.kind == Opcode.TEXT:
            piece = self._decode_part(part, payload, is_last=is_last)
        self._put_piece(self._stream, piece)

    def _put_piece(self, stream: _Stream, piece: Message) -> None:
        if piece and not stream.dropped:
            if not stream.pieces:
                stream.pieces = []
            stream.pieces.append(piece)

    def _end_stream(self, part: _Part, stream: _Stream) -> None:
        stream.ended = not stream.dropped
        stream.lives = False
        part.kind = None
        part.decoder = None

    def _end_message(self, part: _Part, messages: list[Message]) -> None:
        payload = bytes(part.message or b"")
        messages.append(wire.decode(payload) if part.kind == Opcode.TEXT else payload)
        part.kind = None
        part.message = None
        part.decoder = None

    def _end_control_frame(self, part: _Part, opcode: int) -> None:
        payload, part.control = part.control, b""
        if opcode == Opcode.PING:
            if not self.pings_due:
                self.pings_due = []
            self.pings_due.append(payload)
        elif opcode == Opcode.PONG:
            if self._pings is not None and payload in self._pings:
                # A pong answers all pings up to its own.
                pings = list(self._pings)
                place = pings.index(payload) + 1
                self.pongs = self.pongs + pings[:place]
                self._pings = dict.fromkeys(pings[place:]) if place < len(pings) else None
        else:
            self._let_end(*read_close_payload(payload), failed=False)

    def _let_end(self, code: int, reason: str, *, failed: bool) -> None:
        self._ends().due = (code, reason, failed)
        self.end_is_due = True

    def _apply_end(self) -> None:
        code, reason, failed = self._ends().due or (_ABNORMAL, "", True)
        if failed:
            self.fail(code, reason)
        else:
            answer = None if code == CloseCode.NO_STATUS_RECEIVED else code
            self._queue_close(close_payload(answer))
            self._end(code, reason)

    # -- output ----------------------------------------------------------------------------------

    def send_whole(self, message: Message | bytearray | memoryview) -> bytes | None:
        """Return the frame of a message where that is quick, else None: then `send` has to."""
        key = _new_key() if self.is_client and self._is_masked else b""
        frame = wire.whole_frame(message, key)
        deflater = self._deflater
        if deflater is not None and frame is not None and len(frame) > deflater.threshold:
            return None  # perhaps to be compressed
        return frame

    def put_whole(
        self, room: bytearray, place: int, message: Message | bytearray | memoryview
    ) -> int:
        """Write the frame of `send_whole` to `place`; return its size, or 0: `send` has to do it,
        or there is no room."""
        key = _new_key() if self.is_client and self._is_masked else b""
        size = wire.put_frame(room, place, message, key)
        if self._deflater is not None and size > self._deflater.threshold:
            return 0
        return size

    def send(self, message: Message | bytearray | memoryview) -> list[Frame]:
        """Return the frames of a message. Raises TypeError for what is not one.

        Mutable bytes are copied; UnicodeEncodeError is raised for a `str` that is not text
        (lone surrogates).
        """
        if isinstance(message, str):
            opcode, payload = Opcode.TEXT, wire.encode(message)
        elif isinstance(message, (bytes, bytearray, memoryview)):
            opcode, payload = Opcode.BINARY, bytes(message)
        else:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        if self._deflater is not None and len(payload) >= self._deflater.threshold:
            return self._send_compressed(opcode, payload)
        return self._frames_of(opcode, payload)

    def _send_compressed(self, opcode: int, payload: bytes) -> list[Frame]:
        """The same where a message is to be compressed, unless that is of no use."""
        assert self._deflater is not None
        if opcode == Opcode.TEXT or self._deflater.is_worth(payload):
            compressed = self._deflater.compress(payload)
            if compressed is not None:
                return self._frames_of(opcode, compressed, rsv=_RSV1)
        return self._frames_of(opcode, payload)

    def send_piece(self, piece: Message, *, is_first: bool) -> list[Frame]:
        """As `send`, for a piece of a message, which `end_pieces` ends.

        Raises TypeError where it is not of the same type as the first.
        """
        opcode, payload = _encoded(piece)
        rsv = 0
        if is_first:
            self._piece_opcode = opcode
            self._piece_rsv = rsv = self._rsv_for_pieces(opcode, payload)
        elif opcode != self._piece_opcode:
            raise TypeError("the pieces of a message are all str or all bytes")
        elif not payload:
            return []
        if self._piece_rsv and payload:
            assert self._deflater is not None
            payload = self._deflater.compress_piece(payload)
        opcode = opcode if is_first else Opcode.CONTINUATION
        return self._frames_of(opcode, payload, rsv=rsv, fin=False)

    def _rsv_for_pieces(self, opcode: int, payload: bytes) -> int:
        if self._deflater is None:
            return 0
        is_worth = opcode == Opcode.TEXT or self._deflater.is_worth(payload)
        return _RSV1 if is_worth else 0

    def end_pieces(self) -> list[Frame]:
        return [self._frame_of(Opcode.CONTINUATION, END if self._piece_rsv else b"")]

    def _frames_of(
        self, opcode: int, payload: bytes, rsv: int = 0, *, fin: bool = True
    ) -> list[Frame]:
        if len(payload) <= FRAGMENT_SIZE:
            return [self._frame_of(opcode, payload, fin=fin, rsv=rsv)]
        pieces = memoryview(payload)
        frames = []
        for start in range(0, len(payload), FRAGMENT_SIZE):
            is_last = fin and start + FRAGMENT_SIZE >= len(payload)
            piece = pieces[start : start + FRAGMENT_SIZE]
            frames.append(self._frame_of(opcode, piece, fin=is_last, rsv=rsv))
            opcode, rsv = Opcode.CONTINUATION, 0
        return frames

    def send_shared(self, message: SharedMessage) -> list[Frame]:
        """As `send`, for a message that goes to many: its frames are made once for all those who
        can take the same."""
        if self.is_client:
            return self.send(message.message)  # masked, and so different for each
        deflater = self._deflater
        if deflater is not None and message.size < deflater.threshold:
            deflater = None
        key = None if deflater is None else deflater.shared_key
        frames = message.frames.get(key)
        if frames is None:
            opcode, payload, rsv = message.opcode, message.payload, 0
            if deflater is not None and (opcode == Opcode.TEXT or deflater.is_worth(payload)):
                compressed = deflater.compress_alone(payload)
                if compressed is not None:
                    payload, rsv = compressed, _RSV1
            frames = message.frames[key] = (self._frames_of(opcode, payload, rsv), rsv != 0)
        if deflater is not None and frames[1]:
            deflater.forget()  # the peer's window has moved on without ours
        return frames[0]

    def shared_whole(self, message: SharedMessage) -> bytes | None:
        """What `send_shared` returns where that is one frame in one buffer, and not compressed;
        else None."""
        if self.is_client:
            return None
        if self._deflater is not None and message.size >= self._deflater.threshold:
            return None
        return message.whole

    def release_if_idle(self) -> None:
        """Give back memory for compressing that was not used since the last call."""
        if self._deflater is not None:
            self._deflater.release_if_idle()

    def ping(self, payload: bytes) -> bytes:
        """Return a ping frame; its payload turns up in `pongs` once it is answered."""
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise ValueError(f"ping of {len(payload)} bytes: at most {MAX_CONTROL_PAYLOAD}")
        if self._pings is None:
            self._pings = {}
        self._pings[payload] = None
        if len(self._pings) > MAX_PINGS:
            del self._pings[next(iter(self._pings))]
        return self._control_frame(Opcode.PING, payload)

    def take_pongs(self) -> list[bytes]:
        """Return the pong frames that are due."""
        payloads, self.pings_due = self.pings_due, _NONE
        if self.close_sent is not None or self.state is CLOSED:
            return []
        return [self._control_frame(Opcode.PONG, payload) for payload in payloads]

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin the closing handshake. Raises ValueError for a bad code or reason."""
        payload = close_payload(code, reason)
        if self.state is OPEN:
            self._queue_close(payload)
            self.state = CLOSING

    def fail(self, code: int, reason: str) -> None:
        """End the connection with `code` without waiting for the peer (RFC 6455 section 7.1.7)."""
        if self.state is CLOSED:
            return
        if code != CloseCode.ABNORMAL_CLOSURE:
            self._queue_close(close_payload(code, reason))
        self.failed = True
        self._end(code, reason)

    def take_answered(self) -> list[bytes]:
        """Return the payloads of the pings that were answered."""
        answered, self.pongs = self.pongs, _NONE
        return answered

    def take_close(self) -> bytes | None:
        """Return the close frame to write, behind all else, if one is due."""
        if self._ending is None:
            return None
        frame, self._ending.frame = self._ending.frame, None
        return frame

    def _queue_close(self, payload: bytes) -> None:
        ending = self._ends()
        if ending.sent is None:
            ending.sent = read_close_payload(payload)
            ending.frame = self._control_frame(Opcode.CLOSE, payload)

    def _end(self, code: int, reason: str) -> None:
        ending = self._ends()
        ending.due = None
        ending.code, ending.reason = int(code), reason
        self.end_is_due = self.message_begun = self.holding = self.holds_long = False
        self.state = CLOSED
        self._part = None
        if self._stream is not None:
            self._stream.lives = self._stream.is_next = False
        self._inflater = self._deflater = None

    def _control_frame(self, opcode: Opcode, payload: bytes) -> bytes:
        return b"".join(self._frame_of(opcode, payload))

    def _frame_of(
        self, opcode: int, payload: bytes | memoryview, *, fin: bool = True, rsv: int = 0
    ) -> Frame:
        key = _new_key() if self.is_client and self._is_masked else b""
        head = header(opcode, len(payload), fin=fin, rsv=rsv, key=key)
        if key:
            payload = wire.apply_mask(payload, key, 0)
        if len(payload) < wire.WHOLE_BELOW:
            return (head + payload,)
        return (head, payload)


_KEYS_AT_ONCE: Final = 256
_keys: list[bytes] = []


def _new_key() -> bytes:
    """A masking key (RFC 6455 section 5.3): drawn from the system, but not one by one, which would
    cost more than all the rest of a small frame."""
    try:
        return _keys.pop()
    except IndexError:
        drawn = os.urandom(4 * _KEYS_AT_ONCE)
        _keys.extend([drawn[place : place + 4] for place in range(4, len(drawn), 4)])
        return drawn[:4]


os.register_at_fork(after_in_child=_keys.clear)  # a child draws its own


def _decode(payload: bytes) -> str:
    try:
        return wire.decode(payload)
    except UnicodeDecodeError:
        raise FrameError(CloseCode.INVALID_DATA, "text is not UTF-8") from None
