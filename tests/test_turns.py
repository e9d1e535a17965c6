"""What connections write in one turn of the hub's loop leaves at its end, together and in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

import plainsocket
from plainsocket.frames import Opcode
from rawclient import RawClient, frame
from serving import PATIENCE, Running, serving

Handler = Callable[[plainsocket.WebSocket], None]


class Hold:
    """Keeps a server's hub busy, while others' messages come: they are one turn's then."""

    def __init__(self) -> None:
        self._is_held = threading.Event()
        self._may_go_on = threading.Event()

    def beside(self, handler: Handler) -> Handler:
        """What holds the hub by the path /hold, and serves the others by `handler`."""

        def serve(ws: plainsocket.WebSocket) -> None:
            if ws.path != "/hold":
                handler(ws)
                return
            for _ in ws:
                self._is_held.set()
                self._may_go_on.wait(PATIENCE)
                ws.send("on")

        return serve

    @contextmanager
    def held(self, server: Running) -> Iterator[None]:
        with RawClient(server.port) as client:
            client.open("/hold")
            client.send_frame(Opcode.TEXT, b"hold")
            assert self._is_held.wait(PATIENCE)
            self._is_held.clear()
            yield
            self._may_go_on.set()
            client.receive_frame()
            self._may_go_on.clear()


@contextmanager
def opened(
    server: Running, paths: Sequence[str], *, receive_buffer: int | None = None
) -> Iterator[list[RawClient]]:
    clients = [RawClient(server.port, receive_buffer=receive_buffer) for _ in paths]
    try:
        for client, path in zip(clients, paths, strict=True):
            client.open(path)
        yield clients
    finally:
        for client in clients:
            client.socket.close()


@pytest.mark.parametrize("size", [1, 700, 5000, 30_000, 70_000])
def test_each_gets_its_own(size: int) -> None:
    """Also where they are more than there is room for at once."""
    hold = Hold()

    def answer(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            ws.send(f"{ws.path} {message!s}" * size)
            ws.send(message)

    with (
        serving(hold.beside(answer)) as server,
        opened(server, [f"/{number}" for number in range(40)]) as clients,
    ):
        with hold.held(server):
            for client in clients:
                client.send(frame(Opcode.TEXT, b"1") + frame(Opcode.TEXT, b"2"))
        for number, client in enumerate(clients):
            for message in (b"1", b"2"):
                whole = b""
                while len(whole) < len(b"/%d 1" % number) * size:
                    whole += client.receive_frame()[1]
                assert whole == b"/%d %s" % (number, message) * size
                assert client.receive_frame()[1] == message


def test_one_that_takes_little_keeps_the_rest_and_holds_up_nobody() -> None:
    hold = Hold()
    count, size = 250, 30_000  # more than the kernel keeps for a peer that does not read yet

    def answer(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            ws.send(f"{message!s} {'x' * size}" if ws.path == "/slow" else message)

    with (
        serving(hold.beside(answer), write_limit=1 << 30) as server,
        opened(server, ["/before", "/after"]) as (before, after),
        opened(server, ["/slow"] * 4, receive_buffer=4096) as slow,
    ):
        for number in range(count):
            with hold.held(server):
                before.send_frame(Opcode.TEXT, b"before")
                for client in slow:
                    client.send_frame(Opcode.TEXT, b"%d" % number)
                after.send_frame(Opcode.TEXT, b"after")
            assert before.receive_frame()[1] == b"before"
            assert after.receive_frame()[1] == b"after"
        for client in slow:
            for number in range(count):
                assert client.receive_frame()[1] == b"%d %s" % (number, b"x" * size)


def test_who_takes_nothing_is_given_up() -> None:
    """Its answers have left for the queue behind the batch that made them: that is watched, too."""
    ended = threading.Event()

    def answer(ws: plainsocket.WebSocket) -> None:
        try:
            for _ in ws:
                for _ in range(64):
                    ws.send("x" * 1000)
        except plainsocket.ConnectionClosed:
            pass
        finally:
            ended.set()

    with (
        serving(answer, send_timeout=0.5, ping_interval=None, write_limit=1 << 30) as server,
        RawClient(server.port, receive_buffer=4096) as client,
    ):
        client.open()
        for _ in range(120):
            client.send_frame(Opcode.TEXT, b"more")
        assert ended.wait(PATIENCE)


@pytest.mark.parametrize("how", ["abort", "close", "send"])
def test_what_was_answered_comes_before_what_another_does(how: str) -> None:
    hold = Hold()
    connected: dict[str, plainsocket.WebSocket] = {}

    def answer(ws: plainsocket.WebSocket) -> None:
        connected[ws.path] = ws
        for message in ws:
            if ws.path == "/first":
                ws.send(message)
            elif how == "send":
                connected["/first"].send("from another")
            else:
                getattr(connected["/first"], how)()

    with (
        serving(hold.beside(answer)) as server,
        opened(server, ["/first", "/second"]) as (first, second),
    ):
        with hold.held(server):
            first.send_frame(Opcode.TEXT, b"answered")
            second.send_frame(Opcode.TEXT, b"now")
        assert first.receive_frame()[1] == b"answered"


def test_nobody_waits_for_all_whose_handlers_are_slow() -> None:
    hold = Hold()
    has_come = threading.Event()
    came_in_time: list[bool] = []

    def answer(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            if ws.path == "/first":
                ws.send(message)
            elif ws.path == "/slow":
                time.sleep(0.01)  # the whole hub: what waits for company has waited long enough
            else:
                came_in_time.append(has_come.wait(PATIENCE))
                ws.send(message)

    with (
        serving(hold.beside(answer)) as server,
        opened(server, ["/first", "/slow", "/third"]) as clients,
    ):
        with hold.held(server):
            for client in clients:
                client.send_frame(Opcode.TEXT, b"all")
        assert clients[0].receive_frame()[1] == b"all"
        has_come.set()
        assert clients[2].receive_frame()[1] == b"all"
        assert came_in_time == [True]
