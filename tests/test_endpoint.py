"""Endpoint: methods instead of a greenlet for each connection."""

from __future__ import annotations

import contextvars
import gc
import logging
import sys
import threading
from typing import Any

import gevent
import gevent.local
import pytest
from gevent.event import Event
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.client import connect

import plainsocket
from plainsocket import Endpoint, protocol
from plainsocket.frames import Opcode
from plainsocket.protocol import Message
from rawclient import RawClient, frame
from serving import PATIENCE, serving, wait_until


class Echo(Endpoint):
    def on_message(self, message: Message) -> None:
        if message == "quit":
            self.ws.close(4000, "as asked")
        else:
            self.ws.send(message)


def test_echo_and_close() -> None:
    with serving({"/echo": Echo}) as server, connect(server.url(), max_size=None) as peer:
        for message in ("text", b"binary", "", "x" * 1_000_000):
            peer.send(message)
            assert peer.recv(timeout=PATIENCE) == message
        peer.send("quit")
        with pytest.raises(PeerClosed):
            peer.recv(timeout=PATIENCE)
        assert (peer.close_code, peer.close_reason) == (4000, "as asked")


def test_methods_are_called_in_order_and_one_at_a_time() -> None:
    calls: list[Any] = []

    class Slow(Endpoint):
        def on_open(self) -> None:
            calls.append("open")
            gevent.sleep(0.05)

        def on_message(self, message: Message) -> None:
            calls.append(("begin", message))
            gevent.sleep(0.002)
            calls.append(("end", message))

        def on_close(self, code: int, reason: str) -> None:
            calls.append((code, reason))

    with serving(Slow) as server:
        with RawClient(server.port) as client:
            client.send(
                client.request()
                + b"".join(frame(Opcode.TEXT, b"%d" % number) for number in range(50))
                + frame(Opcode.CLOSE, b"\x0f\xa1bye")
            )
            client.receive_head()
            assert client.receive_close() == (4001, "")
        wait_until(lambda: (4001, "bye") in calls)
        assert server.call(lambda: len(server.server.connections)) == 0
    expected: list[Any] = ["open"]
    for number in range(50):
        expected += [("begin", str(number)), ("end", str(number))]
    assert calls == [*expected, (4001, "bye")]


def test_a_silent_connection_has_no_greenlet() -> None:
    opened = threading.Semaphore(0)

    class Silent(Endpoint):
        def on_open(self) -> None:
            opened.release()

    def greenlets() -> int:
        gc.collect()
        return sum(isinstance(item, gevent.Greenlet) and not item.dead for item in gc.get_objects())

    with serving(Silent) as server:
        before = server.call(greenlets)
        clients = [RawClient(server.port) for _ in range(50)]
        try:
            for client in clients:
                client.open()
                assert opened.acquire(timeout=PATIENCE)
            wait_until(lambda: server.call(greenlets) <= before + 2)  # all had the same two
            assert len(server.server.connections) == 50
        finally:
            for client in clients:
                client.socket.close()
        wait_until(lambda: not server.server.connections)


@pytest.mark.parametrize("method", ["on_open", "on_message", "on_close"])
def test_a_method_that_raises(method: str, caplog: pytest.LogCaptureFixture) -> None:
    closes: list[int] = []

    class Failing(Endpoint):
        def on_open(self) -> None:
            if method == "on_open":
                raise ValueError("trouble")

        def on_message(self, message: Message) -> None:
            if method == "on_message":
                raise ValueError("trouble")

        def on_close(self, code: int, reason: str) -> None:
            closes.append(code)
            if method == "on_close":
                raise ValueError("trouble")

    with serving(Failing) as server, RawClient(server.port) as client:
        client.open()
        client.send(frame(Opcode.TEXT, b"one") + frame(Opcode.TEXT, b"two"))
        if method == "on_close":
            client.send_frame(Opcode.CLOSE, b"\x03\xe8")
            assert client.receive_close()[0] == 1000
        else:
            assert client.receive_close()[0] == 1011
            client.send_frame(Opcode.CLOSE, b"\x03\xf3")
        assert client.receive_rest() == b""
        wait_until(lambda: not server.server.connections)
    assert closes == [1000 if method == "on_close" else 1011]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_context_variables_and_greenlet_locals_do_not_leak() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    local = gevent.local.local()

    class Login(Endpoint):
        def on_message(self, message: Message) -> None:
            before = (user.get(), getattr(local, "user", "nobody"))
            user.set(str(message))
            local.user = message
            self.ws.send(" ".join(before))

    with serving(Login) as server, connect(server.url()) as one, connect(server.url()) as two:
        for peer, name in ((one, "alice"), (two, "bob"), (one, "alice"), (two, "bob")):
            peer.send(name)
            assert peer.recv(timeout=PATIENCE) == "nobody nobody"


def test_a_greenlet_runs_one_after_another() -> None:
    ran: list[tuple[int, contextvars.Context]] = []
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    class Noting(Endpoint):
        def on_message(self, message: Message) -> None:
            if message == "wait":
                gevent.sleep(0.001)
            ran.append((id(gevent.getcurrent()), contextvars.copy_context()))
            variable.set(1)
            self.ws.send(message)

    with serving(Noting) as server, connect(server.url()) as one, connect(server.url()) as other:
        for peer in (one, other, one, other):
            for message in ("go", "wait"):
                peer.send(message)
                assert peer.recv(timeout=PATIENCE) == message
        parked = server.server._http.dispatcher.workers._parked  # type: ignore[union-attr]
        wait_until(lambda: len(parked) == 1)  # the last one's answer came before its end
        assert {greenlet for greenlet, _ in ran} == {id(parked[0])}
    assert [len(context) for _, context in ran] == [0] * 8


class Leaving(Endpoint):
    """Leaves behind what a greenlet of its own would take away with it."""

    local = gevent.local.local()
    known: list[Any] = []  # noqa: RUF012

    def on_message(self, message: Message) -> None:
        me: Any = gevent.getcurrent()
        found = None
        if message == "local":
            self.local.left = "a value"
        elif message == "tree":
            me.spawn_tree_locals = {"left": "a value"}
        elif message == "timeout":
            gevent.Timeout(0.05).start()
        elif message == "kill":
            gevent.spawn_later(0.05, me.kill)
        elif message == "link":
            me.link(lambda _: self.known.append("linked"))
        else:  # not before: to look for a local is to be known, too
            gevent.sleep(0.15)
            found = getattr(self.local, "left", None) or me.spawn_tree_locals or None
        self.ws.send(f"{message!s} {found} {len(self.known)}")


@pytest.mark.parametrize("kind", ["local", "tree", "timeout", "kill", "link"])
def test_a_greenlet_that_somebody_knows_runs_nothing_else(kind: str) -> None:
    Leaving.known.clear()
    with serving(Leaving) as server, connect(server.url()) as one, connect(server.url()) as other:
        for peer, message in ((one, kind), (other, "what is there?"), (one, "and now?")):
            peer.send(message)
            linked = kind == "link" and message != kind
            assert peer.recv(timeout=PATIENCE) == f"{message} None {int(linked)}"


def test_methods_that_wait_do_not_hold_up_others() -> None:
    go_on: list[Event] = []

    class Waiting(Endpoint):
        def on_message(self, message: Message) -> None:
            if message == "wait":
                go_on.append(Event())
                go_on[-1].wait(PATIENCE)
            self.ws.send(message)

    with serving(Waiting) as server, connect(server.url()) as one, connect(server.url()) as other:
        for _ in range(3):
            one.send("wait")
            wait_until(lambda: go_on)
            for number in range(5):
                other.send(str(number))
                assert other.recv(timeout=PATIENCE) == str(number)
            server.call(go_on.pop().set)
            assert one.recv(timeout=PATIENCE) == "wait"


def test_the_number_of_running_methods_is_limited() -> None:
    running: list[int] = [0, 0]

    class Busy(Endpoint):
        def on_message(self, message: Message) -> None:
            running[0] += 1
            running[1] = max(running)
            gevent.sleep(0.02)
            running[0] -= 1
            self.ws.send(message)

    with serving(Busy, max_handlers=3) as server:
        clients = [RawClient(server.port) for _ in range(20)]
        try:
            for client in clients:
                client.open()
                client.send_frame(Opcode.TEXT, b"x")
            for client in clients:
                assert client.receive_frame()[1] == b"x"
        finally:
            for client in clients:
                client.socket.close()
    assert running == [0, 3]


def test_sends_of_a_method_that_waits_are_not_held_back() -> None:
    release = threading.Event()

    class Waits(Endpoint):
        def on_message(self, message: Message) -> None:
            self.ws.send("before")
            while not release.is_set():
                gevent.sleep(0.01)
            self.ws.send("after")

    with serving(Waits) as server, connect(server.url()) as peer:
        peer.send("go")
        assert peer.recv(timeout=PATIENCE) == "before"
        release.set()
        assert peer.recv(timeout=PATIENCE) == "after"


def test_receive_is_refused() -> None:
    class Receives(Endpoint):
        def on_message(self, message: Message) -> None:
            with pytest.raises(RuntimeError, match="on_message"):
                self.ws.receive()
            self.ws.send("done")

    with serving(Receives) as server, connect(server.url()) as peer:
        peer.send("x")
        assert peer.recv(timeout=PATIENCE) == "done"


def test_stopping_closes_with_1001_and_calls_on_close() -> None:
    closes: list[int] = []

    class Closing(Echo):
        def on_close(self, code: int, reason: str) -> None:
            closes.append(code)

    with serving(Closing) as server, connect(server.url()) as peer:
        peer.send("x")
        assert peer.recv(timeout=PATIENCE) == "x"
        stopping = server.call(lambda: gevent.spawn(server.server.stop))
        with pytest.raises(PeerClosed):
            peer.recv(timeout=PATIENCE)
        assert peer.close_code == 1001
        server.call(stopping.get)
    assert closes == [1001]


def test_a_flood_is_not_read_ahead() -> None:
    sockets: list[plainsocket.WebSocket] = []
    release = threading.Event()

    class Stuck(Endpoint):
        def on_message(self, message: Message) -> None:
            if not sockets:
                sockets.append(self.ws)
            while not release.is_set():
                gevent.sleep(0.01)

    with serving(Stuck) as server, RawClient(server.port) as client:
        client.open()
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(10_000):
                client.send_frame(Opcode.BINARY, bytes(10_000))
        assert server.call(lambda: sockets[0]._messages_size) < 200_000
        release.set()


def test_many_connections_at_once() -> None:
    with serving(Echo) as server:
        clients = [RawClient(server.port) for _ in range(100)]
        try:
            for client in clients:
                client.send(client.request() + frame(Opcode.TEXT, b"early"))
            for client in clients:
                client.receive_head()
                assert client.receive_frame()[1] == b"early"
            for client in clients:
                client.send_frame(Opcode.CLOSE, b"\x03\xe8")
                assert client.receive_close() == (1000, "")
        finally:
            for client in clients:
                client.socket.close()
        wait_until(lambda: not server.server.connections)


def test_who_waits_too_long_for_a_turn_gets_1013() -> None:
    release = threading.Event()
    begun: list[Message] = []
    closes: list[int] = []

    class Busy(Endpoint):
        def on_message(self, message: Message) -> None:
            begun.append(message)
            while not release.is_set():
                gevent.sleep(0.01)
            self.ws.send(message)

        def on_close(self, code: int, reason: str) -> None:
            closes.append(code)

    with (
        serving(Busy, max_handlers=2, dispatch_timeout=0.3) as server,
        RawClient(server.port) as one,
        RawClient(server.port) as two,
        RawClient(server.port) as three,
    ):
        for client in (one, two, three):
            client.open()
        wait_until(lambda: len(server.server.connections) == 3)
        for client in (one, two):
            client.send_frame(Opcode.TEXT, b"x")
        wait_until(lambda: len(begun) == 2)
        three.send_frame(Opcode.TEXT, b"waits")
        assert three.receive_close() == (1013, "server is too busy")
        three.send_frame(Opcode.CLOSE, b"\x03\xf5")
        assert three.receive_rest() == b""
        assert closes == []
        release.set()
        for client in (one, two):
            assert client.receive_frame()[1] == b"x"
        wait_until(lambda: closes == [1013])


@pytest.mark.once  # of what is compiled
@pytest.mark.skipif(str(protocol.__file__).endswith(".py"), reason="nothing is compiled")
def test_a_silent_connection_takes_a_kibibyte() -> None:
    class Silent(plainsocket.Endpoint):
        __slots__ = ()

    own = ["WebSocket", "Protocol", "TcpCarrier", "io", "Descriptor", "Runner", "Silent", "Kept"]

    def size() -> tuple[int, list[str]]:
        _, ws = server.server.connections
        found, rest = {id(ws): ws}, [ws]
        while rest:
            for each in gc.get_referents(rest.pop()):
                if type(each).__name__ in own and id(each) not in found:
                    found[id(each)] = each
                    rest.append(each)
        names = sorted(type(each).__name__ for each in found.values())
        return sum(map(sys.getsizeof, found.values())), names

    with (
        serving(Silent) as server,
        RawClient(server.port) as first,
        RawClient(server.port) as client,
    ):
        first.open()  # by which the server gets to know what its clients say
        client.open()
        wait_until(lambda: len(server.server.connections) == 2)
        taken, names = server.call(size)
    assert names == sorted(own)
    assert taken <= 1024
