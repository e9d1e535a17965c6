"""A server's entrance: from accept to a connection's first bytes, in gevent's hub.

Who has said nothing yet costs no greenlet. When the first bytes are there they are peeked at: a
plain request for a WebSocket, whole and flawless, is read and gets a greenlet for its handler.
Everything else stays unread for pywsgi.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

from gevent import get_hub

from .carriers import calls
from .carriers.descriptor import Descriptor
from .draining import IdleConnections
from .handshake import Precedents
from .options import Options
from .peeked import PEEK_SIZE, PeekedRequest, read_request
from .timers import TimerWheel

_MOST_ACCEPTED: Final = 64  # connections in a row, before the loop's other events have their turn
_READ: Final = 1  # libev's event bit
_AF_INET: Final = int(socket.AF_INET)


class House(Protocol):
    """What connections are let into; all is called in the hub."""

    def has_room(self) -> bool:
        """Whether there may be one connection more."""

    def keep(self, arrival: Arrival) -> None:
        """Count a connection that is waited for."""

    def forget(self, arrival: Arrival) -> None:
        """It is waited for no longer."""

    def serve_request(
        self, sock: Any, address: Any, deadline: float, request: PeekedRequest
    ) -> None:
        """Take a connection over whose request has been peeked at."""

    def serve_unread(self, sock: Any, address: Any, deadline: float) -> None:
        """Take any other over. Its first head is to be there by `deadline`."""

    def turn_away(self, sock: Any, address: Any) -> None:
        """Take one over for which there is no room."""


class Entrance:
    """Accepts connections and waits for what they say first."""

    def __init__(
        self,
        house: House,
        options: Options,
        idle: IdleConnections,
        make_environ: Callable[[], dict[str, Any]],
    ) -> None:
        """`make_environ` makes what is the same in the environ of all requests."""
        self.house = house
        self.options = options
        self.idle = idle
        self.make_environ = make_environ
        self.precedents = Precedents(options)
        self.timers = TimerWheel.of_hub()
        self._hub = get_hub()
        self._batch_time = options.batch_time
        self._timeout = options.handshake_timeout

    def accept(self, listener: Any) -> None:
        """Accept who waits at `listener`, a non-blocking socket. Raises OSError."""
        end = calls.monotonic() + self._batch_time
        family, kind, proto = listener.family, listener.type, listener.proto
        for _ in range(_MOST_ACCEPTED):
            if family == _AF_INET:
                accepted = calls.accept(listener.fileno())
                if accepted is None:
                    return
                fd, address = accepted
            else:  # whose addresses Python knows best
                try:
                    fd, address = listener._accept()
                except BlockingIOError:
                    return
                os.set_blocking(fd, False)
            sock = Descriptor(fd, family, kind, proto)
            now = calls.monotonic()
            self.receive(sock, address, now + self._timeout)
            if now > end:
                return

    def receive(self, sock: Any, address: Any, deadline: float) -> None:
        """Wait for the first bytes on a non-blocking socket, until `deadline`."""
        arrival = Arrival(self, sock, address, deadline)
        try:
            if self.house.has_room():
                arrival.look()
            else:
                self.house.turn_away(sock, address)
        except BaseException:  # noqa: BLE001 - the hub tells what ends the program
            arrival.abort()
            self._hub.handle_error(self, *sys.exc_info())


class Arrival:
    """A connection whose first bytes are waited for."""

    __slots__ = ("_address", "_deadline", "_entrance", "_socket", "_watcher", "timer_slot")

    def __init__(self, entrance: Entrance, sock: Any, address: Any, deadline: float) -> None:
        self._entrance = entrance
        self._socket = sock
        self._address = address
        self._deadline = deadline
        self._watcher: Any = None
        self.timer_slot = 0

    def look(self) -> None:
        """Serve it, or go on waiting."""
        entrance, sock = self._entrance, self._socket
        try:
            data = calls.peek(sock.fileno(), PEEK_SIZE)
        except OSError:
            data = b""
        if data is None:
            if self._watcher is None:
                self._wait()
            return
        self._stop_waiting()
        if not data:
            sock.close()
            return
        request = read_request(
            data, self._address, entrance.options, entrance.make_environ, entrance.precedents
        )
        if request is not None:
            entrance.house.serve_request(sock, self._address, self._deadline, request)
        else:
            entrance.house.serve_unread(sock, self._address, self._deadline)

    def on_timer(self, _now: float) -> float | None:
        """Nothing came in time."""
        self.abort()
        return None

    def abort(self) -> None:
        """Close the connection."""
        self._stop_waiting()
        self._socket.close()

    def _wait(self) -> None:
        entrance = self._entrance
        self._watcher = get_hub().loop.io(self._socket.fileno(), _READ)
        self._watcher.start(self.look)
        entrance.timers.set(self, self._deadline)
        entrance.idle.add(self._socket, is_fresh=True)
        entrance.house.keep(self)

    def _stop_waiting(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
            entrance = self._entrance
            entrance.timers.cancel(self)
            entrance.idle.discard(self._socket)
            entrance.house.forget(self)
