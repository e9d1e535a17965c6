"""A server's entrance: from accept to a connection's first bytes, in gevent's hub.

Who has said nothing yet costs no greenlet. When the first bytes are there they are read: a plain
request for a WebSocket, whole and flawless, gets a greenlet for its handler. With everything else
pywsgi goes on, as if it had read them.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, Final, Protocol

from gevent import get_hub

from .carriers import calls
from .carriers.descriptor import Descriptor
from .draining import IdleConnections
from .timers import TimerWheel
from .visit import FIRST_READ, Desk, address_of, read_visit
from .workers import Workers

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

    def serve_other(self, sock: Any, address: Any, deadline: float, begun: bytes) -> None:
        """Take a connection over that does not begin with a plain request for a WebSocket, but with
        `begun`. Its first head is to be there by `deadline`."""

    def turn_away(self, sock: Any, address: Any) -> None:
        """Take one over for which there is no room."""


class Entrance:
    """Accepts connections and waits for what they say first."""

    def __init__(self, house: House, desk: Desk, workers: Workers, idle: IdleConnections) -> None:
        """`workers` serve the plain requests for WebSockets."""
        self.house = house
        self.desk = desk
        self.workers = workers
        self.idle = idle
        self.timers = TimerWheel.of_hub()
        self.hub = get_hub()
        self._batch_time = desk.options.batch_time
        self._timeout = desk.options.handshake_timeout

    def accept(self, listener: Any) -> None:
        """Accept who waits at `listener`, a non-blocking socket. Raises OSError."""
        end = calls.monotonic() + self._batch_time
        family, kind, proto = listener.family, listener.type, listener.proto
        listening = listener.fileno()
        for _ in range(_MOST_ACCEPTED):
            peer, address = -1, None
            if family == _AF_INET:
                fd = calls.accept(listening)
                if fd < 0:
                    return
                peer = calls.peer()
            else:  # whose addresses Python knows best
                try:
                    fd, address = listener._accept()
                except BlockingIOError:
                    return
                os.set_blocking(fd, False)
            now = calls.monotonic()
            self._receive(Descriptor(fd, family, kind, proto), peer, address, now + self._timeout)
            if now > end:
                return

    def receive(self, sock: Any, address: Any, deadline: float) -> None:
        """Wait for the first bytes on a non-blocking socket, until `deadline`."""
        self._receive(sock, -1, address, deadline)

    def _receive(self, sock: Any, peer: int, address: Any, deadline: float) -> None:
        """`peer` and `address` are those of `Kept`."""
        try:
            if not self.house.has_room():
                self.house.turn_away(sock, address_of(peer, address))
            elif not self.look(sock, peer, address, deadline):
                Arrival(self, sock, peer, address, deadline).wait()
        except BaseException:  # noqa: BLE001 - the hub tells what ends the program
            sock.close()
            self.hub.handle_error(self, *sys.exc_info())

    def look(self, sock: Any, peer: int, address: Any, deadline: float) -> bool:
        """Serve it, if it has said something, and return whether it has."""
        fd = sock.fileno()
        try:
            data = calls.read_little(fd, FIRST_READ)
        except OSError:
            data = b""
        if data is None:
            return False
        if not data:
            sock.close()
            return True
        visit = read_visit(self.desk, data, sock, peer, address, deadline)
        if visit is not None:
            self.workers.start(visit)
        else:
            self.house.serve_other(sock, address_of(peer, address), deadline, data)
        return True


class Arrival:
    """A connection whose first bytes are waited for."""

    __slots__ = (
        "_address",
        "_deadline",
        "_entrance",
        "_peer",
        "_socket",
        "_watcher",
        "timer_place",
        "timer_slot",
    )

    def __init__(
        self, entrance: Entrance, sock: Any, peer: int, address: Any, deadline: float
    ) -> None:
        self._entrance = entrance
        self._socket = sock
        self._peer = peer
        self._address = address
        self._deadline = deadline
        self._watcher: Any = None
        self.timer_slot = self.timer_place = 0

    def wait(self) -> None:
        entrance = self._entrance
        self._watcher = entrance.hub.loop.io(self._socket.fileno(), _READ)
        self._watcher.start(self._look)
        entrance.timers.set(self, self._deadline)
        entrance.idle.add(self._socket, is_fresh=True)
        entrance.house.keep(self)

    def _look(self) -> None:
        self._stop_waiting()
        try:
            if not self._entrance.look(self._socket, self._peer, self._address, self._deadline):
                self.wait()
        except BaseException:
            self._socket.close()
            raise

    def on_timer(self, _now: float) -> float | None:
        """Nothing came in time."""
        self.abort()
        return None

    def abort(self) -> None:
        """Close the connection."""
        self._stop_waiting()
        self._socket.close()

    def _stop_waiting(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        entrance = self._entrance
        entrance.timers.cancel(self)
        entrance.idle.discard(self._socket)
        entrance.house.forget(self)
