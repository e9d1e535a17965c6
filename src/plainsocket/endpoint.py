"""Endpoint: a connection handled without a greenlet of its own between messages."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import gevent

from .carriers import calls
from .errors import ConnectionClosed
from .frames import CloseCode
from .protocol import Message
from .timers import TimerWheel
from .workers import Workers

if TYPE_CHECKING:
    from .websocket import WebSocket

logger: Final = logging.getLogger("plainsocket")


class Endpoint:
    """Handles one connection by methods; one instance each.

    A route names the class::

        class Echo(plainsocket.Endpoint):
            def on_message(self, message):
                self.ws.send(message)

        plainsocket.serve({"/echo": Echo})

    The methods of one connection never run at the same time, and they may wait for whatever they
    like; but no greenlet is kept for a connection at which nothing happens, so that a hundred
    thousand silent ones cost little. Each run of methods has fresh context variables and greenlet
    locals, though the greenlet may have run others before. An exception closes the connection with
    1011 and is logged once.
    """

    __slots__ = ("__weakref__", "ws")  # a subclass has a __dict__, unless it says so too

    ws: WebSocket
    """The connection; its messages come by `on_message`, not by `receive`."""

    def on_open(self) -> None:
        """The connection is open. Called first."""

    def on_message(self, message: Message) -> None:
        """A message has come. Called for each in order."""

    def on_close(self, code: int, reason: str) -> None:
        """The connection is over. Called exactly once, after the last message."""


def is_endpoint(handler: object) -> TypeGuard[type[Endpoint]]:
    """Whether it is not a function."""
    return isinstance(handler, type) and issubclass(handler, Endpoint)


class Dispatcher:
    """Runs connections that have something to do, at most `limit` at the same time.

    The others wait in order, which makes their peers wait too: what is not taken is not read.
    Who has waited for `timeout` seconds is closed with 1013.
    """

    def __init__(self, limit: int, timeout: float, on_end: Callable[[WebSocket], None]) -> None:
        """`on_end` is called once for each: the socket is closed, and `on_close` has returned."""
        self.on_end = on_end
        self.workers = Workers(self._start_waiting_soon)
        self._limit = limit
        self._timeout = timeout
        self._hub = gevent.get_hub()
        self._timers = TimerWheel.of_hub()
        self.timer_slot = self.timer_place = 0
        self._waiting: deque[tuple[float, Runner]] = deque()  # until when, by time.monotonic()

    def submit(self, runner: Runner) -> None:
        """Run it as soon as there is room: at once, if that is now and this is the hub."""
        if calls.current() is not self._hub:
            self._hub.loop.run_callback(self.submit, runner)
        elif len(self.workers.running) < self._limit:
            self._start(runner)
        else:
            deadline = time.monotonic() + self._timeout
            self._waiting.append((deadline, runner))
            if not self.timer_slot:
                self._timers.set(self, deadline)

    def on_timer(self, now: float) -> float | None:
        """In the hub: tell those who have waited too long."""
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting.popleft()[1].give_up()
        return self._waiting[0][0] if self._waiting else None

    def _start(self, runner: Runner) -> None:
        """In the hub: run it, until it waits for something; what it sends leaves together."""
        websocket = runner.websocket
        websocket.begin_batch()
        try:
            self.workers.start(runner)
        finally:
            websocket.end_batch()

    def _start_waiting_soon(self) -> None:
        if self._waiting and len(self.workers.running) < self._limit:
            self._hub.loop.run_callback(self._start_waiting)

    def _start_waiting(self) -> None:
        if self._waiting and len(self.workers.running) < self._limit:
            self._start(self._waiting.popleft()[1])

    def kill(self) -> None:
        """Kill what is running, and what could."""
        self.workers.kill()


class Runner:
    """What drives one Endpoint."""

    __slots__ = (
        "_dispatcher",
        "_endpoint",
        "_has_ended",
        "_has_failed",
        "_is_busy",
        "_is_closed",
        "_is_open",
        "_wake_again",
    )

    def __init__(self, endpoint: Endpoint, dispatcher: Dispatcher) -> None:
        self._endpoint = endpoint
        self._dispatcher = dispatcher
        self._is_busy = False
        self._wake_again = False
        self._is_open = False
        self._is_closed = False
        self._has_failed = False
        self._has_ended = False

    @property
    def websocket(self) -> WebSocket:
        return self._endpoint.ws

    def give_up(self) -> None:
        """The server is too busy: close; `on_close` is still called when there is room."""
        self._is_busy = False
        self._has_failed = True
        self._endpoint.ws.close(CloseCode.TRY_AGAIN_LATER, "server is too busy")
        self._endpoint.ws.discard()

    def wake(self) -> None:
        """There is something to do; may be called in the hub, and too often."""
        if self._is_busy:
            self._wake_again = True
        elif not self._has_ended:
            self._is_busy = True
            self._dispatcher.submit(self)

    def run(self) -> None:
        """Do what there is to do. In a greenlet that is nobody else's meanwhile."""
        websocket = self._endpoint.ws
        self._wake_again = False
        try:
            self._run(websocket)
        except BaseException:
            websocket.abort()  # killed
            self._has_failed = True
            raise
        finally:
            self._is_busy = False
            if websocket.is_gone and self._is_closed:
                self._end(websocket)
            elif self._wake_again or websocket.has_messages():
                self.wake()

    def _run(self, websocket: WebSocket) -> None:
        if not self._is_open:
            self._is_open = True
            self._call(websocket, self._endpoint.on_open)
        while (message := websocket.take_message()) is not None:
            if not self._has_failed:
                self._call(websocket, self._endpoint.on_message, message)
        if websocket.closed and not self._is_closed:
            self._is_closed = True
            code = websocket.close_code or CloseCode.ABNORMAL_CLOSURE
            self._call(websocket, self._endpoint.on_close, code, websocket.close_reason)

    def _call(self, websocket: WebSocket, method: Callable[..., object], *arguments: Any) -> None:
        try:
            method(*arguments)
        except ConnectionClosed:
            pass  # the connection ended under the method's hands; on_close tells
        except (Exception, gevent.Timeout):
            self._has_failed = True
            logger.exception("error in %s", type(self._endpoint).__name__)
            websocket.close(CloseCode.INTERNAL_ERROR, "internal error")

    def _end(self, websocket: WebSocket) -> None:
        if not self._has_ended:
            self._has_ended = True
            websocket.end_endpoint()
            self._dispatcher.on_end(websocket)
