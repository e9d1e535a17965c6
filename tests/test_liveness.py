"""A dead peer is found in the stated time, and a living one is never taken for dead.

Dead is a peer whose network cable has been pulled: nothing comes from it any more, no reset either.
The cable is a pair of virtual interfaces between two network namespaces of the tests' own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.client import connect

import needs
import plainsocket
from plainsocket import ConnectionClosed, Endpoint
from plainsocket.frames import Opcode
from plainsocket.timers import TimerWheel
from rawclient import RawClient
from serving import PATIENCE, Running, echo, serving, wait_until

pytestmark = pytest.mark.slow

INTERVAL = TIMEOUT = 0.5  # seconds
STATED = INTERVAL + TIMEOUT
AT_MOST = 6 * STATED  # on a machine that has other things to do

# -- a cable that can be pulled ------------------------------------------------------------------

SERVER, PEER = "192.0.2.1", "192.0.2.2"  # TEST-NET-1 (RFC 5737)

_libc = ctypes.CDLL(None, use_errno=True)


class Cable:
    """Between two network namespaces."""

    def __init__(self, ip: str, server: str, peer: str) -> None:
        self._ip = ip
        self.server, self.peer = server, peer

    def pull(self) -> None:
        run_ip(self._ip, "-n", self.peer, "link", "set", "eth0", "down")

    def plug_in(self) -> None:
        run_ip(self._ip, "-n", self.peer, "link", "set", "eth0", "up")


def run_ip(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture
def cable() -> Iterator[Cable]:
    ip = needs.program("ip", "iproute2")
    if os.geteuid() != 0:
        needs.unavailable("network namespaces need root")
    name = f"plainsocket-{os.getpid()}-{os.urandom(3).hex()}"
    server, peer = f"{name}-server", f"{name}-peer"
    with contextlib.ExitStack() as stack:
        try:
            for namespace in (server, peer):
                run_ip(ip, "netns", "add", namespace)
                stack.callback(run_ip, ip, "netns", "del", namespace)
            veth = ("type", "veth", "peer", "name", "eth0", "netns", peer)
            run_ip(ip, "-n", server, "link", "add", "eth0", *veth)
            # Dying sockets may keep a namespace alive for a while, but not the cable.
            stack.callback(run_ip, ip, "-n", server, "link", "del", "eth0")
            for namespace, address in ((server, SERVER), (peer, PEER)):
                with inside(namespace), open("/proc/sys/net/ipv4/tcp_orphan_retries", "w") as file:
                    file.write("1")  # what the tests leave dying dies within seconds
                run_ip(ip, "-n", namespace, "address", "add", f"{address}/30", "dev", "eth0")
                run_ip(ip, "-n", namespace, "link", "set", "eth0", "up")
        except subprocess.CalledProcessError as error:
            needs.unavailable(f"no network namespaces to be had: {error.stderr.strip()}")
        yield Cable(ip, server, peer)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Sockets that this thread makes in the block, and threads that it starts, are in there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        enter(there.fileno())
        try:
            yield
        finally:
            enter(home.fileno())


def enter(descriptor: int) -> None:
    clone_newnet = 0x40000000
    if _libc.setns(descriptor, clone_newnet):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Watched:
    """A handler that notes the last message's time, and how and when its connection ends."""

    def __init__(self, then: Callable[[plainsocket.WebSocket], object]) -> None:
        """`then` is called after each message."""
        self._then = then
        self.ws: Any = None
        self.heard = 0.0
        self.ended = threading.Event()
        self.ended_at = 0.0
        self.end: tuple[int | None, str] = (None, "")

    def __call__(self, ws: plainsocket.WebSocket) -> None:
        self.ws = ws
        try:
            while True:
                ws.receive()
                self.heard = time.monotonic()
                self._then(ws)
        except ConnectionClosed:
            self.end = (ws.close_code, ws.close_reason)
        finally:
            self.ended_at = time.monotonic()
            self.ended.set()


@contextlib.contextmanager
def served_by_cable(
    cable: Cable, handler: Callable[[plainsocket.WebSocket], object], **options: Any
) -> Iterator[tuple[Running, RawClient]]:
    """A server at one end of the cable, an open connection of a peer's at the other."""
    with contextlib.ExitStack() as stack:
        with inside(cable.server):
            options = {"ping_interval": INTERVAL, "ping_timeout": TIMEOUT, **options}
            server = stack.enter_context(serving(handler, host=SERVER, **options))
        with inside(cable.peer):
            client = stack.enter_context(RawClient(server.port, SERVER))
        client.open()
        yield server, client


def assert_found(watched: Watched, pulled: float) -> None:
    """It has been found dead: not before the stated time, and not long after it."""
    assert watched.ended.wait(AT_MOST), "not found"
    assert watched.end[0] == 1006
    assert "ping" in watched.end[1]
    assert watched.ended_at - watched.heard >= STATED
    assert watched.ended_at - pulled <= AT_MOST


def wait_idle(_ws: plainsocket.WebSocket) -> None:
    pass


def write_regularly(ws: plainsocket.WebSocket) -> None:
    while True:
        ws.send("tick")
        gevent.sleep(0.05)


def write_all_that_goes(ws: plainsocket.WebSocket) -> None:
    while True:
        ws.send(bytes(1 << 20))


def read_until_nothing_comes(client: RawClient) -> None:
    client.socket.settimeout(AT_MOST)
    with contextlib.suppress(OSError):
        while client.socket.recv(1 << 16):
            pass


@pytest.mark.parametrize(
    "doing", [wait_idle, write_regularly, write_all_that_goes], ids=lambda doing: doing.__name__
)
def test_a_peer_that_is_cut_off_is_found(
    cable: Cable, doing: Callable[[plainsocket.WebSocket], object]
) -> None:
    watched = Watched(doing)
    with served_by_cable(cable, watched) as (server, client):
        client.send_frame(Opcode.TEXT, b"begin")
        wait_until(lambda: watched.heard)
        reading = threading.Thread(target=read_until_nothing_comes, args=[client])
        reading.start()
        time.sleep(0.1)
        assert not watched.ended.is_set()
        cable.pull()
        assert_found(watched, time.monotonic())
        wait_until(lambda: not server.server.connections)
        client.socket.shutdown(socket.SHUT_RDWR)
        reading.join(PATIENCE)


def test_a_peer_that_is_cut_off_with_half_of_it_read_is_found(cable: Cable) -> None:
    watched = Watched(write_all_that_goes)
    with served_by_cable(cable, watched) as (server, client):
        client.send_frame(Opcode.TEXT, b"begin")
        client.receive_exactly(100_000)
        wait_until(lambda: watched.ws.buffered_amount)
        cable.pull()
        assert_found(watched, time.monotonic())
        wait_until(lambda: not server.server.connections)


def test_a_sender_that_waits_is_told_that_its_peer_is_dead(cable: Cable) -> None:
    """And so is everybody else who waits at that connection."""
    watched = Watched(wait_idle)
    ends: list[int] = []

    def until_the_end(call: Callable[[], object]) -> None:
        try:
            while True:
                with contextlib.suppress(TimeoutError):  # a ping's own time may be over first
                    call()
        except ConnectionClosed as closed:
            ends.append(closed.code)

    with served_by_cable(cable, watched, ping_timeout=2.0) as (server, client):
        client.send_frame(Opcode.TEXT, b"begin")
        wait_until(lambda: watched.heard)
        cable.pull()
        calls = [*[lambda: watched.ws.send(bytes(1 << 18))] * 3, watched.ws.ping]
        server.call(lambda: [gevent.spawn(until_the_end, call) for call in calls])
        wait_until(lambda: len(ends) == len(calls))
        assert watched.ended.wait(PATIENCE)
    assert ends == [1006] * len(calls)


@pytest.mark.slow
def test_a_peer_that_is_cut_off_while_we_do_not_read_is_found_when_we_do(cable: Cable) -> None:
    go_on = threading.Event()

    def pause(_ws: plainsocket.WebSocket) -> None:
        while not go_on.is_set():
            gevent.sleep(0.01)

    watched = Watched(pause)
    with served_by_cable(cable, watched) as (_server, client):
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            for _ in range(10_000):
                client.send_frame(Opcode.BINARY, bytes(10_000))
        cable.pull()
        time.sleep(1.5 * STATED)
        assert not watched.ended.is_set()
        go_on.set()
        assert_found(watched, time.monotonic())


def test_a_cable_that_is_pulled_for_a_moment_only_ends_nothing(cable: Cable) -> None:
    with served_by_cable(cable, echo, ping_timeout=8.0) as (_server, client):
        cable.pull()
        time.sleep(2 * INTERVAL)
        cable.plug_in()
        client.send_frame(Opcode.TEXT, b"back")
        opcodes = set()
        while (frame := client.receive_frame())[1] != b"back":
            opcodes.add(frame[0].opcode)
        assert opcodes <= {Opcode.PING}


# -- a line that is only slow --------------------------------------------------------------------


class SlowLine:
    """A proxy that passes on so many bytes a second each way, or each piece after so long."""

    PIECE = 8192

    def __init__(self, port: int, *, rate: float | None = None, delay: float = 0.0) -> None:
        self._target = port
        self._rate, self._delay = rate, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * self.PIECE)
        self._listener.settimeout(PATIENCE)
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/echo"
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> SlowLine:
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for end in [self._listener, *self._ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for end in [self._listener, *self._ends]:
            end.close()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return  # the test is over
        far = socket.socket()
        self._ends += [near, far]
        for end in (near, far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * self.PIECE)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * self.PIECE)
        far.connect(("127.0.0.1", self._target))
        self._start(self._pass_on, near, far)
        self._start(self._pass_on, far, near)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        due = time.monotonic()
        with contextlib.suppress(OSError):
            while piece := source.recv(self.PIECE):
                if self._rate is not None:
                    # By a clock, so that a sleep that was too long is made up for.
                    due = max(due, time.monotonic() - 0.1) + len(piece) / self._rate
                    time.sleep(max(0.0, due - time.monotonic()))
                time.sleep(self._delay)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


SIZE = 8 << 20  # bytes
RATE = 2_000_000.0  # bytes a second: some 4 s
SHORT: dict[str, Any] = {"ping_interval": 0.3, "ping_timeout": 0.7}  # seconds


def keep_until_told(ws: plainsocket.WebSocket) -> None:
    ws.send(bytes(SIZE))
    while ws.receive() != "got it":
        pass
    ws.send("good")


@pytest.mark.slow
def test_a_large_message_that_crawls_out_is_no_sign_of_death() -> None:
    with (
        serving(keep_until_told, **SHORT) as server,
        SlowLine(server.port, rate=RATE) as line,
        connect(line.url, max_size=None) as peer,
    ):
        start = time.monotonic()
        assert len(peer.recv(timeout=30)) == SIZE
        assert time.monotonic() - start > 3 * sum(SHORT.values())  # else nothing has been tested
        peer.send("got it")
        assert peer.recv(timeout=PATIENCE) == "good"


@pytest.mark.slow
def test_a_large_message_that_crawls_in_is_no_sign_of_death() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            ws.send(str(len(message)))

    with (
        serving(handler, max_message_size=SIZE, **SHORT) as server,
        SlowLine(server.port, rate=RATE) as line,
        connect(line.url) as peer,
    ):
        start = time.monotonic()
        peer.send(bytes(SIZE))
        peer.send("and this")
        assert peer.recv(timeout=30) == str(SIZE)
        assert time.monotonic() - start > 3 * sum(SHORT.values())  # else nothing has been tested
        assert peer.recv(timeout=PATIENCE) == "8"


@pytest.mark.slow
def test_our_own_pauses_are_no_sign_of_death() -> None:
    """The peer's pongs wait behind what we do not read; each pause is as long as both deadlines."""
    pauses = 5
    chunk = 64

    def handler(ws: plainsocket.WebSocket) -> None:
        expected = 0
        for _ in range(pauses):
            gevent.sleep(random.uniform(1.2, 2.0) * sum(SHORT.values()))
            for _ in range(chunk):
                assert int(ws.receive()) == expected
                expected += 1
        ws.send("all")
        ws.receive()

    with serving(handler, **SHORT) as server, connect(server.url()) as peer:
        for number in range(pauses * chunk):
            peer.send(f"{number:>20000}")
        assert peer.recv(timeout=2 * PATIENCE) == "all"


@pytest.mark.slow
def test_a_hub_that_was_busy_does_not_blame_a_peer_that_answered() -> None:
    """Its pong lies in the kernel when both of them, pong and deadline, are noticed."""

    working = threading.Event()

    def work(ws: plainsocket.WebSocket) -> None:
        for _ in ws:
            working.set()
            time.sleep(2 * sum(SHORT.values()))  # work that does not let the loop run
            ws.send("done")

    with (
        serving({"/echo": echo, "/work": work}, **SHORT) as server,
        connect(server.url("/work")) as worker,
        RawClient(server.port) as client,
    ):
        client.open()
        for _ in range(2):
            head, payload = client.receive_frame()
            assert head.opcode == Opcode.PING
            worker.send("work")
            assert working.wait(PATIENCE)
            working.clear()
            client.send_frame(Opcode.PONG, payload)
            assert worker.recv(timeout=PATIENCE) == "done"
            client.send_frame(Opcode.TEXT, b"still there?")
            while (payload := client.receive_frame()[1]) != b"still there?":
                assert len(payload) == 8, "closed"


# -- round trips ---------------------------------------------------------------------------------

DELAY = 0.1  # seconds, each way


def test_ping_returns_the_round_trip_and_latency_keeps_it() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        assert ws.latency is None
        took = [ws.ping() for _ in range(3)]
        ws.send(f"{min(took)} {max(took)} {took[-1] == ws.latency}")

    with (
        serving(handler, ping_interval=None) as server,
        SlowLine(server.port, delay=DELAY) as line,
        connect(line.url) as peer,
    ):
        shortest, longest, is_kept = str(peer.recv(timeout=PATIENCE)).split()
    assert 2 * DELAY <= float(shortest) <= float(longest) < PATIENCE
    assert is_kept == "True"


def test_pings_of_many_at_once_each_get_their_own_answer() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        greenlets = []
        for _ in range(20):
            greenlets.append(gevent.spawn(ws.ping))
            gevent.sleep(0.005)
        times = [greenlet.get() for greenlet in greenlets]
        ws.send(f"{len(times)} {min(times)}")

    with (
        serving(handler, ping_interval=None) as server,
        SlowLine(server.port, delay=DELAY) as line,
        connect(line.url) as peer,
    ):
        count, shortest = str(peer.recv(timeout=PATIENCE)).split()
    assert int(count) == 20
    assert float(shortest) >= DELAY  # of several in one piece the last waits one way only


def test_keepalive_sets_latency() -> None:
    with (
        serving(ping_interval=1.0, ping_timeout=PATIENCE) as server,
        SlowLine(server.port, delay=DELAY) as line,
        connect(line.url) as peer,
    ):
        wait_until(lambda: server.server.connections)
        latencies: list[float] = []

        def look() -> bool:
            latencies.extend(ws.latency for ws in server.server.connections if ws.latency)
            return bool(latencies)

        assert not look()
        wait_until(look)
        assert 2 * DELAY <= latencies[0] < PATIENCE
        peer.send("x")
        assert peer.recv(timeout=PATIENCE) == "x"


# -- many ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_peers_that_answer_stay_and_the_one_that_does_not_goes() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(ping_interval=0.2, ping_timeout=3.0))
        peers = [stack.enter_context(connect(server.url())) for _ in range(10)]
        with RawClient(server.port) as silent:
            silent.open()
            for _ in range(4):  # as long as it answers, it stays
                head, payload = silent.receive_frame()
                assert head.opcode == Opcode.PING
                silent.send_frame(Opcode.PONG, payload)
            silent.receive_rest()
        for peer in peers:
            peer.send("x")
            assert peer.recv(timeout=PATIENCE) == "x"

        def close_all() -> None:
            for ws in server.server.connections:
                ws.close(4000)

        server.call(close_all)
        for peer in peers:
            with pytest.raises(PeerClosed):
                peer.recv(timeout=PATIENCE)
            assert peer.close_code == 4000


class Silent(Endpoint):
    pass


@pytest.mark.parametrize("handler", [echo, Silent], ids=["handler", "endpoint"])
def test_a_thousand_idle_connections_share_one_timer(handler: Any) -> None:
    count = 1000

    def watchers() -> int:
        return int(gevent.get_hub().loop.activecnt)

    def timed() -> int:
        return sum(len(entries) for entries in TimerWheel.of_hub()._slots.values())

    with serving(handler, ping_interval=60.0) as server, contextlib.ExitStack() as stack:
        before = server.call(watchers)
        clients = []
        for _ in range(count):
            client = stack.enter_context(RawClient(server.port))
            client.open()
            clients.append(client)
        wait_until(lambda: len(server.server.connections) == count)
        # One for reading each, and a few of the server's own.
        wait_until(lambda: count <= server.call(watchers) - before < count + 20)
        assert server.call(timed) == count
        for client in clients:
            client.socket.close()
        wait_until(lambda: not server.server.connections)
        wait_until(lambda: server.call(watchers) - before < 20)
        assert server.call(timed) == 0
