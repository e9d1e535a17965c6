"""A real server in a thread of its own, so that tests talk to it by ordinary blocking clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent.event import Event

import plainsocket
from plainsocket.server import Routes

PATIENCE = 10.0  # seconds that a test waits for what must come


def echo(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        if message == "quit":
            break
        ws.send(message)


class Running:
    """A started server, and how to reach into its thread."""

    def __init__(self, server: plainsocket.Server) -> None:
        self.server = server
        address = server.address
        self.host, self.port = address if isinstance(address, tuple) else (address, 0)
        self._hub = gevent.get_hub()
        self._keep_alive = (
            self._hub.loop.async_()
        )  # or a stopped server would end the thread's loop
        self._keep_alive.start(lambda: None)
        self._stopped = Event()
        self.thread_error: BaseException | None = None

    def url(self, path: str = "/echo") -> str:
        return f"ws://{self.host}:{self.port}{path}"

    def call(self, function: Callable[[], Any]) -> Any:
        """Run `function` in a greenlet of the server's thread; return its result or raise."""
        done = threading.Event()
        outcome: list[Any] = [None, None]

        def run() -> None:
            try:
                outcome[0] = function()
            except BaseException as error:  # noqa: BLE001 - raised below, in the caller
                outcome[1] = error
            finally:
                done.set()

        self._hub.loop.run_callback_threadsafe(gevent.spawn_raw, run)
        assert done.wait(PATIENCE), "the server's thread is stuck"
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]


@contextmanager
def serving(handler: Routes = echo, **options: Any) -> Iterator[Running]:
    """Run `Server(handler, port=0, **options)` for as long as the block lasts."""
    started = threading.Event()
    running: list[Running] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            with plainsocket.Server(handler, port=0, **options) as server:
                running.append(Running(server))
                started.set()
                running[0]._stopped.wait()
                running[0]._keep_alive.close()
        except BaseException as raised:  # noqa: BLE001 - raised below, in the test
            error.append(raised)
        finally:
            started.set()
            gevent.get_hub().destroy()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    if error:
        raise error[0]
    try:
        yield running[0]
    finally:
        if thread.is_alive():
            running[0]._hub.loop.run_callback_threadsafe(running[0]._stopped.set)
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"
    if error:
        raise error[0]


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
