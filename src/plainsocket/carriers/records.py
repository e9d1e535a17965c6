"""The http carrier's streams without I/O: records in and out (docs/http-carrier.md).

`RecordReader` turns the bytes of a stream into records. `Outbox` is a stream that is being sent:
it makes records of what its channels have to send, each in turn and within its credit, and keeps
what the peer has not acknowledged.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ..protocol import Frame

MAX_PAYLOAD: Final = (1 << 16) - 1
_TURN: Final = 16 * 1024  # bytes of one channel, where others wait
"""Bytes of a record's payload."""

MAX_CHANNEL: Final = (1 << 31) - 1
MAX_CREDIT: Final = (1 << 31) - 1
MAX_OFFSET: Final = (1 << 53) - 1  # what a number of JavaScript's holds

_HEAD: Final = struct.Struct("!BBHI")
_UINT32: Final = struct.Struct("!I")
_UINT64: Final = struct.Struct("!Q")

_JOIN_BELOW: Final = 4096  # bytes: smaller pieces are kept together …
_JOINED_SIZE: Final = 16 * 1024  # … up to about so many
_MARK_EVERY: Final = 16 * 1024  # bytes of a stream between two marks of a channel
_MAX_CONTROL: Final = 128  # control frames that wait in a channel


class Kind(enum.IntEnum):
    """The types of records."""

    DATA = 0
    CREDIT = 1
    OPENED = 2
    END = 3
    ACK = 4
    PING = 5


UP: Final = frozenset({Kind.DATA, Kind.CREDIT, Kind.END, Kind.ACK})
"""What a client may send."""

_NO_MORE_THAN: Final = {  # lengths of payloads: least, most
    Kind.DATA: (1, MAX_PAYLOAD),
    Kind.CREDIT: (4, 4),
    Kind.OPENED: (7, MAX_PAYLOAD),
    Kind.END: (0, 0),
    Kind.ACK: (8, 8),
    Kind.PING: (0, 0),
}


class RecordError(Exception):
    """The peer broke the protocol: its session is over."""


class Record(NamedTuple):
    kind: Kind
    channel: int
    payload: bytes = b""

    @property
    def number(self) -> int:
        """What a CREDIT or an ACK says."""
        return int.from_bytes(self.payload, "big")


def encode(kind: Kind, channel: int = 0, payload: bytes = b"") -> bytes:
    """The bytes of a record."""
    return _HEAD.pack(kind, 0, len(payload), channel) + payload


def credit(channel: int, amount: int) -> bytes:
    return encode(Kind.CREDIT, channel, _UINT32.pack(amount))


def ack(offset: int) -> bytes:
    return encode(Kind.ACK, 0, _UINT64.pack(offset))


_PING: Final = encode(Kind.PING)


class RecordReader:
    """Reads a stream, which may come in pieces of any size."""

    def __init__(self, kinds: frozenset[Kind] = frozenset(Kind)) -> None:
        """`kinds` are those that may come."""
        self._kinds = kinds
        self._rest = b""  # of a record, less than all of it: of DATA less than its head
        self._of = 0  # the channel of the last DATA …
        self._missing = 0  # … of which so many bytes have not come

    def feed(self, data: bytes) -> list[Record]:
        """The records that `data` completes, and of DATA what there is of it; what neighbours have
        of one channel's bytes comes together. Raises RecordError, and is of no use afterwards."""
        if self._rest:
            data = self._rest + data
        records: list[Record] = []
        pieces: list[memoryview] = []  # of DATA for one channel
        view = memoryview(data)
        of = self._of
        end = len(data)
        position = min(self._missing, end)
        self._missing -= position
        if position:
            pieces.append(view[:position])
        while end - position >= _HEAD.size:
            kind, zero, length, channel = _HEAD.unpack_from(data, position)
            start = position + _HEAD.size
            if kind or zero or not 0 < length <= MAX_PAYLOAD or not 0 < channel <= MAX_CHANNEL:
                self._check(kind, zero, length, channel)
            position = start + length
            if kind == Kind.DATA:
                if channel != of and pieces:
                    records.append(Record(Kind.DATA, of, b"".join(pieces)))
                    pieces.clear()
                of = channel
                if start < end:
                    pieces.append(view[start:position])  # as far as it goes
                continue
            if position > end:
                position = start - _HEAD.size
                break
            if pieces:
                records.append(Record(Kind.DATA, of, b"".join(pieces)))
                pieces.clear()
            records.append(_checked(Record(Kind(kind), channel, data[start:position])))
        if pieces:
            records.append(Record(Kind.DATA, of, b"".join(pieces)))
        self._rest = data[position:]
        self._of = of
        self._missing += max(0, position - end)
        return records

    def find_single(self, data: bytes) -> tuple[int, int] | None:
        """The channel, and the length of its payload, where `data` is one record of DATA and
        begins where a record does; else None."""
        if self._rest or self._missing or len(data) <= _HEAD.size:
            return None
        kind, zero, length, channel = _HEAD.unpack_from(data)
        if kind != Kind.DATA or zero or length != len(data) - _HEAD.size:
            return None
        return channel, length

    def _check(self, kind: int, zero: int, length: int, channel: int) -> None:
        """Check a record's head, before its payload has come."""
        if zero or kind not in self._kinds:
            raise RecordError(f"no such record: {kind}")
        least, most = _NO_MORE_THAN[Kind(kind)]
        if not least <= length <= most:
            raise RecordError(f"{Kind(kind).name} of {length} bytes")
        of_session = kind in (Kind.ACK, Kind.PING)
        if channel > MAX_CHANNEL or (kind != Kind.END and bool(channel) is of_session):
            raise RecordError(f"{Kind(kind).name} for channel {channel}")


def _checked(record: Record) -> Record:
    if record.kind == Kind.CREDIT and not 0 < record.number <= MAX_CREDIT:
        raise RecordError(f"CREDIT of {record.number}")
    if record.kind == Kind.ACK and record.number > MAX_OFFSET:
        raise RecordError("ACK of an offset that is none")
    return record


class Source:
    """What one channel has to send."""

    __slots__ = (
        "_acknowledged",
        "_begun",
        "_control",
        "_dropped",
        "_frames",
        "_marks",
        "_outbox",
        "accepted",
        "buffered",
        "channel",
        "credit",
        "ends",
        "has_ended",
        "is_ready",
        "on_progress",
    )

    def __init__(
        self, outbox: Outbox, channel: int, credit: int, on_progress: Callable[[], object]
    ) -> None:
        """`credit` is in bytes; `on_progress` is called when bytes, or the end, have gone into
        the stream."""
        self._outbox = outbox
        self.channel = channel
        self.credit = credit
        self.on_progress: Callable[[], object] | None = on_progress
        # In this order: the frame that was begun, then control frames, then the rest.
        self._begun: deque[bytes | memoryview] = deque()
        self._control: deque[bytes] = deque()
        self._frames: deque[Frame] = deque()
        self.buffered = 0
        """Bytes that have not gone into the stream."""
        self.accepted = 0
        """Bytes ever written."""
        self._dropped = 0
        self.ends = False
        self.has_ended = False
        """Whether END has gone into the stream."""
        self.is_ready = False
        # Of the stream's offsets: behind which of them how many of this channel's bytes had gone.
        self._marks: deque[tuple[int, int]] = deque()
        self._acknowledged = 0

    def write(self, frame: Frame) -> None:
        self._frames.append(frame)
        for buffer in frame:
            self.buffered += len(buffer)
            self.accepted += len(buffer)

    def write_control(self, frame: bytes) -> None:
        """A control frame goes before the frames that were not begun."""
        if len(self._control) >= _MAX_CONTROL:
            dropped = len(self._control.pop())  # the latest pong answers all (RFC 6455 5.5.3)
            self.buffered -= dropped
            self._dropped += dropped
        self._control.append(frame)
        self.buffered += len(frame)
        self.accepted += len(frame)

    def end(self) -> None:
        """END goes behind all that is buffered."""
        self.ends = True
        self.wake()

    def drop(self) -> None:
        """Forget what is buffered."""
        self._begun.clear()
        self._control.clear()
        self._frames.clear()
        self._dropped += self.buffered
        self.buffered = 0

    def wake(self) -> None:
        """Take part in the turns, if there is something to send."""
        if not self.is_ready and not self.has_ended and self.can_send:
            self.is_ready = True
            self._outbox.ready.append(self)

    @property
    def can_send(self) -> bool:
        return (self.buffered > 0 and self.credit > 0) or (self.ends and not self.buffered)

    def unacknowledged(self) -> int:
        """Bytes written that the peer has not acknowledged."""
        self._forget_marks()
        return self.accepted - self._dropped - self._acknowledged

    def take(self, most: int, pieces: list[bytes | memoryview]) -> int:
        """Append the next bytes to `pieces`, in pieces: at most `most`. Returns how many."""
        size = min(most, self.credit, self.buffered)
        left = size
        while left:
            piece = self._next(left)
            pieces.append(piece)
            left -= len(piece)
        self.buffered -= size
        self.credit -= size
        return size

    def _next(self, most: int) -> bytes | memoryview:
        begun = self._begun
        if not begun:
            begun.extend((self._control.popleft(),) if self._control else self._frames.popleft())
        buffer = begun.popleft()
        if len(buffer) <= most:
            return buffer
        view = memoryview(buffer)
        begun.appendleft(view[most:])
        return view[:most]

    def went(self, offset: int) -> None:
        """What was taken ends at `offset` of the stream."""
        self._forget_marks()
        marks = self._marks
        if len(marks) > 1 and offset - marks[-2][0] < _MARK_EVERY:
            marks.pop()
        marks.append((offset, self.accepted - self._dropped - self.buffered))

    def _forget_marks(self) -> None:
        acknowledged = self._outbox.acknowledged
        while self._marks and self._marks[0][0] <= acknowledged:
            self._acknowledged = self._marks.popleft()[1]


class Outbox:
    """A stream that is being sent: made as it can be sent, and kept until it is acknowledged."""

    def __init__(self, window: int) -> None:
        """`window`: bytes that may be unacknowledged; then no more are made."""
        self._window = window
        self.ready: deque[Source] = deque()
        """Those that have something to send, in the order of their turns."""
        self._records: deque[bytes] = deque()  # that go before all turns
        self._received: int | None = None  # offset that an ACK shall tell
        self.acknowledged = 0
        """Offset below which the peer has everything."""
        self.end = 0
        """Offset of the next byte that will be made."""
        self._asked_at = 0  # the offset at which the peer was last asked to acknowledge
        self._kept: deque[bytes | bytearray] = deque()
        self._kept_from = 0  # the offset of its first byte, at most `acknowledged`

    def put(self, record: bytes) -> None:
        """Send a record before what the channels have."""
        self._records.append(record)

    def tell(self, received: int) -> None:
        """Send an ACK with this offset of the other stream, in place of one that still waits."""
        self._received = received

    @property
    def has_more(self) -> bool:
        """Whether there is something to make, and room for it."""
        has_room = self.end - self.acknowledged < self._window
        return has_room and bool(self._records or self.ready or self._received is not None)

    def make(self, most: int) -> bytes:
        """The next bytes of the stream: about `most` at most; none if there are none, or the
        window is full."""
        most = min(most, self._window - (self.end - self.acknowledged))
        pieces: list[bytes | memoryview] = []
        size = 0
        touched: dict[Source, None] = {}
        if self._received is not None and most > 0:
            pieces.append(ack(self._received))
            size += len(pieces[-1])
            self._received = None
        while self._records and size < most:
            pieces.append(self._records.popleft())
            size += len(pieces[-1])
        while self.ready and size < most:
            source = self.ready.popleft()
            if source.buffered and source.credit > 0:
                at = len(pieces)
                length = source.take(_TURN if self.ready else min(MAX_PAYLOAD, most - size), pieces)
                pieces.insert(at, _HEAD.pack(Kind.DATA, 0, length, source.channel))
                size += _HEAD.size + length
                source.went(self.end + size)
            if source.ends and not source.buffered:
                pieces.append(encode(Kind.END, source.channel))
                size += _HEAD.size
                source.has_ended = True
            touched[source] = None
            source.is_ready = False
            source.wake()
        if not size:
            return b""
        if self.end + size - max(self.acknowledged, self._asked_at) >= self._window // 2:
            pieces.append(_PING)  # which asks for an acknowledgement
            size += len(_PING)
            self._asked_at = self.end + size
        data = b"".join(pieces)
        self.end += size
        self._keep(data)
        for source in touched:
            if source.on_progress is not None:
                source.on_progress()
        return data

    def since(self, offset: int) -> Iterator[bytes]:
        """What has been made from `offset` on, in pieces. Raises RecordError if it is not kept."""
        if not self.acknowledged <= offset <= self.end:
            raise RecordError(f"offset {offset} is not kept")
        skip = offset - self._kept_from
        for piece in list(self._kept):
            if skip < len(piece):
                yield bytes(piece[skip:] if skip else piece)
            skip = max(0, skip - len(piece))

    def acknowledge(self, offset: int) -> bool:
        """Forget what the peer has; return whether that is more than before. Raises RecordError
        for an offset that was not sent."""
        if offset > self.end:
            raise RecordError(f"offset {offset} was not sent")
        if offset <= self.acknowledged:
            return False
        self.acknowledged = offset
        while self._kept and self._kept_from + len(self._kept[0]) <= offset:
            self._kept_from += len(self._kept.popleft())
        return True

    def _keep(self, data: bytes) -> None:
        # Many small ones would take several times their size.
        last = self._kept[-1] if self._kept else None
        if len(data) >= _JOIN_BELOW:
            self._kept.append(data)
        elif isinstance(last, bytearray) and len(last) < _JOINED_SIZE:
            last += data
        else:
            self._kept.append(bytearray(data))
