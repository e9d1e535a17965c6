"""The tcp carrier: a connected stream socket, plain or TLS, driven from gevent's hub.

A watcher for reading stays started; its callback reads and hands the bytes up. Frames to write
leave at once, or queue until the socket takes them. Nothing here blocks or switches.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import os
import ssl
import struct
import sys
import termios
from collections.abc import Sequence
from typing import Any, Final

from gevent import get_hub

from ..protocol import Frame, Message, Protocol
from . import calls
from .base import Carrier, Receiver
from .descriptor import Descriptor

_READ: Final = 1  # libev's event bits, which gevent's loop.io takes
_WRITE: Final = 2

_BATCH_SIZE: Final = 64 * 1024  # bytes of small frames that leave in one call
_COMPANY_TIME: Final = 0.0002  # seconds that they wait for those of other connections
_FLUSH_SIZE: Final = 1024 * 1024  # bytes written in a row
_JOIN_BELOW: Final = 4096  # bytes a buffer: copying so few is cheaper than a longer list
_MUCH: Final = 4096  # bytes, of a read
_RECORD: Final = 16 * 1024  # bytes: the most that a record of TLS holds (RFC 8446 section 5.1)
_MAX_CONTROL: Final = 128  # control frames in the queue

# What a socket says when it would block, plain or TLS.
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_RESET: Final = struct.pack("ii", 1, 0)  # for SO_LINGER

# By descriptor, those with a socket, for _leave_to_parent. A set would take up to ten times that.
_started: Final[list[TcpCarrier | None]] = []


def _leave_to_parent() -> None:
    """In a child just forked: the connections are its parent's."""
    carriers = [carrier for carrier in _started if carrier is not None]
    _started.clear()
    for carrier in carriers:
        carrier.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


class _Outbox:
    """Where the frames of a hub's corked connection are put one behind the other.

    A connection has it while its messages are being handled. In a turn of the loop they then wait
    behind those of others, until all leave one after the other. A client whose answer came alone
    would have slept before the next one came, and the kernel's waking it would cost more than the
    answer did.
    """

    __slots__ = ("_ends", "owner", "room", "size", "start", "until", "waiting")

    def __init__(self) -> None:
        self.room = bytearray(_BATCH_SIZE)
        self.waiting: list[TcpCarrier] = []  # whose frames stand in the room, up to …
        self._ends: list[int] = []  # … these places
        self.until = 0.0  # when they have waited long enough
        self.owner: TcpCarrier | None = None  # for whom nothing else is queued
        self.start = 0  # of its frames
        self.size = 0  # of all that is in the room

    def keep(self) -> None:
        """Let what the owner has put there wait for company; the next one may be the owner."""
        assert self.owner is not None
        if not self.waiting:
            self.until = calls.monotonic() + _COMPANY_TIME
        self.waiting.append(self.owner)
        self._ends.append(self.size)
        self.owner = None
        self.start = self.size
        if self.size > _BATCH_SIZE // 2:
            self.let_go()

    def let_go(self) -> None:
        """Write what waits, in its order."""
        waiting, ends = self.waiting, self._ends
        self.waiting, self._ends = [], []
        owner, owner_start, owner_size = self.owner, self.start, self.size
        start = 0
        for number in range(len(waiting)):
            carrier, end = waiting[number], ends[number]
            self.owner, self.start, self.size = carrier, start, end
            carrier.leave()
            start = end
        if owner is None:
            self.start = self.size = 0
        else:
            self.owner, self.start, self.size = owner, owner_start, owner_size


class _Turn:
    """Who has something to read in a turn of a hub's loop, and what they write in it.

    They are read from in the order in which the kernel tells of them, where libev would call back
    the other way round. Then, with a hundred busy connections, one or two in each turn had not
    sent again when the next one began, and waited for all of that as well.
    """

    __slots__ = ("_carriers", "_check", "hub", "is_reading", "outbox")

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.outbox = _Outbox()
        self.is_reading = False
        self._carriers: list[TcpCarrier] = []
        self._check: Any = None  # called behind all that the loop has to tell
        if "libev" in type(hub.loop).__module__:
            self._check = hub.loop.check(ref=False, priority=hub.loop.MINPRI)
            self._check.start(self._read)

    def add(self, carrier: TcpCarrier) -> None:
        self._carriers.append(carrier)
        if self._check is None:
            self._read()

    def _read(self) -> None:
        outbox = self.outbox
        self.is_reading = True
        while self._carriers:
            carrier = self._carriers.pop()
            try:
                carrier.read()
            except BaseException:  # noqa: BLE001 - the hub tells what ends the program
                self.hub.handle_error(carrier, *sys.exc_info())
            if outbox.waiting and calls.monotonic() > outbox.until:
                outbox.let_go()
        self.is_reading = False
        if outbox.waiting:
            outbox.let_go()


def _turn_of_hub() -> _Turn:
    hub = get_hub()
    turn: _Turn | None = hub.__dict__.get("plainsocket_turn")
    if turn is None:
        turn = hub.__dict__["plainsocket_turn"] = _Turn(hub)
    return turn


class TcpCarrier(Carrier):
    """Moves the bytes of one WebSocket over a socket."""

    __slots__ = (
        "_batch",
        "_control",
        "_corked",
        "_ending",
        "_fd",
        "_eof",
        "_frames",
        "_half_closed",
        "_linger",
        "_much",
        "_read_watcher",
        "_reading",
        "_receiver",
        "_socket",
        "_tls",
        "_turn",
        "_write_watcher",
        "_writing",
    )

    name = "tcp"

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self._receiver: Receiver | None = receiver
        self._turn = _turn_of_hub()
        self._socket: Any = None
        self._fd = -1
        self._tls: Any = None  # OpenSSL's connection: gevent's object around it would only wait
        self._read_watcher: Any = None
        self._write_watcher: Any = None
        self._reading = False
        self._writing = False
        self._corked = True
        self._ending = False
        self._linger = True
        self._eof = False
        self._much = False  # how the last read was: the next will be like it
        self._half_closed = False
        # Written in this order: what is on its way, then control frames, then the rest.
        # None: nothing. An idle connection has no list of its own.
        self._batch: list[bytes | memoryview] | None = None
        self._control: list[bytes] | None = None
        self._frames: list[bytes | Frame] | None = None

    # -- life ------------------------------------------------------------------------------------

    def start(self, sock: Any, early: bytes = b"", head: bytes = b"") -> None:
        """Take over `sock`, a non-blocking socket: a plain one, or gevent's SSLSocket.

        `early` are bytes that were read already; `head` is written before all that was queued.
        """
        self._socket = sock
        self._fd = sock.fileno()
        _started.extend([None] * (self._fd + 1 - len(_started)))
        _started[self._fd] = self
        self._tls = sock._sslobj if hasattr(sock, "pending") else None
        if head:
            self._batch = [head, *(self._batch or ())]
            self._account(len(head))
        if early:
            # Not from here: what the receiver does with them belongs into the hub.
            self._turn.hub.loop.run_callback(self._start_reading, early)
        else:
            self._start_reading()
        self._corked = False
        self.flush()

    def _start_reading(self, early: bytes = b"") -> None:
        if self.closed or self._receiver is None:
            return
        self._reading = True
        if early:
            self._take(early)
        if self._reading and self._read_watcher is None:
            self._read_watcher = self._turn.hub.loop.io(self._socket.fileno(), _READ)
            self._read_watcher.start(self)
            if self._tls is not None:
                self._turn.hub.loop.run_callback(self.read)

    def end(self, *, linger: bool) -> None:
        """Write what is queued, then close the socket.

        With `linger`, half-close it, and close it once the peer has ended too: bytes of the
        peer's that are still to come would otherwise make the kernel reset the connection, and
        the reset might overtake what was written last.
        """
        self._ending = True
        self._linger = linger
        self.flush()

    def abort(self, *, reset: bool = False) -> None:
        """Close the socket now; with `reset` the kernel, too, forgets what it has not sent."""
        if self.closed:
            return
        if self._turn.outbox.waiting:
            self._turn.outbox.let_go()  # what this one has sent may be there
        self.closed = self.broken = True
        if 0 <= self._fd < len(_started) and _started[self._fd] is self:
            _started[self._fd] = None
        if reset and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
        self._close_socket()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.carrier_closed()

    def leave_to_parent(self) -> None:
        """In a forked child: neither read nor write any more, and let the descriptor go.

        What waits for this connection here waits for ever: the copies of the parent's greenlets
        must not find it closed and act on that.
        """
        self.closed = self.broken = True
        if self._turn.hub is get_hub():
            # Once the loop has descriptors of its own: this one's epoll is still the parent's.
            self._turn.hub.loop.run_callback(self._close_socket)

    def _close_socket(self) -> None:
        for watcher in (self._read_watcher, self._write_watcher):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._read_watcher = self._write_watcher = None
        self._reading = self._writing = False
        self._drop_queue()
        self._tls = None
        if self._socket is not None:
            self._socket.close()  # after its watchers: the loop must not meet its number again

    # -- reading ---------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            if self._read_watcher is not None:
                self._read_watcher.stop()

    def resume_reading(self) -> None:
        if not (self._reading or self._eof or self.closed or self._socket is None):
            self._reading = True
            if self._read_watcher is None:
                self._start_reading()
            else:
                self._read_watcher.start(self)
                if self._tls is not None:
                    self._turn.hub.loop.run_callback(self.read)

    def __call__(self) -> None:
        """There is something to read. (A bound method would be one object more to keep.)"""
        self._turn.add(self)

    def read(self) -> None:
        """Read what there is, if anything, and hand it up."""
        if self._tls is not None:
            self._read_records()
            return
        if not self._reading or self.closed:
            return
        if self._much and self._receiver is not None:
            room = self._receiver.room()
            if room is not None:
                self._read_to(room)
                return
        try:
            data = calls.read(self._fd, self._much)
        except OSError:
            data = b""
        if data is not None:
            self._much = len(data) >= _MUCH
            self._take(data)

    def _read_to(self, room: memoryview) -> None:
        """The same within a large frame, whose bytes are read to where they stay."""
        size = 0
        try:
            with room:
                size = calls.read_into(self._fd, room)
        except OSError:
            pass
        receiver = self._receiver  # held, as in _take
        assert receiver is not None
        receiver.data_placed(max(size, 0))
        if not size:
            self._take(b"")

    def _read_records(self) -> None:
        """The same under TLS, which gives one record at a time.

        It may hold decrypted bytes that no event will tell of: these are all read. Behind a full
        record there is probably another one.
        """
        size = 0
        while self._reading and not self.closed:
            try:
                data = self._tls.read(_RECORD)
            except _WOULD_BLOCK:
                return
            except OSError:
                data = b""
            self._take(data)
            size += len(data)
            is_more_likely = len(data) == _RECORD and size < calls.READ_SIZE
            if not (is_more_likely or self._tls is None or self._tls.pending()):
                return

    def _take(self, data: bytes) -> None:
        receiver = self._receiver  # which may let go of this, and be let go of, on the way
        if receiver is None:
            return
        if data:
            receiver.data_received(data)
        else:
            self._eof = True
            self.pause_reading()
            receiver.eof_received()

    # -- writing ---------------------------------------------------------------------------------

    def cork(self) -> None:
        self._corked = True

    def uncork(self) -> None:
        self._corked = False
        outbox = self._turn.outbox
        if outbox.owner is self:
            size = outbox.size - outbox.start
            if self._turn.is_reading and size and size == self.buffered and not self._ending:
                outbox.keep()
                return
        self.leave()

    def leave(self) -> None:
        """Write what was queued while corked."""
        if self.buffered or self._ending:
            self.flush()
        if self._turn.outbox.owner is self:
            self._leave_outbox()
        if self.buffered and self._receiver is not None:
            self._receiver.write_waits()

    def write_whole(self, protocol: Protocol, message: Message | bytearray | memoryview) -> bool:
        outbox = self._turn.outbox
        if outbox.owner is not self:
            if outbox.owner is not None or self.buffered or self._tls is not None:
                return False
            if self._socket is None or self.broken:
                return False
            outbox.owner = self
        size = protocol.put_whole(outbox.room, outbox.size, message)
        if not size:
            if outbox.size < _BATCH_SIZE // 2:
                return False
            self.flush()  # to make room
            return self.write_whole(protocol, message)
        outbox.size += size
        self.buffered += size
        self.bytes_accepted += size
        return True

    def write_frame(self, frame: bytes) -> None:
        if self.broken:
            return
        if self._turn.outbox.owner is self:
            self._leave_outbox()
        if self._frames is None:
            self._frames = [frame]
        else:
            self._frames.append(frame)
        size = len(frame)
        self.buffered += size
        self.bytes_accepted += size
        if not self._corked:
            self.flush()

    def write(self, frames: Sequence[Frame]) -> None:
        if self.broken:
            return
        if self._turn.outbox.owner is self:
            self._leave_outbox()
        if self._frames is None:
            self._frames = []
        self._frames.extend(frames)
        for frame in frames:
            for buffer in frame:
                self._account(len(buffer))
        if not self._corked:
            self.flush()

    def write_control(self, frame: bytes) -> None:
        if self.broken:
            return
        if self._turn.outbox.owner is self:
            self._leave_outbox()
        if self._control is None:
            self._control = []
        if len(self._control) >= _MAX_CONTROL:
            # Somebody pings and does not read: the latest pong answers all (RFC 6455 5.5.3).
            self._account(-len(self._control.pop()))
        self._control.append(frame)
        self._account(len(frame))
        if not self._corked:
            self.flush()

    def flush(self) -> None:
        if self._socket is None or self.closed:
            return
        outbox = self._turn.outbox
        if outbox.waiting:
            outbox.let_go()  # nothing overtakes
        before = self.buffered
        try:
            if outbox.owner is self:
                self._write_outbox()
            # Not without end to a peer that reads as fast: others want their turn, and its pings.
            while self.buffered and before - self.buffered < _FLUSH_SIZE and not self.broken:
                if not (self._batch or self._next_batch()) or not self._write_batch():
                    break
        except _WOULD_BLOCK:
            pass
        except OSError:
            # The peer is gone; what it sent before may still be there to be read.
            self.broken = True
            self._drop_queue()
            if not (self._reading or self._eof or self._read_watcher is None):
                # Or, unread, it would never be noticed.
                self._turn.hub.loop.run_callback(self.abort)
        if self.buffered:
            self._wait_writable()
        elif self._writing:
            self._writing = False
            self._write_watcher.stop()
        if not self.buffered and self._ending:
            self._half_close()
            if self._eof or not self._linger:
                self.abort()
        receiver = self._receiver  # held, as in _take
        if self.buffered < before and receiver is not None:
            receiver.write_progressed()

    def unacknowledged(self) -> int:
        """Bytes queued here, plus those in the kernel that the peer's has not acknowledged."""
        return self.buffered + self._ask_kernel(termios.TIOCOUTQ)

    def unread(self) -> int:
        """Bytes that have come and wait in the kernel."""
        return self._ask_kernel(termios.FIONREAD)

    def _ask_kernel(self, request: int) -> int:
        if self._socket is None or self.closed:
            return 0
        try:
            answer = fcntl.ioctl(self._socket.fileno(), request, b"\0\0\0\0")
        except OSError:
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def _account(self, size: int) -> None:
        self.buffered += size
        self.bytes_accepted += size

    def _drop_queue(self) -> None:
        self._batch = self._control = self._frames = None
        self.buffered = 0
        outbox = self._turn.outbox
        if outbox.owner is self:
            outbox.owner = None
            outbox.size = outbox.start

    def _write_outbox(self) -> None:
        outbox = self._turn.outbox
        start, end = outbox.start, outbox.size
        if start == end:
            return
        sent = max(calls.write_part(self._fd, outbox.room, start, end), 0)
        self.buffered -= sent
        if start + sent < end:
            self._batch = [bytes(outbox.room[start + sent : end])]
            outbox.owner = None
        outbox.start = outbox.size = 0

    def _leave_outbox(self) -> None:
        """Queue what is there as any other frame, behind which more can come."""
        outbox = self._turn.outbox
        if outbox.size > outbox.start and not self.closed:
            self._frames = [bytes(outbox.room[outbox.start : outbox.size])]
        outbox.owner = None
        outbox.size = outbox.start

    def _next_batch(self) -> bool:
        """Gather the frames to go next: control frames, then small ones together or a large one.

        A batch once begun is finished first: a frame must not be cut by another, and TLS must be
        given the same bytes again.
        """
        frames = self._frames or []
        if self._control is None and len(frames) == 1 and isinstance(frames[0], bytes):
            self._batch, self._frames = [frames[0]], None  # the usual case
            return True
        batch: list[bytes | memoryview] = []
        if self._control is not None:
            frames[:0] = [b"".join(self._control)]
            self._control = None
        taken = size = 0
        small: list[bytes | memoryview] = []  # to be joined: that is cheaper than a longer list
        for frame in frames:
            if size >= _BATCH_SIZE or len(batch) >= calls.MOST_BUFFERS - 2:
                break
            taken += 1
            if isinstance(frame, bytes) and len(frame) < _JOIN_BELOW:
                small.append(frame)
                size += len(frame)
                continue
            for buffer in (frame,) if isinstance(frame, bytes) else frame:
                length = len(buffer)
                size += length
                if length >= _JOIN_BELOW and self._tls is None:
                    if small:
                        batch.append(b"".join(small))
                        small = []
                    batch.append(buffer)
                else:
                    small.append(buffer)
        if small:
            batch.append(b"".join(small))
        self._frames = frames[taken:] if taken < len(frames) else None
        self._batch = batch or None
        return bool(batch)

    def _write_batch(self) -> bool:
        """Write what the socket takes of the batch; return whether it took any."""
        batch = self._batch
        assert batch is not None
        if self._tls is not None:
            sent = self._tls.write(batch[0])
        elif len(batch) == 1:
            sent = calls.write(self._fd, batch[0])
        else:
            sent = calls.write_many(self._fd, batch)
        if sent < 0:
            return False
        self.buffered -= sent
        while batch and sent >= len(batch[0]):
            sent -= len(batch.pop(0))
        if sent:
            batch[0] = memoryview(batch[0])[sent:]
        elif not batch:
            self._batch = None
        return True

    def _wait_writable(self) -> None:
        if not self._writing:
            if self._write_watcher is None:
                self._write_watcher = self._turn.hub.loop.io(self._socket.fileno(), _WRITE)
            self._writing = True
            self._write_watcher.start(self.flush)

    def _half_close(self) -> None:
        if self._half_closed:
            return
        self._half_closed = True
        if self._tls is not None:
            with contextlib.suppress(*_WOULD_BLOCK, OSError):
                self._tls.shutdown()  # writes close_notify; the peer's comes as EOF
        with contextlib.suppress(OSError):
            # Of the TCP connection: an SSLSocket's own method would drop the TLS state.
            sock = getattr(self._socket, "_sock", self._socket)
            kind = Descriptor if isinstance(sock, Descriptor) else _socket.socket
            kind.shutdown(sock, _socket.SHUT_WR)
