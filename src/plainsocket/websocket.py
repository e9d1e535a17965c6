"""The WebSocket object: what applications hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

import gevent
from gevent.event import AsyncResult, Event

from . import wire
from .carriers import calls
from .carriers.base import Carrier, Receiver
from .carriers.tcp import TcpCarrier
from .deadlines import Common, Deadlines
from .deflate import SharedCompressors, halves
from .errors import ConnectionClosed, WebSocketError
from .frames import CloseCode, Opcode, close_payload
from .handshake import Request
from .options import Options
from .protocol import CLOSED, OPEN, Frame, Message, Protocol, Role, SharedMessage
from .stream import MessageStream

if TYPE_CHECKING:
    from .endpoint import Runner
    from .visit import Kept

_MESSAGE_COST: Final = 64  # counted for each besides its size, so that empty ones count too
_CORK_TIME: Final = 0.001  # seconds that an accepted message may wait for company
_CORK_SIZE: Final = 64 * 1024  # bytes
_NOTHING: Final = object()
_NORMAL: Final = CloseCode.NORMAL_CLOSURE
_NONE: Final[list[Any]] = []  # never filled: an idle connection has no list of its own
_FLUSHES_IN_A_ROW: Final = 256  # connections, before the loop's other events have their turn


class WebSocket(Deadlines):
    """One WebSocket connection.

    It belongs to the thread of the hub that it was made in. One greenlet may receive at a time;
    any number may send. Iterating over it gives the messages until the connection is over::

        for message in ws:
            ws.send(message)
    """

    __slots__ = (
        "__weakref__",
        "_deliver_scheduled",
        "_discarding",
        "_endpoint",
        "_flush_due",
        "_gone",
        "_messages",
        "_messages_size",
        "_next",
        "_ping_waiters",
        "_receiver",
        "_request",
        "_sender_scheduled",
        "_senders",
        "_stream",
        "_streamer",
        "_latency",
        "is_kept",
        "messages_sent",
        "opened_at",
        "place",
    )

    def __init__(
        self,
        options: Options,
        request: Request | Kept,
        *,
        role: Role = "server",
        carrier: Callable[[Receiver], Carrier] | None = None,
        common: Common | None = None,
    ) -> None:
        """Made by servers and clients, not by applications.

        `carrier` is for another one than tcp: there frames are not masked.
        """
        if common is None:
            common = Common.of(options)
        deflater = inflater = None
        if request.compression is not None:
            shared = SharedCompressors.of_hub(common.hub)
            deflater, inflater = halves(request.compression, role, options, shared)
        protocol = Protocol(
            role,
            max_message_size=options.max_message_size,
            max_fragments=options.max_fragments,
            masked=carrier is None,
            deflater=deflater,
            inflater=inflater,
        )
        protocol.may_hold_long = True
        now = calls.monotonic()
        looks_at_compressor = deflater is not None and deflater.keeps_memory
        Deadlines.__init__(self, common, protocol, now, looks_at_compressor)
        self._carrier = TcpCarrier(self) if carrier is None else carrier(self)
        self._request: Any = request  # or what reads it where somebody asks
        self._gone: Event | None = None
        self._endpoint: Runner | None = None  # what takes the messages, if not receive()

        self._messages: list[Any] = _NONE  # where one was taken there is None
        self._next = 0  # the place of the next to be taken
        self._messages_size = 0
        self._receiver: Any = None  # the greenlet that waits in receive()
        self._senders: list[Any] = _NONE  # the greenlets that wait in send()
        self._sender_scheduled = False
        # The first of them, where it does not wait here but in what it streams from.
        self._streamer: Any = None
        self._stream: MessageStream | None = None  # of the message being received in pieces
        self._discarding = False
        self._deliver_scheduled = False
        self._flush_due = False  # whether the end of the loop's turn will flush

        self._ping_waiters: dict[bytes, AsyncResult[float]] | None = None
        self._latency = -1.0
        self.messages_sent = 0
        self.opened_at = now
        """When the connection opened, by `time.monotonic()`."""
        self.is_kept = False
        """The server's: whether it is counted as one without a greenlet."""
        self.place = -1
        """The server's, too (see Connections)."""

    # -- what it is ------------------------------------------------------------------------------

    @property
    def request(self) -> Request:
        """The opening request, with what `process_request` has left in its `context`."""
        if not isinstance(self._request, Request):
            self._request = self._request.read()
        return self._request

    def _read_request(self) -> Request:
        """The same for a look: if only its bytes are kept, that stays so."""
        request: Any = self._request
        return request if isinstance(request, Request) else cast("Request", request.read())

    @property
    def environ(self) -> dict[str, Any]:
        """The WSGI environ of the opening request."""
        return self.request.environ

    @property
    def path(self) -> str:
        """The path of the request, percent-decoded (WSGI's SCRIPT_NAME + PATH_INFO)."""
        return self._read_request().path

    @property
    def origin(self) -> str | None:
        """The Origin of the page, or None."""
        return self._read_request().headers.get("origin")

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, or None."""
        subprotocol: str | None = self._request.subprotocol
        return subprotocol

    @property
    def extensions(self) -> tuple[str, ...]:
        """The extensions agreed on, with their parameters (RFC 6455 section 9)."""
        compression = self._request.compression
        return () if compression is None else (str(compression),)

    @property
    def carrier(self) -> str:
        """What moves the bytes: "tcp"; or "http", and "http-poll" where responses are held."""
        return self._carrier.name

    @property
    def bytes_sent(self) -> int:
        """Bytes of frames accepted for sending, and of the handshake's answer."""
        return self._carrier.bytes_accepted

    @property
    def buffered_amount(self) -> int:
        """Bytes accepted by `send` that the kernel has not taken."""
        return self._carrier.buffered

    @property
    def latency(self) -> float | None:
        """Round trip of the last answered ping in seconds, keepalive's included; None before."""
        return None if self._latency < 0 else self._latency

    @property
    def closed(self) -> bool:
        """Whether the connection is over and the last message has been taken."""
        return (
            self._protocol.state is CLOSED
            and not self.has_messages()
            and (self._stream is None or not self._stream.pieces)
        )

    @property
    def close_code(self) -> int | None:
        """The close code once the connection is over (see ConnectionClosed), None before."""
        return self._protocol.close_code

    @property
    def close_reason(self) -> str:
        """The reason that came with the close code."""
        return self._protocol.close_reason

    def __repr__(self) -> str:
        state = self._protocol.state.name.lower()
        code = "" if self.close_code is None else f" {self.close_code}"
        return f"<WebSocket {self.path!r} {state}{code}>"

    # -- receiving -------------------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> Message:
        """Return the next message: `str` for text, `bytes` for binary.

        Waits up to `timeout` seconds (None: as long as it takes), then raises TimeoutError.
        Raises ConnectionClosed when the connection is over and every message has been taken,
        RuntimeError where another greenlet is receiving.
        """
        self._check_thread()
        if not self._may_take():
            if self._stream is not None:
                self.leave_stream()
            if not self._wait_for_message(timeout):
                raise self._closed_error()
        return self._take()

    def _may_take(self) -> bool:
        """Whether there is a message, and the batch has not taken too long."""
        if self._next >= len(self._messages):
            return False
        # A clock read for each message, in `send` or here, is enough.
        common = self._common
        now = common.sent_at or calls.monotonic()
        common.sent_at = 0.0
        return now <= common.batch_end

    def _take(self) -> Message:
        message: Message = self._messages[self._next]
        self._messages[self._next] = None
        self._next += 1
        if self._next == len(self._messages):
            self._messages = _NONE
            self._next = 0
        self._messages_size -= wire.length(message) + _MESSAGE_COST
        if self._paused and self._messages_size <= self._common.read_limit // 2:
            self._resume_reading()
        return message

    def wait(self) -> Message | None:
        """The same as `receive()`, but None when the connection is over."""
        try:
            return self.receive()
        except ConnectionClosed:
            return None

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        self._check_thread()
        if not self._may_take():
            if self._stream is not None:
                self.leave_stream()
            if not self._wait_for_message(None):
                raise StopIteration
        return self._take()

    def receive_stream(
        self, timeout: float | None = None, *, max_size: int | None = None
    ) -> MessageStream:
        """Return the next message as pieces to iterate over, without ever having all of it.

        Waits until it has begun, and raises, as `receive`. `max_size` takes the place of the
        option `max_message_size` where it is larger, in bytes; None: no limit. While pieces are
        not taken the peer has to wait. The next call of `receive` or `receive_stream` drops what
        is left of the message. ::

            for piece in ws.receive_stream():
                file.write(piece)
        """
        self._check_thread()
        self.leave_stream()
        if self.has_messages():
            if calls.monotonic() > self._common.batch_end and not self._wait_for_message(timeout):
                raise self._closed_error()
            return MessageStream.of(self._take())
        self._check_receiver()
        self._protocol.start_stream(max_size)
        stream = self._stream = MessageStream(self)
        self._take_pieces(stream)
        if not stream.has_begun:
            try:
                if not self._wait_for_message(timeout):
                    raise self._closed_error()
            except BaseException:
                self.leave_stream()
                raise
        stream.is_taken = True
        return stream

    def receive_piece(self, stream: MessageStream) -> Message | None:
        """For MessageStream: its next piece, None behind the last."""
        self._check_thread()
        if not stream.pieces or calls.monotonic() > self._common.batch_end:
            if stream.is_complete and not stream.pieces:
                self.leave_stream()
                return None
            if not self._wait_for_message(None):
                raise self._closed_error()
            if not stream.pieces:
                return self.receive_piece(stream)
        piece = stream.pieces.popleft()
        self._messages_size -= len(piece) + _MESSAGE_COST
        self._resume_if_taken()
        return piece

    def leave_stream(self) -> None:
        """Drop what is there and still to come of the message that is received in pieces."""
        stream = self._stream
        if stream is None:
            return
        self._stream = None
        stream.detach()
        if not stream.is_complete:
            self._protocol.drop_stream()
        for piece in stream.pieces:
            self._messages_size -= len(piece) + _MESSAGE_COST
        stream.pieces.clear()
        self._resume_if_taken()

    def _take_pieces(self, stream: MessageStream) -> None:
        """Hand over what has come of the message that is received in pieces."""
        protocol = self._protocol
        if not stream.has_begun and protocol.stream_kind:
            stream.has_begun = True
            stream.is_text = protocol.stream_kind == Opcode.TEXT
        for piece in protocol.take_pieces():
            stream.pieces.append(piece)
            self._messages_size += len(piece) + _MESSAGE_COST
        if protocol.take_stream_end():
            stream.is_complete = True
            self.messages_received += 1

    def _resume_if_taken(self) -> None:
        if self._paused and self._messages_size <= self._common.read_limit // 2:
            self._resume_reading()

    def _has_something(self) -> bool:
        """Whether there is what the receiver waits for."""
        stream = self._stream
        if stream is None:
            return self.has_messages()
        if stream.is_taken:
            return bool(stream.pieces) or stream.is_complete
        return stream.has_begun

    def _check_receiver(self) -> None:
        self._check_not_in_hub()
        if self._receiver is not None:
            raise RuntimeError("another greenlet is receiving from this WebSocket")
        if self._endpoint is not None:
            raise RuntimeError("an Endpoint's messages come by on_message")

    def _wait_for_message(self, timeout: float | None) -> bool:
        """Return when there is a message, or a piece of one, and the loop has had its turn.

        Or return False: the connection is over.
        """
        self._check_receiver()
        if self._has_something():
            # Others' turn. The loop comes back by _deliver, with a new batch's time.
            self._schedule_deliver()
        elif self._protocol.state is CLOSED:
            return False
        elif self._protocol.holds_long:
            if self._stream is None:
                self._protocol.may_hold_long = False
            self._resume_reading()
        timer = gevent.Timeout.start_new(timeout) if timeout is not None else None
        self._receiver = calls.current()
        try:
            while True:
                calls.switch(self._common.hub)
                if self._has_something():
                    return True
                if self._protocol.state is CLOSED:
                    return False
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            if not self._has_something():
                raise TimeoutError(f"no message within {timeout} s") from None
            return True
        finally:
            self._receiver = None
            if timer is not None:
                timer.close()

    def _schedule_deliver(self) -> None:
        if not self._deliver_scheduled:
            self._deliver_scheduled = True
            self._common.hub.loop.run_callback(self._scheduled_deliver)

    def _scheduled_deliver(self) -> None:
        self._deliver_scheduled = False
        self._deliver()

    def _deliver(self) -> None:
        """In the hub: let the receiver work through what is there; its sends leave together."""
        if self._protocol.state is not CLOSED and not self._has_something():
            return
        if self._endpoint is not None:
            self._endpoint.wake()
            return
        receiver = self._receiver
        if receiver is None:
            return
        self._receiver = None
        self.begin_batch()
        try:
            calls.switch(receiver)
        finally:
            self.end_batch()

    # -- for Endpoint ----------------------------------------------------------------------------

    def start_endpoint(self, runner: Runner) -> None:
        """Let `runner` take the messages from now on."""
        self._endpoint = runner
        self._refuse_long()
        runner.wake()

    def begin_batch(self) -> None:
        """In the hub: let what is sent until `end_batch` leave together."""
        common = self._common
        now = calls.monotonic()
        common.batch_end = now + common.batch_time
        common.cork_end = now + _CORK_TIME
        common.sent_at = 0.0
        common.delivering = self
        self._carrier.cork()

    def end_batch(self) -> None:
        self._common.delivering = None
        self._common.sent_at = 0.0
        self._carrier.uncork()

    def end_endpoint(self) -> None:
        """The endpoint has done its last: the two need no longer keep each other alive."""
        self._endpoint = None

    def take_message(self) -> Message | None:
        """The next message, or None if there is none or the batch has taken long enough."""
        return self._take() if self._may_take() else None

    def has_messages(self) -> bool:
        """Whether a message waits to be taken."""
        return self._next < len(self._messages)

    @property
    def is_used(self) -> bool:
        """Whether a greenlet is receiving, or something waits to be sent."""
        return self._receiver is not None or self._carrier.buffered > 0

    @property
    def is_gone(self) -> bool:
        """Whether the socket is closed."""
        return self._carrier.closed

    def _resume_reading(self) -> None:
        self._paused = False
        if self._ping_sent:
            self._ping_sent = calls.monotonic()
        if self._protocol.holding:
            self._common.hub.loop.run_callback(self._read_on)
        else:
            self._carrier.resume_reading()

    def _read_on(self) -> None:
        """In the hub: take in what the protocol has held back."""
        if self._protocol.holding:
            self.data_received(b"")
        if not self._paused:
            self._carrier.resume_reading()

    def _refuse_long(self) -> None:
        """Nobody will stream a message: what is over the limit is refused at once."""
        self._protocol.may_hold_long = False
        if self._protocol.holds_long:
            self._resume_reading()

    # -- sending ---------------------------------------------------------------------------------

    def send(self, message: Message | bytearray | memoryview) -> None:
        """Send `str` as text, bytes as binary. Returning means accepted, not arrived.

        Waits while `write_limit` bytes or more are waiting to leave. Raises ConnectionClosed when
        the connection is closing or over, TypeError for what is not a message.
        """
        carrier, protocol, common = self._carrier, self._protocol, self._common
        if protocol.state is not OPEN or carrier.broken:
            raise self._closed_error()
        self._check_thread()
        if carrier.buffered >= common.write_limit or self._senders:
            self._wait_for_room()
        if not (common.delivering is self and carrier.write_whole(protocol, message)):
            frame = protocol.send_whole(message)
            if frame is not None:
                carrier.write_frame(frame)
            else:
                carrier.write(protocol.send(message))
        self.messages_sent += 1
        if carrier.buffered:
            if common.delivering is not self:
                self._watch_for_stall()
                return
            common.sent_at = calls.monotonic()
            if carrier.buffered > _CORK_SIZE or common.sent_at > common.cork_end:
                carrier.flush()
                common.cork_end = calls.monotonic() + _CORK_TIME

    def queue_shared(self, message: SharedMessage) -> bool:
        """For broadcast: as `send`, but what is accepted leaves at the end of the loop's turn.

        Return False, without it, where `send` would wait. A closed connection takes nothing.
        """
        carrier, protocol = self._carrier, self._protocol
        if protocol.state is not OPEN or carrier.broken:
            return True
        self._check_thread()
        if self._senders:
            return False
        if carrier.buffered >= self._common.write_limit:
            carrier.flush()  # of this turn's messages perhaps none has left
            if carrier.buffered >= self._common.write_limit:
                return False
        frame = protocol.shared_whole(message)
        frames = protocol.send_shared(message) if frame is None else _NONE
        if self._common.delivering is not self and not self._flush_due:
            self._flush_due = True
            carrier.cork()
            _flush_at_end_of_turn(self._common.hub, self)
        if frame is not None:
            carrier.write_frame(frame)
        else:
            carrier.write(frames)
        self.messages_sent += 1
        if carrier.buffered > _CORK_SIZE:
            carrier.flush()
        return True

    def end_turn(self) -> None:
        """In the hub: let go what was queued."""
        self._flush_due = False
        if self._common.delivering is not self:
            self._carrier.uncork()

    def send_stream(self, pieces: Iterable[str] | Iterable[bytes]) -> None:
        """Send one message piece by piece: text if they are `str`, binary if they are bytes.

        Each piece leaves as soon as it is there; before each, this waits as `send` does, and
        fails the connection as it does where the peer takes too little within `send_timeout`.
        Other senders wait until the message has ended; pings and pongs go in between. No pieces:
        no message.

        Half a message can't be taken back: if `pieces` raises behind the first one, or gives one
        of another type, or a Timeout or kill strikes, the connection fails with 1011, and the
        exception goes on.
        """
        if not self._can_send:
            raise self._closed_error()
        self._check_thread()
        self._check_not_in_hub()
        rest: Iterator[Any] = iter(pieces)
        first: Any = next(rest, _NOTHING)
        if first is _NOTHING:
            return
        me = self._join_senders()
        has_begun = False
        try:
            self._wait_at_front(me)
            frames = self._protocol.send_piece(first, is_first=True)
            has_begun = True
            self._send_frames(me, frames)
            self._streamer = me
            for piece in rest:
                self._streamer = None
                self._send_frames(me, self._protocol.send_piece(piece, is_first=False))
                self._streamer = me
            self._send_frames(None, self._protocol.end_pieces())
            self.messages_sent += 1
        except BaseException:
            if has_begun and self._can_send:
                self._protocol.fail(CloseCode.INTERNAL_ERROR, "message broken off")
                self._after_end()
                self._schedule_deliver()
            raise
        finally:
            self._streamer = None
            self._leave_senders(me)
            self._schedule_next_sender()

    def _send_frames(self, me: Any, frames: list[Frame]) -> None:
        """Send them one by one as there is room for each; `me` None: at once."""
        for frame in frames:
            if me is not None:
                self._wait_at_front(me)
            self._carrier.write([frame])
        if self._carrier.buffered:
            self._carrier.flush()
            if self._carrier.buffered:
                self._watch_for_stall()

    def _wait_for_room(self) -> None:
        self._check_not_in_hub()
        self._carrier.flush()
        me = self._join_senders()
        try:
            self._wait_at_front(me)
        finally:
            self._leave_senders(me)
            self._schedule_next_sender()

    def _join_senders(self) -> Any:
        me = calls.current()
        if self._streamer is me:
            raise RuntimeError("what send_stream sends from can't send: it would wait for itself")
        if not self._senders:
            self._senders = []
        self._senders.append(me)  # and stays there until its turn, which comes in order
        return me

    def _leave_senders(self, me: Any) -> None:
        self._senders.remove(me)
        if not self._senders:
            self._senders = _NONE

    def _wait_at_front(self, me: Any) -> None:
        """Return when it is the turn of `me`, and there is room."""
        while True:
            if not self._can_send:
                raise self._closed_error()
            if self._senders[0] is me and self._has_room:
                return
            self._watch_for_stall()
            calls.switch(self._common.hub)

    @property
    def _can_send(self) -> bool:
        return self._protocol.state is OPEN and not self._carrier.broken

    @property
    def _has_room(self) -> bool:
        return self._carrier.buffered < self._common.write_limit

    def _schedule_next_sender(self) -> None:
        if self._senders and not self._sender_scheduled:
            self._sender_scheduled = True
            self._common.hub.loop.run_callback(self._release_sender)

    def _release_sender(self) -> None:
        """In the hub: let the first waiting sender look again; it hands on to the next."""
        self._sender_scheduled = False
        if self._streamer is not None:
            # It is not to be woken here, nor are the others, until there is no hope for them.
            if len(self._senders) > 1 and not self._can_send:
                self._senders[1].switch()
        elif self._senders and (self._has_room or not self._can_send):
            self._senders[0].switch()

    # -- ping and close --------------------------------------------------------------------------

    def ping(self) -> float:
        """Send a ping, wait for its pong, return the round trip in seconds.

        Raises ConnectionClosed when the connection ends before, TimeoutError after `ping_timeout`
        seconds.
        """
        self._check_thread()
        self._check_not_in_hub()
        if not self._can_send:
            raise self._closed_error()
        waiter: AsyncResult[float] = AsyncResult()
        payload = self._write_ping()
        if self._ping_waiters is None:
            self._ping_waiters = {}
        self._ping_waiters[payload] = waiter
        try:
            with gevent.Timeout(self._common.options.ping_timeout) as timer:
                return cast(float, waiter.get())
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            raise TimeoutError(f"no pong within {self._common.options.ping_timeout} s") from None
        finally:
            del self._ping_waiters[payload]
            if not self._ping_waiters:
                self._ping_waiters = None

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin to close: the peer gets all messages sent so far, then `code` and `reason`.

        Does not wait: the connection is over when the peer has answered, or after
        `close_timeout`; `receive` still gives what the peer sends until then. Does nothing where
        the connection is closing already. Raises ValueError for a code that may not be sent or a
        reason over 123 bytes of UTF-8.
        """
        self._check_thread()
        if code != _NORMAL or reason:
            close_payload(code, reason)  # which may raise
        if self._protocol.state is OPEN:
            self._protocol.close(code, reason)
            self._write_replies()
            self._begin_close_deadline()
            self._schedule_next_sender()

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.finish()

    def finish(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close, drop what still comes, and return once the connection is gone.

        Waits for the peer up to `close_timeout` seconds after the last message has left. This is
        what ends a `with` block and a handler.
        """
        self.close(code, reason)
        self.discard()
        if not self._carrier.closed:
            if self._gone is None:
                self._gone = Event()
            try:
                self._gone.wait()
            except BaseException:  # a Timeout or a kill: nobody will wait for the peer any more
                self.abort()
                raise

    def discard(self) -> None:
        """Drop the messages that are there and those still to come."""
        self._discarding = True
        self.leave_stream()
        self._messages = _NONE
        self._next = self._messages_size = 0
        self._protocol.may_hold_long = False
        if self._paused:
            self._resume_reading()

    def abort(self) -> None:
        """Cut the connection without a close frame; the close code becomes 1006."""
        self._check_thread()
        self._protocol.fail(CloseCode.ABNORMAL_CLOSURE, "connection cut")
        self._carrier.abort()

    def _closed_error(self) -> WebSocketError:
        protocol = self._protocol
        if protocol.close_code is not None:
            return ConnectionClosed(protocol.close_code, protocol.close_reason)
        if protocol.close_sent is not None:
            return ConnectionClosed(*protocol.close_sent)
        return ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "connection lost")

    def _check_thread(self) -> None:
        if calls.this_thread() != self._common.thread:
            raise RuntimeError("a WebSocket belongs to the thread that it was made in")

    def _check_not_in_hub(self) -> None:
        if calls.current() is self._common.hub:
            raise RuntimeError("a WebSocket can't wait in gevent's hub")

    # -- what the carrier reports, in the hub ----------------------------------------------------

    def start(self, sock: Any, early: bytes = b"", head: bytes = b"") -> None:
        """Begin on `sock`; `early` has been read already, `head` goes out first."""
        now = calls.monotonic()
        self._sign_of_life = self.opened_at = now
        if self._common.options.ping_interval is not None:
            self._set_timer(now + self._common.options.ping_interval)
        if self._due is not None and self._due.compressor_look is not None:
            self._set_timer(self._due.compressor_look)
        self._carrier.start(sock, early, head)

    def data_received(self, data: bytes) -> None:
        self._sign_of_life = calls.monotonic()
        self.bytes_received += len(data)
        self._take_in(self._protocol.receive(data))

    def room(self) -> memoryview | None:
        return self._protocol.room()

    def data_placed(self, size: int) -> None:
        if size:
            self._sign_of_life = calls.monotonic()
        self.bytes_received += size
        self._take_in(self._protocol.receive_placed(size))

    def _take_in(self, messages: list[Message]) -> None:
        """What the protocol has made of the peer's bytes."""
        protocol = self._protocol
        if protocol.pings_due:
            for pong in protocol.take_pongs():
                self._carrier.write_control(pong)
        if protocol.pongs:
            self._take_pongs()
        if messages:
            self.messages_received += len(messages)
            if not self._discarding:
                if self.has_messages():
                    self._messages = self._messages[self._next :] + messages
                else:
                    self._messages = messages
                self._next = 0
                for message in messages:
                    self._messages_size += wire.length(message) + _MESSAGE_COST
        if self._stream is not None:
            self._take_pieces(self._stream)
        self._deliver()
        if protocol.end_is_due:
            protocol.receive(b"")
        if protocol.state is CLOSED:
            self._after_end()
            self._deliver()
        if protocol.message_begun and (self._due is None or self._due.message is None):
            self._mark_message(self._sign_of_life)
            self._set_timer(self._sign_of_life + self._common.options.message_timeout)
        if protocol.state is not CLOSED and (
            protocol.holding or self._messages_size > self._common.read_limit
        ):
            self._paused = True
            self._carrier.pause_reading()
            if protocol.holds_long:
                # It waits for receive_stream, but not if somebody waits in receive.
                if self._receiver is not None and self._stream is None:
                    self._refuse_long()
            elif protocol.holding:
                self._resume_if_taken()

    def eof_received(self) -> None:
        if self._protocol.state is CLOSED:
            self._carrier.end(linger=True)  # what is queued for the peer may still reach it
        else:
            self._protocol.receive_eof()
            was_scheduled, self._deliver_scheduled = self._deliver_scheduled, True  # it comes below
            self._carrier.abort()
            self._deliver_scheduled = was_scheduled
        self._deliver()

    def write_progressed(self) -> None:
        self._schedule_next_sender()

    def write_waits(self) -> None:
        self._watch_for_stall()

    def loop_is_needed(self) -> None:
        self._common.batch_end = 0.0

    def carrier_closed(self) -> None:
        self._protocol.receive_eof()
        self._common.timers.cancel(self)
        if self._ping_waiters is not None:
            for waiter in list(self._ping_waiters.values()):
                waiter.set_exception(self._closed_error())
        if self._gone is not None:
            self._gone.set()
        self._schedule_deliver()
        self._schedule_next_sender()

    def _take_pongs(self) -> None:
        now = calls.monotonic()
        written = self._pings_written or {}
        for payload in self._protocol.take_answered():
            self._latency = now - written.pop(payload, now)
            waiter = self._ping_waiters.get(payload) if self._ping_waiters else None
            if waiter is not None:
                waiter.set(self._latency)
        if not written:
            self._pings_written = None
        if self._common.options.ping_interval is not None:
            self._set_timer(now + self._common.options.ping_interval)

    def _write_replies(self) -> None:
        frame = self._protocol.take_close()
        if frame is not None:
            self._carrier.write([(frame,)])

    def _after_end(self) -> None:
        """The protocol has come to its end: send the close frame, then end the carrier."""
        if not self._has_close_deadline:
            self._begin_close_deadline()
        self._write_replies()
        if self._protocol.to_skip:
            return  # until data_received comes here again, or the deadline passes
        # After a closing handshake nothing more comes, and it is the server that closes the
        # connection first (RFC 6455 section 7.1.1).
        self._carrier.end(linger=self._protocol.failed or self._protocol.is_client)
        self._schedule_next_sender()

    def _fail(self, code: int, reason: str) -> None:
        self._protocol.fail(code, reason)
        self._after_end()
        self._deliver()


def _flush_at_end_of_turn(hub: Any, websocket: WebSocket) -> None:
    waiting: list[WebSocket] | None = hub.__dict__.get("plainsocket_flushes")
    if waiting is None:
        waiting = hub.__dict__["plainsocket_flushes"] = []
    waiting.append(websocket)
    if len(waiting) == 1:
        hub.loop.run_callback(_end_turn, hub.loop, waiting)


def _end_turn(loop: Any, waiting: list[WebSocket]) -> None:
    """In the hub: flush, in the order of the sending."""
    some = waiting[:_FLUSHES_IN_A_ROW]
    del waiting[:_FLUSHES_IN_A_ROW]
    for websocket in some:
        websocket.end_turn()
    if waiting:
        loop.run_callback(_end_turn, loop, waiting)


Handler = Callable[[WebSocket], object]
"""What serves a connection: called with its WebSocket, which is closed when it returns."""
