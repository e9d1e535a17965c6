"""gevent's rules: loops, monkey-patching, Timeouts and kills, threads, forks, and what is left of a
closed connection: nothing."""

from __future__ import annotations

import contextlib
import contextvars
import importlib.util
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.local
import pytest
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.client import connect

import needs
from plainsocket import Endpoint, WebSocket
from plainsocket.frames import Opcode
from plainsocket.protocol import Message
from processes import Program, running
from rawclient import RawClient
from serving import PATIENCE, Running, serving, wait_until

LOOPS = ["libev-cext", "libuv-cffi"]


@contextlib.contextmanager
def program_with(loop: str, *arguments: str) -> Iterator[Program]:
    """A Python program on one of gevent's loops; Python warns of all that it can."""
    if loop == "libuv-cffi" and importlib.util.find_spec("_cffi_backend") is None:
        needs.unavailable("gevent's libuv loop needs cffi (pip install cffi)")
    settings = ["PYTHONDEVMODE=1", f"GEVENT_LOOP={loop}"]
    with running("env", *settings, sys.executable, *arguments) as program:
        yield program


# -- loops and monkey-patching -------------------------------------------------------------------

SERVER = """
import sys
if sys.argv[1] == "patched":
    from gevent import monkey
    monkey.patch_all()
import os
import gevent
from gevent.pywsgi import WSGIServer
import plainsocket

def echo(ws):
    for message in ws:
        if message == "quit":
            break
        ws.send(message)

class Echo(plainsocket.Endpoint):
    def on_message(self, message):
        if message == "quit":
            self.ws.close()
        else:
            self.ws.send(message)

def application(environ, start_response):
    echo(environ["wsgi.websocket"])
    return []

server = plainsocket.Server({"/handler": echo, "/endpoint": Echo}, port=0)
wsgi = WSGIServer(
    ("127.0.0.1", 0), application, handler_class=plainsocket.WebSocketHandler, log=None
)
server.start()
wsgi.start()
loop = type(gevent.get_hub().loop).__module__
print("ready", loop, os.getpid(), server.address[1], wsgi.server_port, flush=True)
server.serve_forever()
wsgi.stop(timeout=5)
print("stopped", flush=True)
"""


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("patching", ["plain", "patched"])
def test_a_server_on_each_loop_patched_or_not_is_silent(loop: str, patching: str) -> None:
    with program_with(loop, "-c", SERVER, patching) as program:
        ready = program.wait_for(r"^ready (\S+) (\d+) (\d+) (\d+)$")
        assert loop.split("-")[0] in ready[1]
        urls = [
            f"ws://127.0.0.1:{ready[3]}/handler",
            f"ws://127.0.0.1:{ready[3]}/endpoint",
            f"ws://127.0.0.1:{ready[4]}/",
        ]
        for url in urls:
            for last in ("quit", None):
                with connect(url, max_size=None) as peer:
                    for message in ("text", b"\0binary", "", "é" * 200_000, b"x" * 500_000):
                        peer.send(message)
                        assert peer.recv(timeout=PATIENCE) == message
                    assert peer.ping().wait(PATIENCE)
                    if last is not None:
                        peer.send(last)
                        with pytest.raises(PeerClosed):
                            peer.recv(timeout=PATIENCE)
                    peer.close()
                    assert peer.close_code == 1000
            with RawClient(int(ready[4] if url == urls[2] else ready[3])) as client:
                client.open(url.removeprefix("ws://127.0.0.1:").lstrip("0123456789"))
                client.send(b"\x81")  # and vanishes
        with connect(urls[0]) as one, connect(urls[1]) as two:
            for peer in (one, two):
                peer.send("still there at the end")
                assert peer.recv(timeout=PATIENCE) == "still there at the end"
            os.kill(int(ready[2]), signal.SIGTERM)
            for peer in (one, two):
                with pytest.raises(PeerClosed):
                    peer.recv(timeout=PATIENCE)
                assert peer.close_code == 1001
        assert program.wait() == 0
        assert program.output == f"{ready[0]}\nstopped\n"


# -- Timeouts and kills --------------------------------------------------------------------------


class Interrupter:
    """Breaks off calls that wait, and looks whether something wakes the greenlet afterwards."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.returned = self.broken_off = 0

    def assert_was_of_use(self) -> None:
        """Both outcomes have come about often enough to tell something."""
        assert self.failures == []
        assert min(self.returned, self.broken_off) >= 20, (self.returned, self.broken_off)

    def call(self, function: Callable[[], object], seconds: float) -> bool:
        """Call it, and break it off after `seconds`. True if it returned."""
        how = random.choice([self._with_a_timeout, self._with_a_kill])
        has_returned = how(function, seconds)
        if has_returned:
            self.returned += 1
        else:
            self.broken_off += 1
        return has_returned

    def _with_a_timeout(self, function: Callable[[], object], seconds: float) -> bool:
        try:
            with gevent.Timeout(seconds):
                function()
        except gevent.Timeout:
            self._sleep_undisturbed()
            return False
        return True

    def _with_a_kill(self, function: Callable[[], object], seconds: float) -> bool:
        has_returned = []

        def victim() -> None:
            with contextlib.suppress(gevent.GreenletExit):
                function()
                has_returned.append(True)
            with contextlib.suppress(gevent.GreenletExit):
                self._sleep_undisturbed()

        greenlet = gevent.spawn(victim)
        gevent.sleep(seconds)
        greenlet.kill(block=False)
        greenlet.get()
        return bool(has_returned)

    def _sleep_undisturbed(self) -> None:
        hub = gevent.get_hub()
        mine = object()
        timer = hub.loop.timer(0.003)
        timer.start(gevent.getcurrent().switch, mine)
        try:
            if (woken_by := hub.switch()) is not mine:
                self.failures.append(f"woken by {woken_by!r}")
        finally:
            timer.stop()
            timer.close()


def in_a_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize("batch_time", [0.005, 1e-9], ids=["in batches", "one at a time"])
def test_a_receive_broken_off_loses_and_doubles_nothing(batch_time: float) -> None:
    """One at a time: then a call waits for the loop's turn though messages are there."""
    count = 600
    interrupter = Interrupter()
    received: list[int] = []

    def handler(ws: WebSocket) -> None:
        def receive() -> None:
            own = random.choice([None, random.uniform(0, 0.004)])
            if random.random() < 0.5:
                gevent.sleep(0)  # so that a kill may be on its way already
            with contextlib.suppress(TimeoutError):
                received.append(int(ws.receive(timeout=own)))

        while len(received) < count:
            interrupter.call(receive, random.choice([0, random.uniform(0, 0.004)]))
        ws.send("all")

    with serving(handler, batch_time=batch_time) as server, connect(server.url()) as peer:
        for number in range(count):
            peer.send(str(number))
            if random.random() < 0.6:
                time.sleep(random.uniform(0, 0.006))
        assert peer.recv(timeout=PATIENCE) == "all"
    assert received == list(range(count))
    interrupter.assert_was_of_use()


@pytest.mark.slow
def test_a_send_broken_off_at_the_limit_withdraws_and_doubles_nothing() -> None:
    attempts, senders = 150, 4
    interrupter = Interrupter()
    accepted: dict[int, list[int]] = {sender: [] for sender in range(senders)}

    def handler(ws: WebSocket) -> None:
        def send_all(sender: int) -> None:
            for number in range(attempts):
                message = f"{sender} {number}".ljust(random.choice([10, 30_000, 60_000]))

                def send(number: int = number, message: str = message) -> None:
                    ws.send(message)
                    accepted[sender].append(number)

                interrupter.call(send, random.uniform(0, 0.012))

        greenlets = [gevent.spawn(send_all, sender) for sender in accepted]
        gevent.joinall(greenlets, raise_error=True)
        ws.send("end")

    received: dict[int, list[int]] = {sender: [] for sender in accepted}
    with (
        serving(handler, write_limit=50_000) as server,
        RawClient(server.port, receive_buffer=4096) as client,
    ):
        client.open()
        while (payload := client.receive_frame()[1]) != b"end":
            sender, number = map(int, payload.split())
            received[sender].append(number)
            time.sleep(random.choice([0, 0.001, 0.005]))
        assert client.receive_close() == (1000, "")
    assert received == accepted
    interrupter.assert_was_of_use()


@pytest.mark.slow
def test_a_ping_broken_off_leaves_nothing_behind() -> None:
    interrupter = Interrupter()
    websockets: list[WebSocket] = []

    def handler(ws: WebSocket) -> None:
        websockets.append(ws)
        for _ in range(400):
            interrupter.call(ws.ping, random.uniform(0, 0.006))
        assert ws.ping() > 0
        assert not ws._ping_waiters
        ws.send("done")
        websockets.clear()

    with serving(handler, ping_interval=None) as server, RawClient(server.port) as client:
        client.open()
        while True:
            head, payload = client.receive_frame()
            if head.opcode != Opcode.PING:
                break
            # Not slower than they come, or it would fall behind further and further.
            time.sleep(random.choice([0, random.uniform(0, 0.003)]))
            client.send_frame(Opcode.PONG, payload)
        assert payload == b"done"
    interrupter.assert_was_of_use()


@pytest.mark.slow
@pytest.mark.parametrize("answers", [True, False], ids=["answered", "not answered"])
def test_a_finish_broken_off_cuts_the_connection(answers: bool) -> None:
    """Nobody would wait for the peer any more."""
    interrupter = Interrupter()
    codes: set[int | None] = set()

    def handler(ws: WebSocket) -> None:
        has_returned = interrupter.call(
            lambda: ws.finish(4000), random.uniform(0, 0.006 if answers else 0.003)
        )
        assert ws.closed
        # The peer's answer may have come just when it was broken off.
        codes.add(ws.close_code)
        assert not has_returned or ws.close_code == 4000

    with serving(handler, close_timeout=PATIENCE) as server:
        for _ in range(200 if answers else 50):
            with RawClient(server.port) as client:
                client.open()
                with contextlib.suppress(AssertionError, OSError):  # cut at any place
                    assert client.receive_close() == (4000, "")
                    time.sleep(random.uniform(0, 0.004))
                    if answers:
                        client.send_frame(Opcode.CLOSE, b"\x0f\xa0")
                assert client.receive_rest() == b""
        wait_until(lambda: not server.server.connections)
    if answers:
        interrupter.assert_was_of_use()
        assert codes == {4000, 1006}
    else:
        assert interrupter.failures == []
        assert (interrupter.returned, codes) == (0, {1006})


# -- threads -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_servers_in_two_threads_do_not_mix_up_their_messages() -> None:
    count, size = 250, 60_000
    wrong: list[str] = []

    def converse(server: Running, name: str) -> None:
        try:
            with connect(server.url(), max_size=None) as peer:
                for number in range(count):
                    message = f"{name}{number} ".ljust(size, name)
                    peer.send(message)
                    if peer.recv(timeout=PATIENCE) != message:
                        wrong.append(f"{name} got something else for {number}")
        except Exception as error:  # noqa: BLE001 - reported below, in the test's thread
            wrong.append(f"{name}: {error!r}")

    with serving(max_message_size=1 << 20) as one, serving(max_message_size=1 << 20) as two:
        threads = [
            in_a_thread(lambda server=server, name=name: converse(server, name))  # type: ignore[misc]
            for server, names in ((one, "ab"), (two, "cd"))
            for name in names
        ]
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert wrong == []


@pytest.mark.parametrize(
    "call",
    [
        WebSocket.receive,
        WebSocket.wait,
        next,
        lambda ws: ws.send("x"),
        WebSocket.ping,
        WebSocket.close,
        WebSocket.finish,
        WebSocket.abort,
    ],
    ids=["receive", "wait", "next", "send", "ping", "close", "finish", "abort"],
)
def test_a_call_from_another_servers_thread_raises(call: Callable[[Any], object]) -> None:
    websockets: list[WebSocket] = []
    raised: list[BaseException] = []

    def keep(ws: WebSocket) -> None:
        websockets.append(ws)
        for message in ws:
            ws.send(message)
        websockets.clear()

    def trespass(ws: WebSocket) -> None:
        try:
            with gevent.Timeout(2):
                call(websockets[0])
        except (RuntimeError, gevent.Timeout) as error:
            raised.append(error)
        ws.send("tried")

    with serving(keep) as one, serving(trespass) as two, connect(one.url()) as peer:
        wait_until(lambda: websockets)
        with connect(two.url()) as other:
            assert other.recv(timeout=PATIENCE) == "tried"
        assert [type(error) for error in raised] == [RuntimeError]
        assert "thread" in str(raised[0])
        peer.send("unharmed")
        assert peer.recv(timeout=PATIENCE) == "unharmed"


# -- forks ---------------------------------------------------------------------------------------

FORKING = """
import sys
if sys.argv[1] == "patched":
    from gevent import monkey
    monkey.patch_all()
    from os import fork
else:
    from gevent.os import fork
import os
import gevent
import plainsocket

def who(ws):
    for message in ws:
        ws.send(f"{os.getpid()} {message}")

class Who(plainsocket.Endpoint):
    def on_message(self, message):
        self.ws.send(f"{os.getpid()} {message}")
    def on_close(self, code, reason):
        print("closed", "in the parent" if os.getpid() == parent else "in the child", flush=True)

def ticks(ws):
    while True:
        ws.send(str(os.getpid()))
        gevent.sleep(0.02)

def cut(ws):
    ws.receive()
    ws.abort()

def forks(ws):
    if fork() == 0:
        child()
    for message in ws:
        ws.send(message)

def child():
    with plainsocket.Server(who, port=0, ping_interval=0.2, ping_timeout=5.0) as server:
        print("child", os.getpid(), server.address[1], flush=True)
        gevent.sleep(float(sys.argv[2]))
    print("child done", flush=True)
    os._exit(0)

parent = os.getpid()
routes = {"/who": who, "/endpoint": Who, "/ticks": ticks, "/cut": cut, "/fork": forks}
# In the time of the test the deadlines pass in both processes.
server = plainsocket.Server(routes, port=0, ping_interval=0.2, ping_timeout=5.0)
server.start()
print("parent", parent, server.address[1], flush=True)
server.serve_forever()
print("parent done", flush=True)
"""

CHILD_LIVES = 4.0  # seconds


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("patching", ["plain", "patched"])
def test_a_forked_child_leaves_its_parents_connections_alone(loop: str, patching: str) -> None:
    with (
        program_with(loop, "-c", FORKING, patching, str(CHILD_LIVES)) as program,
        contextlib.ExitStack() as stack,
    ):
        _, parent, port = program.wait_for(r"^(parent) (\d+) (\d+)$").groups()
        url = f"ws://127.0.0.1:{port}"
        who, endpoint = (
            stack.enter_context(connect(f"{url}{path}")) for path in ("/who", "/endpoint")
        )
        ticks, to_be_cut = (stack.enter_context(RawClient(int(port))) for _ in range(2))
        ticks.open("/ticks")
        to_be_cut.open("/cut")
        with connect(f"{url}/fork") as forks:
            forks.send("begin")
            assert forks.recv(timeout=PATIENCE) == "begin"
            _, child, child_port = program.wait_for(r"^(child) (\d+) (\d+)$").groups()
            assert child != parent

            with connect(f"ws://127.0.0.1:{child_port}") as new:
                for number in range(100):
                    for peer, process in ((who, parent), (endpoint, parent), (new, child)):
                        peer.send(str(number))
                        assert peer.recv(timeout=PATIENCE) == f"{process} {number}"
                    # A sign of life, so that the parent has no reason to ping; the child would.
                    ticks.send_frame(Opcode.PONG)
                    assert ticks.receive_frame()[1].decode() == parent
            to_be_cut.send_frame(Opcode.TEXT, b"now")
            # A copy of the descriptor in the child would keep the end from the peer.
            to_be_cut.receive_rest()
            assert "child done" not in program.output
            endpoint.close()
            ticks.socket.close()
            program.wait_for("^child done$")
            for _ in range(10):
                who.send("afterwards")
                assert who.recv(timeout=PATIENCE) == f"{parent} afterwards"
        os.kill(int(parent), signal.SIGTERM)
        assert program.wait() == 0
        assert sorted(line.split()[0:3] for line in program.output.splitlines()) == sorted(
            [
                ["parent", parent, port],
                ["child", child, child_port],
                ["closed", "in", "the"],
                ["child", "done"],
                ["parent", "done"],
            ]
        )
        assert "closed in the parent" in program.output


def test_a_program_that_is_started_inherits_no_socket() -> None:
    def handler(ws: WebSocket) -> None:
        output = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, check=True
        )
        ws.send(output.stdout.decode())

    with serving(handler) as server, connect(server.url()) as peer:
        assert "socket:" not in peer.recv(timeout=PATIENCE, decode=True)


# -- what belongs to one connection --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["handler", "endpoint"])
def test_context_variables_and_greenlet_locals_stay_with_their_connection(kind: str) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    local = gevent.local.local()

    def answer(ws: WebSocket, message: Message) -> None:
        before = f"{user.get()} {getattr(local, 'user', 'nobody')}"
        user.set(str(message))
        local.user = message
        ws.send(before)
        gevent.sleep(0.005)  # meanwhile others come, or wait for their turn

    def handler(ws: WebSocket) -> None:
        answer(ws, ws.receive())
        ws.wait()

    class Answering(Endpoint):
        def on_message(self, message: Message) -> None:
            answer(self.ws, message)

    routes: Any = handler if kind == "handler" else Answering
    with serving(routes, max_handlers=2) as server, contextlib.ExitStack() as stack:
        for _ in range(3):  # one after the other as well as at once
            peers = [stack.enter_context(connect(server.url())) for _ in range(10)]
            for number, peer in enumerate(peers):
                peer.send(f"user{number}")
            for peer in peers:
                assert peer.recv(timeout=PATIENCE) == "nobody nobody"


# -- what is left of a closed connection ---------------------------------------------------------

COUNTING = """
import gc, logging, os, socket, struct, sys, threading, time
import gevent
from gevent.pywsgi import WSGIServer
import plainsocket
from plainsocket.carriers.tcp import TcpCarrier
from plainsocket.endpoint import Runner
from plainsocket.frames import Opcode
from plainsocket.handshake import Request
from plainsocket.protocol import Protocol
from plainsocket.timers import TimerWheel

sys.path.insert(0, sys.argv[1])
from rawclient import RawClient, frame

CONNECTIONS = int(sys.argv[2])
logging.disable()

def echo(ws):
    for message in ws:
        if message == "quit":
            break
        if message == "raise":
            raise ValueError
        ws.send(message)

class Echo(plainsocket.Endpoint):
    def on_message(self, message):
        if message == "quit":
            self.ws.close()
        elif message == "raise":
            raise ValueError
        else:
            self.ws.send(message)

def application(environ, start_response):
    echo(environ["wsgi.websocket"])
    return []

def closes(client):
    client.send(CLOSE)
    assert client.receive_frame()[0].opcode == Opcode.CLOSE
    client.receive_rest()

def is_closed(client):
    client.send(QUIT)
    assert client.receive_frame()[0].opcode == Opcode.CLOSE
    client.send(CLOSE)
    client.receive_rest()

def resets(client):
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

def vanishes(client):
    client.send(QUIT[:3])

def breaks_the_rules(client):
    client.send(b"\\x81\\x01x")
    assert client.receive_frame()[0].opcode == Opcode.CLOSE
    client.socket.shutdown(socket.SHUT_WR)
    client.receive_rest()

def makes_it_raise(client):
    client.send(RAISE)
    assert client.receive_frame()[0].opcode == Opcode.CLOSE
    client.send(CLOSE)
    client.receive_rest()

X, QUIT, RAISE, CLOSE = (
    frame(Opcode.TEXT, b"x"), frame(Opcode.TEXT, b"quit"), frame(Opcode.TEXT, b"raise"),
    frame(Opcode.CLOSE, b"\\x03\\xe8"),
)
ENDS = [closes, is_closed, resets, vanishes, breaks_the_rules, makes_it_raise]

server = plainsocket.Server({"/handler": echo, "/endpoint": Echo}, port=0)
wsgi = WSGIServer(
    ("127.0.0.1", 0), application, handler_class=plainsocket.WebSocketHandler, log=None
)
server.start()
wsgi.start()
ROUTES = [
    (server.address[1], "/handler"), (server.address[1], "/endpoint"), (wsgi.server_port, "/")
]

def connect_and_close(count):
    for number in range(count):
        port, path = ROUTES[number % len(ROUTES)]
        with RawClient(port) as client:
            client.open(path)
            client.send(X)
            assert client.receive_frame()[1] == b"x"
            ENDS[number // len(ROUTES) % len(ENDS)](client)

def run(count):
    thread = threading.Thread(target=connect_and_close, args=[count])
    thread.start()
    while thread.is_alive():
        gevent.sleep(0.01)
    deadline = time.monotonic() + 10
    while server.connections and time.monotonic() < deadline:
        gevent.sleep(0.01)
    gevent.sleep(0.3)

def left():
    kinds = (plainsocket.WebSocket, Protocol, TcpCarrier, Runner, Echo, Request)
    found = dict.fromkeys([kind.__name__ for kind in kinds], 0)
    for each in gc.get_objects():
        if type(each) in kinds:
            found[type(each).__name__] += 1
    return found

def descriptors():
    return len(os.listdir("/proc/self/fd"))

run(100)  # what is made once is there afterwards
gc.collect()
gc.disable()
objects, files = len(gc.get_objects()), descriptors()
start = time.monotonic()
run(CONNECTIONS)
print("seconds", round(time.monotonic() - start, 1))
print("left", sum(left().values()), left())
print("descriptors", descriptors() - files)
print("timers", sum(map(len, TimerWheel.of_hub()._slots.values())))
print("objects", len(gc.get_objects()) - objects, flush=True)
server.stop()
wsgi.stop()
print("stopped", flush=True)
"""


@pytest.mark.slow
def test_closed_connections_leave_nothing_behind_without_the_garbage_collector(
    record_property: Any,
) -> None:
    connections = 10_000
    tests = str(Path(__file__).parent)
    with running(sys.executable, "-c", COUNTING, tests, str(connections)) as program:
        program.wait_for("^stopped$", timeout=90)
        assert program.wait() == 0
        print(program.output)
        record_property("output", program.output)
        assert "\nleft 0 " in program.output
        assert "\ndescriptors 0\n" in program.output
        assert "\ntimers 0\n" in program.output
        # Of anything else, nobody's fault but the program's own.
        objects = program.wait_for(r"^objects (-?\d+)$")[1]
        assert int(objects) < connections / 10
