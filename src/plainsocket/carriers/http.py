"""The http carrier: WebSockets over ordinary HTTP requests (docs/http-carrier.md).

A `Session` is what one page has here, a `Channel` the carrier of one of its WebSockets. Requests
bring bytes to the session by `Session.receive`; a `Response` takes them from it.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import gevent
from gevent import get_hub, getcurrent
from gevent.event import Event

from ..protocol import Frame
from ..timers import TimerWheel
from . import posts
from .base import Carrier, Receiver
from .records import (
    MAX_CREDIT,
    UP,
    Kind,
    Outbox,
    Record,
    RecordError,
    RecordReader,
    Source,
    credit,
    encode,
)

_PIECE: Final = 64 * 1024  # bytes written in a row
_LARGE_PIECE: Final = 256 * 1024  # … where they leave quickly, which costs less: a piece of the
_QUICKLY: Final = 0.005  # first size in so many seconds
_POLL_SIZE: Final = 1 << 20  # bytes of an answer to a poll
_FIRST_CREDIT: Final = 256 * 1024
_LEAST_CREDIT: Final = 64 * 1024
_JOIN_BELOW: Final = 16 * 1024  # bytes: smaller pieces that wait are kept together
_IDLE_TIME: Final = 10.0  # seconds that a session without channels stays
_GAP_TIME: Final = 10.0  # seconds that a request waits for the one that it overtook
_STOP_TIME: Final = 3.0  # seconds that a page has to answer, once the server is stopping
_LAST_WRITE: Final = 5.0  # seconds that a response has for what it is writing when it is replaced
_NUMBERS_KEPT: Final = 256  # of channels that have been


class Conflict(Exception):
    """A request does not fit what came before it."""


class Channel(Carrier):
    """Moves the bytes of one WebSocket. Until `start` it is a queue."""

    __slots__ = (
        "_corked",
        "_corked_size",
        "_credit",
        "_inbox",
        "_is_reading",
        "_is_started",
        "_left",
        "_receiver",
        "_session",
        "_source",
        "number",
        "subprotocol",
    )

    def __init__(self, session: Session, number: int, credit: int, receiver: Receiver) -> None:
        """`credit`: bytes that may be sent at first."""
        super().__init__()
        self._session = session
        self.number = number
        self._receiver: Receiver | None = receiver
        self._source = Source(session.outbox, number, credit, self._progressed)
        self._corked: list[bytes] | None = None  # frames that wait for others, in one batch
        self._corked_size = 0
        self._is_started = False
        self._is_reading = True
        self._inbox: deque[bytes | bytearray | None] = deque()  # what has come; None is its end
        session.channels[number] = self
        self._credit = session.credit_for()
        self._left = self._credit  # bytes that the client may still send
        self.subprotocol: str | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        return self._session.carrier

    def start(self, sock: Any = None, early: bytes = b"", head: bytes = b"") -> None:
        """Tell the client that the channel is open; there is no socket, and nothing early."""
        if self.closed:
            return
        self._is_started = True
        opened = posts.opened(self.number, self._credit, self.subprotocol)
        self._session.outbox.put(opened)
        self._source.wake()
        self._session.flush()

    # -- the end ---------------------------------------------------------------------------------

    def end(self, *, linger: bool) -> None:
        """END behind all that is queued; then it is closed. Nothing here can reset what was sent
        before, so there is no need to linger."""
        if not self.closed:
            self._join_corked()
            self._source.end()
            self._session.flush()
            if self._session.is_over:
                self._close()

    def abort(self, *, reset: bool = False) -> None:
        """Drop what is queued, and close now."""
        if self.closed:
            return
        self._source.drop()
        self._corked = None
        self.buffered = self._corked_size = 0
        if self._is_started:
            self._source.end()
            self._session.flush()
        self._close()

    def _close(self) -> None:
        self.closed = self.broken = True
        self._inbox.clear()
        self._source.on_progress = None
        self._session.forget(self, expects_end=self._is_started)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.carrier_closed()

    # -- reading ---------------------------------------------------------------------------------

    def receive(self, data: bytes | None) -> None:
        """Take bytes of the client's, or None for their end. Raises RecordError."""
        if self.closed or not self._is_started:
            return
        if data is not None:
            self._left -= len(data)
            if self._left < 0:
                raise RecordError(f"more than the credit of channel {self.number}")
        last = self._inbox[-1] if self._inbox else None
        if data is None or last is None or len(last) + len(data) > _JOIN_BELOW:
            self._inbox.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:  # many small pieces would take several times their size
            self._inbox[-1] = bytearray(last + data)
        self._session.deliver_soon(self)

    def has_room_for(self, size: int) -> bool:
        """Whether the client may send so many bytes more."""
        return size <= self._left

    def deliver(self) -> None:
        """In the hub: hand on what has come."""
        while self._inbox and self._is_reading and self._receiver is not None:
            data = self._inbox.popleft()
            if data is None:
                self._receiver.eof_received()
            else:
                self._receiver.data_received(bytes(data))
        if not self.closed:
            self._give_credit()

    def _give_credit(self) -> None:
        """Once a quarter of it is used up, fill it up again, and more than before within the
        channel's share: one that uses much gets more on its way."""
        held = self._left + self.unread()
        if held <= self._credit * 3 // 4:
            self._credit = max(held, self._session.credit_for(self._credit))
            if amount := self._credit - held:
                self._left += amount
                self._session.outbox.put(credit(self.number, amount))
                self._session.flush()

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        if self._inbox:
            self._session.deliver_soon(self)

    def unread(self) -> int:
        """Bytes that have come and wait."""
        return sum(len(data) for data in self._inbox if data is not None)

    # -- writing ---------------------------------------------------------------------------------

    def add_credit(self, amount: int) -> None:
        """The client takes so many more bytes. Raises RecordError."""
        self._source.credit += amount
        if self._source.credit > MAX_CREDIT:
            raise RecordError(f"too much credit for channel {self.number}")
        self._source.wake()

    def unacknowledged(self) -> int:
        return self._source.unacknowledged()

    def cork(self) -> None:
        if self._corked is None:
            self._corked = []

    def uncork(self) -> None:
        self._join_corked()
        self._corked = None
        self._wake()
        if self.buffered and self._receiver is not None:
            self._receiver.write_waits()

    def write_frame(self, frame: bytes) -> None:
        if self.closed:
            return
        if self._corked is None:
            self.write([(frame,)])
        else:
            self._corked.append(frame)
            size = len(frame)
            self._corked_size += size
            self.buffered += size
            self.bytes_accepted += size

    def write(self, frames: Sequence[Frame]) -> None:
        if not self.closed:
            self._join_corked()
            for frame in frames:
                self._source.write(frame)
            self._count()
            self._wake()

    def write_control(self, frame: bytes) -> None:
        if not self.closed:
            self._source.write_control(frame)
            self._count()
            self._wake()

    def flush(self) -> None:
        self._join_corked()
        self._wake()
        if self._corked is not None and self.buffered and self._receiver is not None:
            self._receiver.loop_is_needed()

    def _join_corked(self) -> None:
        """Together they cost little more than one of them."""
        if self._corked:
            self._source.write((b"".join(self._corked),))
            self._corked.clear()
            self._corked_size = 0

    def _wake(self) -> None:
        """Let what is there leave when its greenlet waits."""
        if self._is_started:
            self._source.wake()
            self._session.flush()

    def _count(self) -> None:
        self.buffered = self._source.buffered + self._corked_size
        self.bytes_accepted = self._source.accepted + self._corked_size

    def _progressed(self) -> None:
        self._count()
        if self._source.has_ended and not self.closed:
            self._close()
        elif self._receiver is not None:
            self._receiver.write_progressed()


class Session:
    """The two streams of one page, and their channels."""

    def __init__(
        self,
        token: bytes,
        origin: str | None,
        *,
        window: int,
        max_channels: int,
        heartbeat: float,
        reach: float,
        send_timeout: float,
        on_end: Callable[[Session], object],
    ) -> None:
        """Sizes in bytes, times in seconds. `on_end` is called once."""
        self.token = token
        self.origin = origin
        self._window = window
        self._max_channels = max_channels
        self.heartbeat = heartbeat
        self.reach = reach
        self._patience = reach - heartbeat  # with a client that seems to be gone
        self._send_timeout = send_timeout
        self._on_end = on_end
        self._hub = get_hub()
        self.is_over = False
        self.is_stopping = False

        self.channels: dict[int, Channel | None] = {}
        """By number; None where the client has not sent its END yet."""
        self.joining = 0
        """Opens that may become channels."""
        self._used: set[int] = set()  # numbers of channels that have been, the latest …
        self._used_below = 1  # … and all below this
        self.nonces: deque[bytes] = deque()
        """Of opens that are remembered."""

        self.outbox = Outbox(window)
        self.response: Response | None = None
        self.responses = 0
        """That have not ended yet."""
        self.number = 0
        """Of the current down request."""
        self.carrier = "http"
        self.written = 0
        """How far the down stream has been written."""

        self._reader = RecordReader(UP)
        self.received = 0
        """How far the up stream has come."""
        self.uploads = 0
        """Requests that are being read."""
        self.lasting: set[Any] = set()
        """The greenlets of those of them that last."""
        self._gaps: set[Event] = set()
        self._to_deliver: dict[Channel, None] = {}

        now = time.monotonic()
        self._sign_of_life = now
        self._doubted_at: float | None = None
        self._idle_since = now
        self._stopped_at = now
        self._moved_at = now  # when the client has acknowledged something, or had to last
        self.timer_slot = self.timer_place = 0
        self._timers = TimerWheel.of_hub()
        self._look_interval = min(1.0, heartbeat / 4, reach / 4, send_timeout / 4)
        self._timers.set(self, now + self._look_interval)

    # -- channels --------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another channel may join."""
        if self.is_over or self.is_stopping:
            return False
        return len(self.channels) + self.joining < self._max_channels

    def reserve(self, number: int) -> None:
        """Use a channel's number, for good. Raises Conflict where it has been used."""
        if number < self._used_below or number in self._used:
            raise Conflict(f"The channel {number} has been used.")
        self._used.add(number)
        if len(self._used) > _NUMBERS_KEPT:
            latest = sorted(self._used)[_NUMBERS_KEPT // 2 :]
            self._used_below = latest[0]
            self._used = set(latest)

    def credit_for(self, before: int = 0) -> int:
        """How much credit a channel shall have in all that had `before`: twice as much, within its
        share. That is all of the window for one that is alone; several share a quarter, for what
        one has on its way stands before what another sends then."""
        share = self._window
        if len(self.channels) > 1:
            share //= 4 * len(self.channels)
        least = min(_LEAST_CREDIT, self._window)
        return max(least, min(2 * before or _FIRST_CREDIT, share))

    def forget(self, channel: Channel, *, expects_end: bool) -> None:
        """A channel is closed; the client's END may still come."""
        if self.channels.get(channel.number) is channel:
            if expects_end and not self.is_over:
                self.channels[channel.number] = None
            else:
                del self.channels[channel.number]
        self._became_idle()

    def _became_idle(self) -> None:
        self._idle_since = time.monotonic()
        if self.is_stopping and self.is_idle:
            self.end()

    @property
    def is_idle(self) -> bool:
        """Whether no channel is open, or being opened."""
        return not any(self.channels.values())

    # -- the up stream ---------------------------------------------------------------------------

    def touch(self) -> None:
        """The client has been heard of."""
        self._sign_of_life = time.monotonic()
        self._doubted_at = None

    def doubt(self) -> None:
        """The client's connection has ended. That may be a proxy's doing, so ask it."""
        self._doubted_at = time.monotonic()
        if self.response is not None and self.response.is_poll:
            self.response.finish()
        else:
            self.outbox.put(encode(Kind.PING))
            self.flush()

    def wait_for(self, offset: int) -> None:
        """Wait until the up stream has come as far as `offset`. Raises Conflict."""
        gap = Event()
        self._gaps.add(gap)
        deadline = time.monotonic() + _GAP_TIME
        try:
            while self.received < offset:
                gap.clear()
                if not gap.wait(deadline - time.monotonic()) or self.is_over:
                    raise Conflict("The bytes before these have not come.")
        finally:
            self._gaps.discard(gap)

    def is_next(self, post: posts.Up) -> bool:
        """Whether it has the next bytes of the up stream, and these are one record of DATA that
        its channel has room for."""
        found = self._reader.find_single(post.data)
        if found is None or post.offset != self.received or post.received > self.outbox.end:
            return False
        channel = self.channels.get(found[0])
        return channel is not None and channel.has_room_for(found[1])

    def receive(self, offset: int, data: bytes) -> None:
        """Take bytes of the up stream, from `offset` on, which is not beyond what has come.

        Raises RecordError, and ends the session then.
        """
        self.touch()
        data = data[self.received - offset :]
        if not data or self.is_over:
            return
        self.received += len(data)
        for gap in self._gaps:
            gap.set()
        try:
            for record in self._reader.feed(data):
                self._take(record)
        except RecordError:
            self.lose()
            raise

    def _take(self, record: Record) -> None:
        kind, number, payload = record
        if kind == Kind.ACK:
            self.acknowledge(record.number)
        elif not number:
            self._end_by_client()
        elif number not in self.channels:
            if kind == Kind.END and number >= self._used_below:
                self._used.discard(number)
                self.reserve(number)
        elif (channel := self.channels[number]) is None:
            if kind == Kind.END:
                del self.channels[number]
                self._became_idle()
        elif kind == Kind.CREDIT:
            channel.add_credit(record.number)
            self.flush()
        elif kind == Kind.END:
            del self.channels[number]
            channel.receive(None)
            self._became_idle()
        else:
            channel.receive(payload)

    def _end_by_client(self) -> None:
        for channel in list(self.channels.values()):
            if channel is not None:
                channel.receive(None)
        self._finish()

    def tell_received(self) -> None:
        """Acknowledge the up stream in the down stream, with what replies to it at once."""
        self.outbox.tell(self.received)
        self.flush()

    def tell(self) -> str:
        """The value of the header of an answer to an up request."""
        return f"{self.received} {self.written}"

    def deliver_soon(self, channel: Channel) -> None:
        """Hand on what `channel` has, from the hub."""
        if not self._to_deliver:
            self._hub.loop.run_callback(self._deliver)
        self._to_deliver[channel] = None

    def _deliver(self) -> None:
        channels, self._to_deliver = list(self._to_deliver), {}
        for channel in channels:
            channel.deliver()
        if self.response is not None and self.outbox.has_more:
            self.response.resume()

    # -- the down stream -------------------------------------------------------------------------

    def attach(self, response: Response, number: int) -> None:
        """Make `response` the current one. Raises Conflict."""
        if number < self.number:
            raise Conflict(f"The down request {number} is older than {self.number}.")
        try:
            response.rewind()
        except RecordError as error:
            raise Conflict(f"The {error}.") from None
        self.number = number
        self.responses += 1
        before, self.response = self.response, response
        if before is not None:
            before.finish()
        if self.is_over:
            response.finish()
        self.carrier = "http-poll" if response.is_poll else "http"
        self.written = response.position

    def detach(self, response: Response) -> None:
        """`response` is not the current one any more."""
        if self.response is response:
            self.response = None

    def acknowledge(self, offset: int) -> None:
        """The client has the down stream below `offset`. Raises RecordError."""
        self.touch()
        if self.outbox.acknowledge(offset):
            self._moved_at = self._sign_of_life
            self.flush()

    def flush(self) -> None:
        """Let what is there leave, as soon as this greenlet waits."""
        if self.response is not None and self.outbox.has_more:
            self.response.wake()

    # -- the end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """Tell the client that the session is over."""
        if not self.is_over:
            self.outbox.put(encode(Kind.END))
            self._finish()

    def stop(self) -> None:
        """Take no more channels, and end as soon as there is none."""
        self.is_stopping = True
        self._stopped_at = time.monotonic()
        if self.is_idle:
            self.end()

    def lose(self) -> None:
        """Cut every channel: the client is gone, or has to be."""
        self.end()
        for channel in list(self.channels.values()):
            if channel is not None:
                channel.abort()

    def _finish(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._timers.cancel(self)
        for gap in self._gaps:
            gap.set()
        if self.response is not None:
            self.response.finish()
        self._on_end(self)

    def on_timer(self, now: float) -> float | None:
        """In the hub: look at the deadlines."""
        doubted_at = now if self._doubted_at is None else self._doubted_at
        if now - self._sign_of_life >= self.reach or now - doubted_at >= self._patience:
            self.lose()
            return None
        if self.is_idle and now - self._idle_since >= _IDLE_TIME:
            self.end()
            return None
        if self.outbox.acknowledged == self.outbox.end:
            self._moved_at = now
        elif now - self._moved_at >= self._send_timeout:
            self.lose()
            return None
        if self.is_stopping and now - max(self._sign_of_life, self._stopped_at) >= _STOP_TIME:
            self.lose()
            return None
        if self.response is not None:
            self.response.look(now)
        return now + self._look_interval


class Response:
    """One answer with the down stream: an iterable, as WSGI wants it."""

    def __init__(
        self,
        session: Session,
        preface: bytes,
        offset: int,
        *,
        is_poll: bool,
        seconds: int,
        has_hung_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """`preface` stands before the stream, which begins at `offset`. `has_hung_up` tells
        whether the client has ended its connection."""
        self._session = session
        self._has_hung_up: Callable[[], bool] | None = has_hung_up
        self._preface = preface
        self.position = offset
        """Of the next byte that is given to the server."""
        self.is_poll = is_poll
        self._kept: Iterator[bytes] = iter(())
        self._is_finished = False
        self._is_closed = False
        self._greenlet: Any = getcurrent()
        self._is_waiting = False
        self._will_resume = False
        now = time.monotonic()
        self._ends_at = now + (min(seconds, session.heartbeat) if is_poll else max(seconds, 1))
        self._written_at = now
        self._is_writing = False
        self._piece = _PIECE

    def rewind(self) -> None:
        """Begin with what has been made already. Raises RecordError."""
        self._session.acknowledge(self.position)
        self._kept = self._session.outbox.since(self.position)
        self._first = next(self._kept, b"")

    def wake(self) -> None:
        """There is more: go on as soon as the greenlet that has made it waits."""
        if self._is_waiting and not self._will_resume:
            self._will_resume = True
            get_hub().loop.run_callback(self._resume_later)

    def _resume_later(self) -> None:
        self._will_resume = False
        self.resume()

    def resume(self) -> None:
        """In the hub: go on now."""
        if self._is_waiting:
            self._greenlet.switch()

    def _wait(self, timeout: float | None = None) -> None:
        """Until `resume`, or for `timeout` seconds."""
        hub = get_hub()
        timer = None if timeout is None else hub.loop.timer(timeout)
        self._is_waiting = True
        try:
            if timer is not None:
                timer.start(self.resume)
            hub.switch()
        finally:
            self._is_waiting = False
            if timer is not None:
                timer.close()

    def finish(self) -> None:
        """End it: another one has taken over, or the session is over."""
        self._is_finished = True
        self.wake()
        if self._is_writing:
            get_hub().loop.run_callback(gevent.spawn_later, _LAST_WRITE, self._give_up)

    def _give_up(self) -> None:
        """The client, or a proxy, does not take what is being written: cut the connection."""
        if self._is_writing:
            error = BrokenPipeError(errno.EPIPE, "nothing was taken")
            gevent.kill(self._greenlet, error)

    def look(self, now: float) -> None:
        """In the hub, now and then: look at the deadlines."""
        session = self._session
        if self._has_hung_up is not None and self._has_hung_up():
            self._has_hung_up = None
            session.doubt()
        if self._is_writing:
            if now - self._written_at >= session.reach:
                gevent.spawn(self._give_up)
        elif self.is_poll:
            pass
        elif now >= self._ends_at:
            session.detach(self)
            self.finish()
        elif now - self._written_at >= session.heartbeat:
            self._written_at = now
            session.outbox.put(encode(Kind.PING))
            session.flush()

    def __iter__(self) -> Iterator[bytes]:
        """Mode stream."""
        session = self._session
        data = self._preface + self._next()
        while True:
            if data:
                self._is_writing = True
                self._written_at = time.monotonic()
                yield data
                self._is_writing = False
                took = time.monotonic() - self._written_at
                is_quick = took * _PIECE < _QUICKLY * len(data)
                self._piece = _LARGE_PIECE if is_quick else _PIECE
                if session.response is self:
                    session.written = self.position
            elif self._is_finished:
                return
            else:
                self._wait()
            data = self._next()

    def _next(self) -> bytes:
        """The next bytes of the stream, or none."""
        if self._session.response is not self:
            return b""
        data = self._first or next(self._kept, b"") or self._session.outbox.make(self._piece)
        self._first = b""
        self.position += len(data)
        return data

    def close(self) -> None:
        """Called by the server, at the end or when the connection has broken."""
        self._is_writing = False
        self._session.detach(self)
        if not self._is_closed:
            self._is_closed = True
            self._session.responses -= 1

    def gather(self) -> bytes:
        """Mode poll: wait until there is something, and return all of that."""
        pieces: list[bytes] = [self._preface]
        size = 0
        while True:
            while size < _POLL_SIZE and (data := self._next()):
                pieces.append(data)
                size += len(data)
            left = self._ends_at - time.monotonic()
            if size or self._is_finished or left <= 0:
                break
            self._wait(left)
        if self._session.response is self:
            self._session.written = self.position
        self.close()
        return b"".join(pieces)
