"""One WebSocket connection without I/O (RFC 6455), for either role.

Bytes go in by `receive`, which gives the messages they complete; frames to write come from
`send`, `ping`, `close`, and, after each `receive`, from `take_pongs` and `take_close`. What a peer
sends never raises: it ends the connection with the right close code.
"""

from __future__ import annotations

import codecs
import enum
import os
from typing import Any, Final, Literal

from . import wire
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

FRAGMENT_SIZE: Final = 256 * 1024
"""Bytes of payload in an outgoing frame at most: a longer message leaves in fragments, so that a
control frame can go in between."""

MAX_PINGS: Final = 64
"""Pings waiting for their pong; of more the oldest are forgotten."""

_LARGE: Final = 4096  # bytes of payload

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class State(enum.IntEnum):
    """As the browser's `readyState`."""

    OPEN = 1
    CLOSING = 2
    CLOSED = 3


OPEN: Final = State.OPEN  # by names of their own, because attributes of an enum are slow
CLOSING: Final = State.CLOSING
CLOSED: Final = State.CLOSED


class Protocol:
    """The state of one connection after its handshake."""

    __slots__ = (
        "_close_frame",
        "_control",
        "_decoder",
        "_due",
        "_fragments",
        "_frame",
        "_kind",
        "_large",
        "_max_fragments",
        "_max_message_size",
        "_message",
        "_pings",
        "pings_due",
        "_rest",
        "_seen",
        "_size",
        "close_code",
        "close_reason",
        "close_sent",
        "end_is_due",
        "failed",
        "is_client",
        "message_begun",
        "pongs",
        "state",
        "to_skip",
    )

    def __init__(
        self,
        role: Role = "server",
        *,
        max_message_size: int = 1 << 20,
        max_fragments: int = 1 << 16,
    ) -> None:
        """`max_message_size` is in bytes, text counted as UTF-8; `max_fragments` in frames."""
        self.is_client = role == "client"
        self._max_message_size = max_message_size
        self._max_fragments = max_fragments

        self.state: State = OPEN
        self.close_code: int | None = None
        """Set once `state` is CLOSED; ConnectionClosed says what it may be."""
        self.close_reason = ""
        self.failed = False
        """The connection ended by an error of the peer's, not by a closing handshake."""
        self.to_skip = 0
        """Bytes still to come of a frame that was refused for its size. A peer that is busy
        sending it learns of the close only if it may finish: many proxies, and clients that do
        not read while they write, drop the close frame when the connection ends before."""
        self.pings_due: list[bytes] = []
        """The payloads of pings that came and were not answered: see `take_pongs`."""
        self.pongs: list[bytes] = []
        """The payloads of pings that were answered, until the caller clears it."""

        self.end_is_due = False
        """Whether the messages just returned are the last: once their receiver has had the chance
        to answer them, call `receive(b"")`, which ends the connection."""
        self._due: tuple[int, str, bool] | None = None  # the end: code, reason, by an error?
        self.message_begun = False
        """Whether a message, or a frame, has come in part."""

        # Input: the frame being read …
        self._rest = b""  # the beginning of a frame's head, at most 13 bytes
        self._frame: Header | None = None
        self._seen = 0  # bytes of its payload so far
        self._large: Any = None  # where its payload is written to, if it comes in pieces
        self._control = bytearray()  # its payload so far, where it is a control frame
        # … and the message being read, where it is not in one piece.
        self._kind: int | None = None  # TEXT or BINARY between its first and its last frame
        self._message = bytearray()
        self._size = 0  # of the payloads announced so far
        self._fragments = 0
        self._decoder: codecs.IncrementalDecoder | None = None

        # Output
        self._pings: dict[bytes, None] = {}  # sent and not answered, the oldest first
        self._close_frame: bytes | None = None
        self.close_sent: tuple[int, str] | None = None
        """Code and reason of the close frame that this end has sent."""

    # -- input -----------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Message]:
        """Take bytes from the peer; return the messages that they complete."""
        messages: list[Message] = []
        if self._due is not None:
            self._apply_end(*self._due)
        if self.state is CLOSED:
            self.to_skip = max(0, self.to_skip - len(data))
            return messages
        if self._rest:
            data = self._rest + data
            self._rest = b""
        try:
            self._read(data, messages)
        except FrameError as error:
            self._let_end(error.code, error.reason, failed=True)
        if self._due is not None and not messages:
            self._apply_end(*self._due)
        else:
            self.message_begun = bool(self._kind is not None or self._frame or self._rest)
        return messages

    def receive_eof(self) -> None:
        """The peer will send nothing more."""
        if self._due is not None:
            self._apply_end(*self._due)
        if self.state is not CLOSED:
            self._end(CloseCode.ABNORMAL_CLOSURE, "connection ended without a close frame")

    def _read(self, data: bytes, messages: list[Message]) -> None:
        position, end = 0, len(data)
        while True:
            frame = self._frame
            if frame is None:
                if self._kind is None:
                    position = self._read_whole(data, position, end, messages)
                frame = read_header(data, position)
                if frame is None:
                    self._rest = data[position:]
                    return
                position += frame.size
                try:
                    self._begin_frame(frame)
                except FrameError as error:
                    if error.code == CloseCode.MESSAGE_TOO_BIG:
                        self.to_skip = max(0, frame.length - (end - position))
                    raise
                self._frame, self._seen = frame, 0
                if (
                    frame.length >= _LARGE
                    and end - position < frame.length <= 16 * (end - position)  # or it would cost
                    and frame.opcode == Opcode.BINARY  # more than the peer has paid for
                    and frame.fin
                ):
                    self._large = wire.blank(frame.length)
            seen = self._seen
            take = min(frame.length - seen, end - position)
            if self._large is not None:
                wire.fill(self._large, seen, data, position, position + take, frame.key)
                position += take
                self._seen = seen + take
                if self._seen < frame.length:
                    return
                messages.append(wire.filled(self._large))
                self._large = self._kind = self._frame = None
                continue
            if frame.key:
                piece = memoryview(data)[position : position + take]
                payload = wire.apply_mask(piece, frame.key, seen & 3)
            else:
                payload = data[position : position + take]
            position += take
            self._seen = seen + take
            frame_is_complete = self._seen == frame.length
            if frame.opcode >= Opcode.CLOSE:
                self._control += payload
            elif frame_is_complete and not seen and frame.fin and frame.opcode:
                # The usual case: a whole message in one frame in one read.
                messages.append(_decode(payload) if frame.opcode == Opcode.TEXT else payload)
                self._kind = None
            else:
                self._add_payload(payload, is_last=frame_is_complete and frame.fin)
            if not frame_is_complete:
                return
            self._frame = None
            if frame.opcode >= Opcode.CLOSE:
                self._end_control_frame(frame.opcode)
                if self._due is not None:
                    return
            elif frame.fin and (seen or not frame.opcode):
                self._end_message(messages)

    def _read_whole(self, data: bytes, position: int, end: int, messages: list[Message]) -> int:
        """Take messages that came whole, each in one frame and in this read, as most do.

        Return the place of the first that did not. What is wrong with that is not found out here.
        """
        is_masked = not self.is_client
        while end - position >= 6:
            kind, length = data[position], data[position + 1]
            if is_masked:
                length -= 0x80
            if not 0 <= length < 127:
                break
            start = position + 6 if is_masked else position + 2
            if length == 126:
                length = data[position + 2] << 8 | data[position + 3]
                start += 2
                if length < 126:
                    break
            if length > self._max_message_size or start + length > end:
                break
            if kind == 0x81:  # text, final
                try:
                    if is_masked:
                        messages.append(wire.unmask_text(data, start, start + length))
                    else:
                        messages.append(data[start : start + length].decode())
                except UnicodeDecodeError:
                    break
            elif kind == 0x82:  # binary, final
                if is_masked:
                    messages.append(wire.unmask(data, start, start + length))
                else:
                    messages.append(data[start : start + length])
            else:
                break
            position = start + length
        return position

    def _begin_frame(self, frame: Header) -> None:
        """Check what the head alone can tell, before any payload is kept."""
        if frame.rsv:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "reserved bit set without an extension")
        if bool(frame.key) is self.is_client:
            wrong = "masked frame from a server" if frame.key else "unmasked frame from a client"
            raise FrameError(CloseCode.PROTOCOL_ERROR, wrong)
        if frame.opcode >= Opcode.CLOSE:
            self._control.clear()
            return
        if frame.opcode == Opcode.CONTINUATION:
            if self._kind is None:
                raise FrameError(CloseCode.PROTOCOL_ERROR, "continuation of no message")
            self._fragments += 1
            self._size += frame.length
        else:
            if self._kind is not None:
                raise FrameError(CloseCode.PROTOCOL_ERROR, "new message inside a fragmented one")
            self._kind = frame.opcode
            self._fragments = 1
            self._size = frame.length
        if self._size > self._max_message_size:
            raise FrameError(
                CloseCode.MESSAGE_TOO_BIG, f"message over {self._max_message_size} bytes"
            )
        if self._fragments > self._max_fragments:
            raise FrameError(
                CloseCode.POLICY_VIOLATION, f"message of over {self._max_fragments} fragments"
            )

    def _add_payload(self, payload: bytes, *, is_last: bool) -> None:
        self._message += payload
        if self._kind == Opcode.TEXT:
            # Checked as it comes, so that bad text fails at once and not after the last fragment.
            if self._decoder is None:
                self._decoder = _new_utf8_decoder()
            try:
                self._decoder.decode(payload, is_last)
            except UnicodeDecodeError:
                raise FrameError(CloseCode.INVALID_DATA, "text is not UTF-8") from None
            kept, _ = self._decoder.getstate()
            if kept[:1] == b"\xed" and kept[1:] >= b"\xa0":  # a surrogate, which it lets begin
                raise FrameError(CloseCode.INVALID_DATA, "text is not UTF-8")

    def _end_message(self, messages: list[Message]) -> None:
        message = self._message
        messages.append(message.decode() if self._kind == Opcode.TEXT else bytes(message))
        self._kind = None
        self._message = bytearray()
        self._decoder = None

    def _end_control_frame(self, opcode: int) -> None:
        payload = bytes(self._control)
        if opcode == Opcode.PING:
            self.pings_due.append(payload)
        elif opcode == Opcode.PONG:
            if payload in self._pings:
                # A pong answers all pings up to its own.
                for ping in list(self._pings):
                    del self._pings[ping]
                    self.pongs.append(ping)
                    if ping == payload:
                        break
        else:
            self._let_end(*read_close_payload(payload), failed=False)

    def _let_end(self, code: int, reason: str, *, failed: bool) -> None:
        self._due = (code, reason, failed)
        self.end_is_due = True

    def _apply_end(self, code: int, reason: str, failed: bool) -> None:
        if failed:
            self.fail(code, reason)
        else:
            answer = None if code == CloseCode.NO_STATUS_RECEIVED else code
            self._queue_close(close_payload(answer))
            self._end(code, reason)

    # -- output ----------------------------------------------------------------------------------

    def send_whole(self, message: Message | bytearray | memoryview) -> bytes | None:
        """Return the frame of a message where that is quick, else None: then `send` has to."""
        return wire.whole_frame(message, _new_key() if self.is_client else b"")

    def send(self, message: Message | bytearray | memoryview) -> list[Frame]:
        """Return the frames of a message. Raises TypeError for what is not one.

        Mutable bytes are copied; UnicodeEncodeError is raised for a `str` that is not text
        (lone surrogates).
        """
        if isinstance(message, str):
            opcode, payload = Opcode.TEXT, message.encode()
        elif isinstance(message, (bytes, bytearray, memoryview)):
            opcode, payload = Opcode.BINARY, bytes(message)
        else:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        if len(payload) <= FRAGMENT_SIZE:
            return [self._frame_of(opcode, payload)]
        pieces = memoryview(payload)
        frames = []
        for start in range(0, len(payload), FRAGMENT_SIZE):
            is_last = start + FRAGMENT_SIZE >= len(payload)
            piece = pieces[start : start + FRAGMENT_SIZE]
            frames.append(self._frame_of(opcode, piece, fin=is_last))
            opcode = Opcode.CONTINUATION
        return frames

    def ping(self, payload: bytes) -> bytes:
        """Return a ping frame; its payload turns up in `pongs` once it is answered."""
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise ValueError(f"ping of {len(payload)} bytes: at most {MAX_CONTROL_PAYLOAD}")
        self._pings[payload] = None
        if len(self._pings) > MAX_PINGS:
            del self._pings[next(iter(self._pings))]
        return self._control_frame(Opcode.PING, payload)

    def take_pongs(self) -> list[bytes]:
        """Return the pong frames that are due."""
        payloads, self.pings_due = self.pings_due, []
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

    def take_close(self) -> bytes | None:
        """Return the close frame to write, behind all else, if one is due."""
        frame, self._close_frame = self._close_frame, None
        return frame

    def _queue_close(self, payload: bytes) -> None:
        if self.close_sent is None:
            self.close_sent = read_close_payload(payload)
            self._close_frame = self._control_frame(Opcode.CLOSE, payload)

    def _end(self, code: int, reason: str) -> None:
        self._due = None
        self.end_is_due = self.message_begun = False
        self.state = CLOSED
        self.close_code, self.close_reason = int(code), reason
        self._rest = b""
        self._frame = None
        self._large = None
        self._kind = None
        self._message = bytearray()
        self._decoder = None

    def _control_frame(self, opcode: Opcode, payload: bytes) -> bytes:
        return b"".join(self._frame_of(opcode, payload))

    def _frame_of(self, opcode: int, payload: bytes | memoryview, *, fin: bool = True) -> Frame:
        key = _new_key() if self.is_client else b""
        head = header(opcode, len(payload), fin=fin, key=key)
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
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(CloseCode.INVALID_DATA, "text is not UTF-8") from None
