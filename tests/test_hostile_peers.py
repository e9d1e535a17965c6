"""Peers that mean harm, against a server in a process of its own: what they can cost is bounded,
and the connection of somebody else beside them goes on.

The figures are printed: `pytest -rP tests/test_hostile_peers.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import needs
from hostile_server import FILES
from plainsocket.frames import Opcode, header
from processes import ROOT, Program, running
from rawclient import TIMEOUT, RawClient, frame
from serving import wait_until

pytestmark = pytest.mark.slow

MB = 1 << 20
LINE = r"(INFO|WARNING) 127\.0\.0\.\d+:\d+: "  # how every line about a peer begins
ENDED = LINE + r"'/\w+' after [0-9.]+ s, .* closed with "


class Server:
    """The server's process, seen from outside."""

    def __init__(self, program: Program, port: int, pid: int) -> None:
        self.program = program
        self.port = port
        self._pid = pid
        self._reports = 0

    def cpu(self) -> float:
        """Seconds of CPU time used so far."""
        path = Path(f"/proc/{self._pid}/schedstat")  # finer than stat
        return int(path.read_text().split()[0]) / 1e9

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text()
        match = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024

    def start_memory(self) -> int:
        """Forget the peak so far; return what is in use."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def peak_memory(self) -> int:
        """The most that was in use since `start_memory`."""
        return self._memory("VmHWM")

    def files(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    def state(self) -> dict[str, Any]:
        self._reports += 1
        os.kill(self._pid, signal.SIGUSR1)
        line = self.program.wait_for(rf"^state {self._reports} (.*)$")
        state: dict[str, Any] = json.loads(line[1])
        return state

    def what_is_left(self) -> tuple[int, int]:
        """How many connections there are, and WebSocket objects, once those just closed are gone.

        Not so long that the garbage collector would have freed what nobody else did.
        """
        wait_until(lambda: self.state()["connections"] == 1)
        for _ in range(10):
            state = self.state()
            if state["websockets"] == 1:
                break
            time.sleep(0.05)
        return state["connections"], state["websockets"]

    def log(self) -> list[str]:
        """What it has logged about peers."""
        lines = self.program.output.splitlines()
        return [
            line
            for line in lines
            if not re.match(r"state \d|serving on port |INFO listening on ", line)
        ]


class Healthy(threading.Thread):
    """Somebody else's connection: small messages to and fro for as long as the attack lasts."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._client = RawClient(port)
        try:
            self._client.open()
        except BaseException:
            self._client.socket.close()
            raise
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._times: list[float] = []
        self.start()

    def run(self) -> None:
        try:
            while not self._over.wait(0.01):
                self._echo()
        except BaseException as error:  # noqa: BLE001 - raised by finish
            self._error = error

    def _echo(self) -> None:
        sent = os.urandom(20)
        start = time.monotonic()
        self._client.send_frame(Opcode.BINARY, sent)
        head, received = self._client.receive_frame()
        self._times.append(time.monotonic() - start)
        assert (head.opcode, received) == (Opcode.BINARY, sent)

    def stop(self) -> None:
        self._over.set()
        self.join(2 * TIMEOUT)
        assert not self.is_alive()

    def close(self) -> None:
        self.stop()
        self._client.socket.close()

    def finish(self) -> str:
        """Stop; raise what went wrong; return the figures."""
        self.stop()
        if self._error is not None:
            raise self._error
        self._echo()
        times = sorted(self._times)
        median, p99 = statistics.median(times), times[len(times) * 99 // 100]
        self._client.send_frame(Opcode.CLOSE, struct.pack("!H", 1000))
        assert self._client.receive_close()[0] == 1000
        return (
            f"{len(times)} echoes, median {median * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, "
            f"longest {times[-1] * 1000:.1f} ms"
        )


@contextmanager
def attacked(
    *expected: str, cpu: float | None = None, memory: int | None = None, **options: Any
) -> Iterator[Server]:
    """A server, to be attacked in the block, with a healthy connection beside.

    After the block, with which all the attackers are gone, it has nothing left of them, and its
    log has nothing but the `expected` lines (patterns). `cpu` and `memory` are what the attack
    may cost it at most, in seconds and bytes; without `cpu` it is measured elsewhere.
    """
    program = [sys.executable, str(ROOT / "tests" / "hostile_server.py"), json.dumps(options)]
    with running(*program) as child, ExitStack() as stack:
        line = child.wait_for(r"^serving on port (\d+) in process (\d+)$")
        server = Server(child, int(line[1]), int(line[2]))
        with RawClient(server.port) as first:  # so that what is made once is there
            first.open()
            first.send_frame(Opcode.CLOSE, struct.pack("!H", 1000))
            first.receive_rest()
        healthy = stack.enter_context(closing(Healthy(server.port)))
        wait_until(lambda: server.state()["connections"] == 1)
        files, memory_before, cpu_before = server.files(), server.start_memory(), server.cpu()
        yield server
        wait_until(lambda: server.files() <= files)
        spent, grown = server.cpu() - cpu_before, server.peak_memory() - memory_before
        left = server.what_is_left()
        figures = healthy.finish()
        print(f"\nserver: {spent:.2f} s of CPU, {grown / MB:.1f} MB of memory; beside: {figures}")
        assert server.files() <= files
        assert left == (1, 1)
        assert child.interrupt() == 0
        allowed = re.compile("|".join([ENDED + "1000 ''", *expected]))
        assert [line for line in server.log() if not allowed.match(line)] == []
        assert cpu is None or spent < cpu
        assert memory is None or grown < memory


def connect(port: int, number: int = 0) -> socket.socket:
    """Connect from the address of attacker `number`."""
    sock = socket.socket()
    sock.settimeout(TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Or the port would be chosen before the other end is known, and soon none would be left.
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((f"127.0.0.{number % 250 + 2}", 0))
    sock.connect(("127.0.0.1", port))
    return sock


_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python has no name for it


class Attacker(RawClient):
    """A RawClient from another address than the healthy one's."""

    def __init__(self, port: int, number: int = 0) -> None:
        self.host, self.port = "127.0.0.1", port
        self.socket = connect(port, number)
        self._received = bytearray()

    def __enter__(self) -> Attacker:
        return self

    def reset(self) -> None:
        """Leave by an RST."""
        reset(self.socket)

    def end_sending(self) -> None:
        """Half-close, unless the server has been quicker to end it all."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def receive_response(self) -> tuple[int, bytes]:
        """All that comes until the server ends the connection: its status, and all the bytes."""
        received = self.receive_rest()
        match = re.match(rb"HTTP/1\.1 (\d\d\d) ", received)
        assert match is not None, received
        return int(match[1]), received


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def ended_by_server(sock: socket.socket) -> bool:
    """Whether the server has ended a connection; reads what is there."""
    sock.setblocking(False)
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def send_while_taken(sock: socket.socket, data: bytes, limit: int) -> int:
    """Send `data` again and again, until `limit` bytes are gone, nothing more is taken for half a
    second, or the connection is over; return how many went."""
    sock.settimeout(0.5)
    sent = 0
    view = memoryview(data)
    position = 0
    with suppress(OSError):
        while sent < limit:
            taken = sock.send(view[position:])
            sent += taken
            position = (position + taken) % len(data)
    return sent


# -- connections that never become anything ------------------------------------------------------


@pytest.mark.slow
def test_slow_heads() -> None:
    """Each byte is a sign of life; only the deadline of the whole head ends this."""
    count = 400
    with (
        attacked(
            LINE + "408, ", ENDED + "1006 ", handshake_timeout=3.0, cpu=3.0, memory=40 * MB
        ) as server,
        ExitStack() as stack,
    ):
        heads = [UPGRADE, b"POST / HTTP/1.1\r\nX: y\r\n", b"\r\nGE"]
        start = time.monotonic()
        slow = [stack.enter_context(connect(server.port, i)) for i in range(count)]
        for second in range(20):
            for number, sock in enumerate(slow):
                with suppress(OSError):
                    sock.send(heads[number % len(heads)][second : second + 1])
            time.sleep(1 / 4 if second < 4 else 1)
            if all(map(ended_by_server, slow)):
                break
        assert time.monotonic() - start < 3.0 + TIMEOUT
        assert all(map(ended_by_server, slow))
        with Attacker(server.port) as late:
            late.open()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open as many files as 10,000 connections take; the server does the same."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        except (OSError, ValueError):
            needs.unavailable(f"the limit of open files is {hard} and can't be raised to {FILES}")
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
def test_ten_thousand_half_open_handshakes() -> None:
    """A stated price each: 40 KB, most of it pywsgi's buffer and greenlet, and 1 ms."""
    count = 10_000
    with (
        attacked(handshake_timeout=100.0, cpu=count * 0.001, memory=count * 40_000) as server,
        ExitStack() as stack,
    ):
        start = time.monotonic()
        half_open = []
        for number in range(count):
            half_open.append(connect(server.port, number))
            stack.callback(reset, half_open[-1])
            if number % 2:
                half_open[-1].send(b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: webso")
        print(f"\n{count} half-open handshakes after {time.monotonic() - start:.1f} s")
        wait_until(lambda: server.files() > count)
        start = time.monotonic()
        with Attacker(server.port) as late:
            late.open()
            late.send_frame(Opcode.TEXT, b"quit")
            assert late.receive_close()[0] == 1000
            late.send_frame(Opcode.CLOSE, struct.pack("!H", 1000))
            late.receive_rest()
        print(f"a new connection beside them: {(time.monotonic() - start) * 1000:.1f} ms")


def test_a_flood_over_max_connections_gets_503() -> None:
    refused = LINE + "503, there are 20 connections"
    with (
        attacked(
            refused, ENDED + "100[056] ", max_connections=20, cpu=3.0, memory=10 * MB
        ) as server,
        ExitStack() as stack,
    ):
        holders = [stack.enter_context(Attacker(server.port, i)) for i in range(19)]
        for holder in holders:
            holder.open()
        for number in range(300):
            with Attacker(server.port, number) as flood:
                if number % 3:
                    with suppress(OSError):
                        flood.send(flood.request())
                status, response = flood.receive_response()
                assert status == 503
                assert b"\r\nRetry-After: " in response
        for number in range(300):
            reset(connect(server.port, number))
        at_once = [connect(server.port, number) for number in range(300)]
        for sock in at_once:
            sock.close()
        holders[0].send_frame(Opcode.CLOSE)
        holders[0].receive_rest()
        start = time.monotonic()
        wait_until(lambda: server.state()["connections"] == 19)  # the healthy one counts too
        with Attacker(server.port) as next_one:
            next_one.open()
        print(f"\nrecovered after {(time.monotonic() - start) * 1000:.0f} ms")
        assert time.monotonic() - start < TIMEOUT


def test_a_flood_from_one_address_gets_429() -> None:
    refused = LINE + "'/echo' refused with 429: "
    with (
        attacked(
            refused, ENDED + "100[056] ", max_connections_per_address=3, cpu=2.0, memory=10 * MB
        ) as server,
        ExitStack() as stack,
    ):
        holders = [stack.enter_context(Attacker(server.port)) for _ in range(3)]
        for holder in holders:
            holder.open()
        for _ in range(200):
            with Attacker(server.port) as flood:
                flood.send(flood.request())
                assert flood.receive_response()[0] == 429
        with Attacker(server.port, 1) as other:
            other.open()
        for holder in holders:
            holder.send_frame(Opcode.CLOSE)
            holder.receive_rest()
        start = time.monotonic()
        with Attacker(server.port) as next_one:
            next_one.open()
        assert time.monotonic() - start < TIMEOUT


def test_handshakes_at_the_same_time_do_not_pass_the_limit_of_an_address() -> None:
    """`process_request` may wait: whoever is counted only after it slips through with others."""
    refused = LINE + "'/echo' refused with 429: "
    with (
        attacked(
            refused, ENDED + "1006 ", max_connections_per_address=3, handshake_delay=0.3
        ) as server,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(Attacker(server.port)) for _ in range(20)]
        for client in clients:
            client.send(client.request())
        statuses = [client.receive_head().split()[1] for client in clients]
        assert sorted(statuses) == ["101"] * 3 + ["429"] * 17


# -- WebSockets that are hard to serve -----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/echo", "/endpoint"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(Opcode.PING, bytes(125)) * 500, id="pings"),
        pytest.param(frame(Opcode.PING) * 5000, id="empty pings"),
        pytest.param(frame(Opcode.TEXT) * 5000, id="empty messages"),
        pytest.param(frame(Opcode.BINARY, bytes(1000)) * 60, id="messages"),
        pytest.param(
            (frame(Opcode.PING, b"x") + frame(Opcode.BINARY, bytes(5000))) * 12, id="both"
        ),
    ],
)
def test_a_peer_that_talks_and_never_reads(path: str, data: bytes) -> None:
    frames = data.count(b"\x89") + data.count(b"\x81") + data.count(b"\x82")
    limit = min(20 * MB, 200_000 * len(data) // frames)
    with (
        attacked(ENDED + "1006 ", cpu=6.0, memory=10 * MB) as server,
        Attacker(server.port) as client,
    ):
        client.open(path)
        sent = send_while_taken(client.socket, data, limit)
        print(f"\n{sent / MB:.1f} MB taken")
        client.reset()


@pytest.mark.slow
def test_a_peer_that_fills_a_handler_that_does_not_receive() -> None:
    """And is then gone, which keepalive finds although nothing is read from it any more."""
    with (
        attacked(
            ENDED + "1006 ", cpu=2.0, memory=20 * MB, ping_interval=1.0, ping_timeout=1.0
        ) as server,
        ExitStack() as stack,
    ):
        # The kernel holds some MB of each besides, which are not the process's.
        for number in range(50):
            client = stack.enter_context(Attacker(server.port, number))
            client.open("/deaf")
            client.socket.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    client.socket.send(frame(Opcode.BINARY, bytes(1000)) * 60)
            stack.callback(client.reset)
        time.sleep(0.5)


def test_promised_payloads_cost_nothing_before_they_come() -> None:
    with (
        attacked(ENDED + "1006 ", cpu=2.0, memory=10 * MB) as server,
        ExitStack() as stack,
    ):
        for number in range(200):
            client = stack.enter_context(Attacker(server.port, number))
            client.open()
            client.send(header(Opcode.BINARY, 1 << 20, key=b"abcd") + b"x")
        time.sleep(0.5)


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "one byte"])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_fragments_without_end_get_1008(opcode: Opcode, payload: bytes) -> None:
    with (
        attacked(ENDED + "1008 ", cpu=5.0, memory=3 * MB) as server,
        Attacker(server.port) as client,
    ):
        client.open()
        client.send_frame(opcode, payload, fin=False)
        more = frame(Opcode.CONTINUATION, payload, fin=False) * 1000
        closed: list[int] = []
        reader = threading.Thread(target=lambda: closed.append(client.receive_close()[0]))
        reader.start()
        start = time.monotonic()
        while reader.is_alive():
            assert time.monotonic() - start < TIMEOUT
            client.send(more)
        assert closed == [1008]
        client.reset()


def test_bytes_that_come_one_by_one() -> None:
    """A system call and a turn of the loop each, which others get as well."""
    with (
        attacked(ENDED + "1000 ", cpu=8.0, memory=3 * MB) as server,
        Attacker(server.port) as client,
    ):
        client.open()
        text = "é" * 3000
        data = frame(Opcode.TEXT, text.encode()) + frame(Opcode.PING, b"x" * 125) * 100
        for byte in data:
            client.socket.send(bytes([byte]))
        while (received := client.receive_frame())[0].opcode == Opcode.PONG:
            pass  # a control frame goes before a message that is not on its way
        assert received[1].decode() == text
        client.send_frame(Opcode.CLOSE, struct.pack("!H", 1000))
        assert client.receive_close()[0] == 1000


def closes(how: str, client: Attacker) -> None:
    """Have the server send its close frame."""
    client.open()
    if how == "failed":
        client.send_frame(0x3)
        assert client.receive_close()[0] == 1002
    else:
        client.send_frame(Opcode.TEXT, b"quit")
        assert client.receive_close()[0] == 1000


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "failed"])
@pytest.mark.parametrize("then", ["silent", "chatty"])
def test_a_close_that_is_never_answered(how: str, then: str) -> None:
    """Neither silence nor talk keeps a connection beyond the `close_timeout`."""
    count = 100
    code = "1002 " if how == "failed" else "1006 "
    with (
        attacked(ENDED + code, close_timeout=1.0, cpu=4.0, memory=10 * MB) as server,
        ExitStack() as stack,
    ):
        files = server.files()
        clients = [stack.enter_context(Attacker(server.port, i)) for i in range(count)]
        for client in clients:
            closes(how, client)
        start = time.monotonic()
        while server.files() > files:
            assert time.monotonic() - start < 1.0 + TIMEOUT
            for client in clients:
                if then == "chatty":
                    with suppress(OSError):
                        client.send_frame(Opcode.TEXT, b"what?")
            time.sleep(0.05)
        assert time.monotonic() - start > 0.5


# -- RST at every stage --------------------------------------------------------------------------

UPGRADE = (
    b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

STAGES: dict[str, tuple[str | None, bytes]] = {
    # The path of the WebSocket to open, and what is sent then.
    "before the head": (None, b""),
    "in the head": (None, b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgr"),
    "behind an ordinary request": (None, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"),
    "behind a bad request": (None, b"GET /x HTTP/1.1\r\n\r\n"),
    "in a body": (None, b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbegun"),
    "in a chunk": (
        None,
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbe",
    ),
    "in a chunk's head": (
        None,
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5",
    ),
    "behind the request": (None, UPGRADE + b"\r\n"),
    "behind the request and a message": (None, UPGRADE + b"\r\n" + frame(Opcode.TEXT, b"abc")),
    "behind the 101": ("/echo", b""),
    "behind the 101 of an Endpoint": ("/endpoint", b""),
    "in a frame's head": ("/echo", b"\x81"),
    "in a frame": ("/echo", frame(Opcode.TEXT, b"abc")[:-1]),
    "in a message": ("/echo", frame(Opcode.TEXT, b"abc", fin=False)),
    "behind messages": ("/echo", frame(Opcode.BINARY, bytes(10_000)) * 20),
    "behind messages for an Endpoint": ("/endpoint", frame(Opcode.BINARY, bytes(10_000)) * 20),
    "behind a bad frame": ("/echo", frame(0x3)),
    "behind a bad frame for an Endpoint": ("/endpoint", frame(0x3)),
    "behind the close frame": ("/echo", frame(Opcode.CLOSE)),
    "behind the close frame for an Endpoint": ("/endpoint", frame(Opcode.CLOSE)),
    "behind the server's close frame": ("/echo", frame(Opcode.TEXT, b"quit")),
    "behind the server's failing": ("/echo", frame(0x3)),
}


@pytest.mark.parametrize("stage", STAGES)
def test_reset(stage: str) -> None:
    """At most the one line, and nothing is left."""
    count = 20
    with attacked(ENDED + "100[0256] ", LINE + "400 ", cpu=2.0) as server:
        before = len(server.log())
        for number in range(count):
            with Attacker(server.port, number) as client:
                path, data = STAGES[stage]
                if path is not None:
                    client.open(path)
                client.send(data)
                if "the server's" in stage:
                    client.receive_close()
                elif number % 2:
                    time.sleep(0.005)  # the other half comes with the bytes before
                client.reset()
        wait_until(lambda: server.state()["connections"] == 1)
        assert len(server.log()) - before <= count


# -- requests that two programs could understand in different ways --------------------------------

NEXT = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def post(lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /app HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n" + body


def get(target: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\nHost: x\r\n\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b"5\r\nhello\r\n0\r\n\r\n"
BAD_REQUESTS: list[tuple[str, bytes, int]] = [
    # how long it is
    ("two lengths", post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"), 400),
    ("two equal lengths", post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), 400),
    ("list of lengths", post(b"Content-Length: 5, 5\r\n", b"hello"), 400),
    ("length +5", post(b"Content-Length: +5\r\n", b"hello"), 400),
    ("length -1", post(b"Content-Length: -1\r\n"), 400),
    ("length 0x5", post(b"Content-Length: 0x5\r\n", b"hello"), 400),
    ("length 1_0", post(b"Content-Length: 1_0\r\n", b"hello"), 400),
    ("length 5 in Latin-1 digits", post(b"Content-Length: \xb2\r\n", b"he"), 400),
    ("empty length", post(b"Content-Length:\r\n"), 400),
    ("length in words", post(b"Content-Length: five\r\n"), 400),
    ("length of 30 digits", post(b"Content-Length: " + b"9" * 30 + b"\r\n"), 413),
    ("length of 9000 digits", post(b"Content-Length: " + b"9" * 9000 + b"\r\n"), 413),
    ("length and chunked", post(b"Content-Length: 5\r\n" + CHUNKED, BODY), 400),
    ("chunked and length", post(CHUNKED + b"Content-Length: 5\r\n", BODY), 400),
    ("chunked twice", post(CHUNKED * 2, BODY), 400),
    ("chunked, then identity", post(b"Transfer-Encoding: chunked, identity\r\n", BODY), 400),
    ("identity", post(b"Transfer-Encoding: identity\r\n"), 501),
    ("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", BODY), 501),
    ("xchunked", post(b"Transfer-Encoding: xchunked\r\n", BODY), 501),
    ("'chunked'", post(b'Transfer-Encoding: "chunked"\r\n', BODY), 501),
    ("chunked behind a no-break space", post(b"Transfer-Encoding: \xa0chunked\r\n", BODY), 501),
    ("chunked behind a vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n", BODY), 400),
    ("chunked in HTTP/1.0", b"POST /app HTTP/1.0\r\nHost: x\r\n" + CHUNKED + b"\r\n" + BODY, 400),
    # chunks
    ("chunk of size 0x5", post(CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk of size +5", post(CHUNKED, b"+5\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk of size 5 and a space", post(CHUNKED, b"5 \r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk of no size", post(CHUNKED, b"\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk of nothing but an extension", post(CHUNKED, b";a=b\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk of 2**64 bytes", post(CHUNKED, b"1" + b"0" * 16 + b"\r\nhello"), 400),
    ("chunk too short", post(CHUNKED, b"3\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk size with LF alone", post(CHUNKED, b"5\nhello\r\n0\r\n\r\n"), 400),
    ("chunk with LF alone behind it", post(CHUNKED, b"5\r\nhello\n0\r\n\r\n"), 400),
    ("chunk extension with LF", post(CHUNKED, b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400),
    ("trailer with a space", post(CHUNKED, b"0\r\nA : b\r\n\r\n"), 400),
    # upgrades
    ("upgrade with a body", UPGRADE + b"Content-Length: 5\r\n\r\nhello", 400),
    (
        "upgrade with a request as its body",
        UPGRADE + b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT,
        400,
    ),
    ("upgrade with chunks", UPGRADE + CHUNKED + b"\r\n" + BODY, 400),
    ("upgrade from elsewhere", UPGRADE + b"Origin: http://evil.example\r\n\r\n", 403),
    ("upgrade by HTTP/1.0", (UPGRADE + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    ("upgrade by POST", (UPGRADE + b"\r\n").replace(b"GET", b"POST"), 405),
    # targets
    ("no slash", get(b"echo"), 400),
    ("star", get(b"*"), 400),
    ("fragment", get(b"/app#x"), 400),
    ("ftp", get(b"ftp://x/app"), 400),
    ("URL without a host", get(b"http:///app"), 400),
    ("URL with a user", get(b"http://user@x/app"), 400),
    ("URL with two hosts", get(b"http://x,y/app"), 400),
    ("URL with port 99999", get(b"http://x:99999/app"), 400),
    ("CONNECT", b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("space", get(b"/a b"), 400),
    ("tab", get(b"/a\tb"), 400),
    ("NUL", get(b"/a\0b"), 400),
    ("bare CR", get(b"/a\rb"), 400),
    ("no ASCII", get("/é".encode()), 400),
    ("long target", get(b"/" + b"a" * 17_000), 414),
    # request lines
    ("HTTP/0.9", b"GET /app\r\n\r\n", 400),
    ("HTTP/1.2", get(b"/app", b"HTTP/1.2"), 505),
    ("HTTP/2.0", get(b"/app", b"HTTP/2.0"), 505),
    ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/1.10", get(b"/app", b"HTTP/1.10"), 400),
    ("http/1.1", get(b"/app", b"http/1.1"), 400),
    ("HTTP/01.1", get(b"/app", b"HTTP/01.1"), 400),
    ("two spaces", b"GET  /app HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("tabs", b"GET\t/app\tHTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("space first", b" GET /app HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("space last", b"GET /app HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    ("method in parentheses", b"G(T /app HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("empty lines first", b"\r\n\r\n" + get(b"/app"), 400),
    ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
    # headers
    ("folded", post(b"X: a\r\n b\r\n"), 400),
    ("folded length", post(b"Content-Length:\r\n 5\r\n", b"hello"), 400),
    ("folded first line", b"GET /app HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    ("space before the colon", post(b"Content-Length : 5\r\n", b"hello"), 400),
    ("tab before the colon", post(b"Transfer-Encoding\t: chunked\r\n", BODY), 400),
    ("no colon", post(b"Content-Length 5\r\n", b"hello"), 400),
    ("no name", post(b": x\r\n"), 400),
    ("NUL in a name", post(b"Content-Length\0: 5\r\n", b"hello"), 400),
    ("NUL in a value", post(b"X: a\0b\r\n"), 400),
    ("bare CR in a value", post(b"X: a\rContent-Length: 5\r\n", b"hello"), 400),
    ("bare LF in a value", post(b"X: a\nContent-Length: 5\r\n", b"hello"), 400),
    ("LF alone", post(b"Content-Length: 5\r\n", b"hello").replace(b"\r\n", b"\n"), 400),
    ("LF alone at the head's end", b"GET /app HTTP/1.1\r\nHost: x\n\n", 400),
    ("LF alone in the empty line", b"GET /app HTTP/1.1\r\nHost: x\r\n\n", 400),
    ("no Host", b"GET /app HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", post(b"Host: y\r\n"), 400),
    ("two equal Hosts", post(b"Host: x\r\n"), 400),
    ("Host with a path", b"GET /app HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    ("Host with a user", b"GET /app HTTP/1.1\r\nHost: u@x\r\n\r\n", 400),
    ("large head", post(b"X: " + b"a" * 17_000 + b"\r\n"), 431),
    ("large head in small headers", post(b"X: a\r\n" * 4000), 431),
    ("many headers", post(b"X: a\r\n" * 101), 431),
]


@pytest.fixture(scope="module")
def server_for_requests() -> Iterator[Server]:
    with attacked(
        LINE + "(400|413|414|431|501|505) ",
        LINE + r"'/\w+' refused with 40[035]: ",
        LINE + ".*Invalid request",
        ENDED + "1002 ",
        cpu=5.0,
        memory=10 * MB,
        handshake_timeout=3.0,
    ) as server:
        yield server


def executed(server: Server) -> list[str]:
    """The requests that the application was called with, so far."""
    requests: list[str] = server.state()["executed"]
    return requests


@pytest.mark.parametrize(
    ("request_", "status"),
    [pytest.param(bad, status, id=name) for name, bad, status in BAD_REQUESTS],
)
def test_a_bad_request_is_the_last_one(
    server_for_requests: Server, request_: bytes, status: int
) -> None:
    """It is answered once, the connection is closed, and of what stands behind it nothing runs."""
    server = server_for_requests
    before, executed_before = len(server.log()), executed(server)
    with Attacker(server.port) as client:
        client.send(request_ + NEXT)
        client.end_sending()
        got, response = client.receive_response()
    assert "GET /smuggled" not in executed(server)[len(executed_before) :]
    assert got == status
    assert len(re.findall(rb"HTTP/1\.1 \d\d\d ", response)) == 1
    assert re.search(rb"\r\nconnection: close\r\n", response, re.IGNORECASE)
    wait_until(lambda: len(server.log()) > before)
    assert len(server.log()) == before + 1


BROKEN_BODIES = [
    b"x",
    b"x\r\nhello\r\n",
    b"5\r\nhello, world\r\n",
    b"\r\n",
    b"5;\n\r\nhello\r\n",
    b"0\r\nA : b\r\n\r\n",
    b"11111111111111111\r\n",
]


@pytest.mark.parametrize("body", BROKEN_BODIES)
def test_a_broken_body_is_the_end_even_where_the_application_does_not_mind(
    server_for_requests: Server, body: bytes
) -> None:
    """Where the next request begins nobody knows, so what looks like one must not run."""
    server = server_for_requests
    before = len(executed(server))
    bad = post(CHUNKED, body).replace(b"/app", b"/careless")
    with Attacker(server.port) as client:
        client.send(bad + b"0\r\n\r\n" + NEXT)
        client.end_sending()
        client.receive_response()
    assert executed(server)[before:] == ["POST /careless"]


def test_good_requests_in_a_row_are_all_served(server_for_requests: Server) -> None:
    """Else the test above would see no request being executed."""
    server = server_for_requests
    good = [
        post(b"Content-Length: 5\r\n", b"hello"),
        post(CHUNKED, b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n"),
        b"\r\n" + get(b"/absolute").replace(b"/absolute", b"http://y:80/absolute?a"),
        get(b"//x/double"),
        get(b"/%2e%00"),
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    before = len(executed(server))
    with Attacker(server.port) as client:
        client.send(b"".join(good) + NEXT)
        _, response = client.receive_response()
    assert response.count(b"HTTP/1.1 200 OK\r\n") == 6
    assert executed(server)[before:] == [
        "POST /app",
        "POST /app",
        "GET /absolute",
        "GET //x/double",
        "GET /.\0",
        "OPTIONS *",
    ]


def test_a_request_behind_an_upgrade_is_not_http(server_for_requests: Server) -> None:
    server = server_for_requests
    before = len(executed(server))
    with Attacker(server.port) as client:
        client.send(UPGRADE + b"\r\n" + NEXT)
        assert client.receive_head().startswith("HTTP/1.1 101 ")
        assert client.receive_close()[0] == 1002
        client.end_sending()
        assert client.receive_rest() == b""
    assert executed(server)[before:] == []


def test_an_upgrade_for_the_application_takes_nothing_of_the_next_request(
    server_for_requests: Server,
) -> None:
    """No WebSocket is served at its path: it is an ordinary request, with an ordinary body."""
    server = server_for_requests
    before = len(executed(server))
    body = b"x" * len(NEXT)
    lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: %d\r\n" % len(body)
    with Attacker(server.port) as client:
        client.send(post(lines, body) + get(b"/first") + get(b"/second"))
        client.end_sending()
        client.receive_rest()
    # Or it is refused, with all behind it.
    assert executed(server)[before:] in (
        ["POST /app", "GET /first", "GET /second"],
        ["POST /app"],
        [],
    )


# -- no input costs more than time linear in its size ---------------------------------------------

BIG: dict[str, Any] = {
    "max_head_size": 64 * MB,
    "max_headers": 1_000_000,
    "max_message_size": 64 * MB,
    "max_fragments": 10_000_000,
    "trusted_proxies": ["127.0.0.0/8"],
    "handshake_timeout": 60.0,
}


def heads(line: Callable[[int], bytes]) -> Callable[[Server, int], None]:
    """A handshake with a line of a size."""

    def attack(server: Server, size: int) -> None:
        with Attacker(server.port) as client:
            client.send(UPGRADE + line(size) + b"\r\n")
            client.end_sending()
            client.receive_rest()

    return attack


def long_target(server: Server, size: int) -> None:
    with Attacker(server.port) as client:
        client.send((UPGRADE + b"\r\n").replace(b"/echo", b"/%41" * (size // 4)))
        client.receive_response()


def long_host(server: Server, size: int) -> None:
    with Attacker(server.port) as client:
        client.send((UPGRADE + b"\r\n").replace(b"127.0.0.1", b"a.%41" * (size // 5)))
        client.receive_head()


def send_in_pieces(sock: socket.socket, piece: bytes, count: int) -> None:
    """Slowly enough for each to be read by itself."""
    for _ in range(count):
        sock.send(piece)
        time.sleep(0.0002)


def head_in_pieces(server: Server, count: int) -> None:
    with Attacker(server.port) as client:
        client.send(UPGRADE)
        send_in_pieces(client.socket, b"a:\r\n" * 30, count)
        client.end_sending()
        client.receive_rest()


def frames(data: Callable[[int], bytes]) -> Callable[[Server, int], None]:
    """What is sent on a WebSocket, before a close frame."""

    def attack(server: Server, size: int) -> None:
        with Attacker(server.port) as client:
            client.open("/sink")
            client.send(data(size) + frame(Opcode.CLOSE, struct.pack("!H", 1000)))
            assert client.receive_close()[0] == 1000
            client.receive_rest()

    return attack


def fragments(opcode: Opcode, payload: bytes) -> Callable[[int], bytes]:
    def data(count: int) -> bytes:
        more = frame(Opcode.CONTINUATION, payload, fin=False) * count
        return frame(opcode, payload, fin=False) + more + frame(Opcode.CONTINUATION, payload)

    return data


def halves(count: int) -> bytes:
    more = frame(Opcode.CONTINUATION, b"\xa9\xc3", fin=False) * count
    return frame(Opcode.TEXT, b"\xc3", fin=False) + more + frame(Opcode.CONTINUATION, b"\xa9")


def message_in_pieces(server: Server, count: int) -> None:
    with Attacker(server.port) as client:
        client.open("/sink")
        client.send(header(Opcode.TEXT, 120 * count, key=bytes(4)))
        send_in_pieces(client.socket, b"a" * 120, count)
        client.send(frame(Opcode.CLOSE, struct.pack("!H", 1000)))
        assert client.receive_close()[0] == 1000


COSTS: dict[str, tuple[Callable[[Server, int], None], int]] = {
    # The sizes are such that each takes some hundredths of a second.
    "long header": (heads(lambda size: b"X: " + b"a" * size + b"\r\n"), 4 * MB),
    "many headers": (
        heads(lambda count: b"".join(b"X%d: a\r\n" % i for i in range(count))),
        5_000,
    ),
    "one header many times": (heads(lambda count: b"X: a\r\n" * count), 10_000),
    "long Cookie": (heads(lambda count: b"Cookie: " + b"a=b; " * count + b"\r\n"), 600_000),
    "long Host": (long_host, 1 * MB),
    "long Origin": (heads(lambda size: b"Origin: http://" + b"a." * size + b"\r\n"), 1 * MB),
    "many subprotocols": (
        heads(
            lambda count: (
                b"Sec-WebSocket-Protocol: " + b",".join(b"%d" % i for i in range(count)) + b"\r\n"
            )
        ),
        50_000,
    ),
    "long Upgrade": (heads(lambda count: b"Upgrade: " + b"h2c, " * count + b"\r\n"), 200_000),
    "long Connection": (heads(lambda count: b"Connection: " + b", " * count + b"\r\n"), 200_000),
    "long key": (heads(lambda size: b"Sec-WebSocket-Key: " + b"a" * size + b"\r\n"), 4 * MB),
    "many hops": (
        heads(lambda count: b"X-Forwarded-For: x" + b",127.0.0.1" * count + b"\r\n"),
        5_000,
    ),
    "open quotes": (heads(lambda count: b"Forwarded: " + b'"\\,"' * count + b"\r\n"), 50_000),
    "backslashes": (heads(lambda size: b"Forwarded: " + b"\\" * size + b'"\r\n'), 3 * MB),
    "long target": (long_target, 1 * MB),
    "head in pieces": (head_in_pieces, 1000),
    "empty fragments": (frames(fragments(Opcode.TEXT, b"")), 10_000),
    "small fragments of text": (frames(fragments(Opcode.TEXT, b"a" * 100)), 10_000),
    "small fragments of bytes": (frames(fragments(Opcode.BINARY, b"a" * 100)), 10_000),
    "halves of characters": (frames(halves), 10_000),
    "small messages": (frames(lambda count: frame(Opcode.TEXT, b"a") * count), 30_000),
    "large message": (frames(lambda size: frame(Opcode.TEXT, b"a" * size)), 4 * MB),
    "pings": (frames(lambda count: frame(Opcode.PING, b"abc") * count), 10_000),
    "pongs": (frames(lambda count: frame(Opcode.PONG, b"abc") * count), 10_000),
    "message in pieces": (message_in_pieces, 1000),
}


@pytest.fixture(scope="module")
def server_without_limits() -> Iterator[Server]:
    with attacked(
        LINE + "'.*' refused with 40[0134]: ", LINE + "(400|408)", ENDED + "100[06] ", **BIG
    ) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTS)
def test_no_input_costs_more_than_time_linear_in_its_size(
    server_without_limits: Server, name: str
) -> None:
    """Four times as much costs about four times; where the cost grew with the square, sixteen."""
    server = server_without_limits
    attack, size = COSTS[name]

    def cost(times: int) -> float:
        before = server.cpu()
        attack(server, size * times)
        return server.cpu() - before

    once, four_times = min(cost(1) for _ in range(3)), min(cost(4) for _ in range(2))
    print(f"\n{name}: {once * 1000:.0f} ms and {four_times * 1000:.0f} ms")
    assert four_times < 10 * max(once, 0.02)  # less is lost in page faults
