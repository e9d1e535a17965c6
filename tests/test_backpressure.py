"""A peer that reads slowly, or not at all, slows down its own sender and nobody else."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

import needs
import plainsocket
from plainsocket.frames import Opcode
from processes import Program, running
from rawclient import RawClient
from serving import PATIENCE, echo, serving, wait_until

pytestmark = pytest.mark.slow

# A small buffer of the kernel's at the peer's end, so that little is enough to stall.
SMALL = 4096  # bytes


class Flood:
    """A handler that sends numbered messages for as long as it is let, and counts them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent: dict[str, int] = {}
        self.ends: dict[str, tuple[int | None, str]] = {}
        self.websockets: dict[str, plainsocket.WebSocket] = {}

    def __call__(self, ws: plainsocket.WebSocket) -> None:
        name = ws.path
        self.websockets[name] = ws
        self.sent[name] = 0
        try:
            while True:
                ws.send(self.sent[name].to_bytes(self.size, "big"))
                self.sent[name] += 1
        finally:
            del self.websockets[name]
            self.ends[name] = (ws.close_code, ws.close_reason)


def receive_numbers(client: RawClient, start: int, count: int) -> None:
    for number in range(start, start + count):
        head, payload = client.receive_frame()
        assert head.opcode == Opcode.BINARY
        assert int.from_bytes(payload, "big") == number


def test_a_slow_reader_slows_its_own_sender_and_nobody_else() -> None:
    write_limit = 100_000
    flood = Flood(10_000)
    with (
        serving(flood, write_limit=write_limit) as server,
        RawClient(server.port, receive_buffer=SMALL) as slow,
        RawClient(server.port) as fast,
    ):
        slow.open("/slow")
        wait_until(lambda: "/slow" in flood.websockets)
        wait_until(lambda: server.call(lambda: flood.websockets["/slow"].buffered_amount))
        fast.open("/fast")
        read = 0
        for turn in range(20):  # in turns: a piece for the slow one, much for the fast one
            receive_numbers(slow, turn, 1)
            receive_numbers(fast, read, 300)
            read += 300
            amount = server.call(lambda: flood.websockets["/slow"].buffered_amount)
            assert amount < write_limit + 10_000 + 14
        in_the_kernel = 6 << 20  # at most: its own limit for a socket is 4 MiB
        assert flood.sent["/slow"] <= 20 + (write_limit + in_the_kernel) / 10_000
        assert flood.sent["/fast"] >= read


def test_of_many_senders_to_one_slow_reader_each_waits_and_comes_in_its_turn() -> None:
    senders, each = 20, 15
    size, write_limit = 20_000, 50_000
    finished: list[int] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        def send_all(name: int) -> None:
            for number in range(each):
                ws.send(f"{name} {number}".ljust(size))
            finished.append(name)

        while ws.buffered_amount < write_limit:
            ws.send("filling".ljust(size))
        gevent.joinall([gevent.spawn(send_all, name) for name in range(senders)], raise_error=True)

    with (
        serving(handler, write_limit=write_limit) as server,
        RawClient(server.port, receive_buffer=SMALL) as client,
    ):
        client.open()
        received: list[list[int]] = [[] for _ in range(senders)]
        at_first: list[int] = []  # until all wait, who is first may find room for several
        while sum(map(len, received)) < senders * each:
            message = client.receive_frame()[1].decode().rstrip()
            if message != "filling":
                name, number = map(int, message.split())
                received[name].append(number)
                lengths = [len(numbers) for numbers in received]
                if not at_first:
                    assert sum(1 < length < each for length in lengths) <= 1, "one is starved"
                    at_first = lengths if min(lengths) > 0 else []
                turns = [a - b for a, b in zip(lengths, at_first, strict=False) if a < each]
                assert not turns or max(turns) - min(turns) <= 2, "one is starved"
        assert client.receive_close() == (1000, "")
    assert received == [list(range(each))] * senders
    assert sorted(finished) == list(range(senders))


@pytest.mark.slow
def test_send_timeout_ends_the_stalled_one_and_no_other() -> None:
    send_timeout = 1.0
    flood = Flood(20_000)
    with (
        serving(
            {"/stalled": flood, "/slow": flood, "/fast": flood, "/echo": echo},
            write_limit=50_000,
            send_timeout=send_timeout,
            ping_interval=None,
        ) as server,
        RawClient(server.port, receive_buffer=SMALL) as stalled,
        RawClient(server.port, receive_buffer=SMALL) as slow,
        RawClient(server.port) as fast,
        RawClient(server.port) as idle,
    ):
        idle.open("/echo")
        slow.open("/slow")
        fast.open("/fast")
        start = time.monotonic()
        stalled.open("/stalled")
        stalled_at: list[float] = []

        def look_at_the_stalled() -> None:
            wait_until(lambda: "/stalled" in flood.ends)
            stalled_at.append(time.monotonic())

        looking = threading.Thread(target=look_at_the_stalled)
        looking.start()
        read = 0
        # Three times as long as the timeout; some 100 KB at a time are enough to be spared.
        while time.monotonic() < start + 3 * send_timeout:
            receive_numbers(slow, read * 5, 5)
            receive_numbers(fast, read * 50, 50)
            read += 1
            time.sleep(send_timeout / 10)
        looking.join()
        assert flood.ends.keys() == {"/stalled"}
        assert flood.ends["/stalled"][0] == 1006
        assert stalled_at[0] - start >= send_timeout
        idle.send_frame(Opcode.TEXT, b"x")
        assert idle.receive_frame()[1] == b"x"
    assert flood.ends.keys() == {"/stalled", "/slow", "/fast"}


def send_without_end(ws: plainsocket.WebSocket) -> None:
    while True:
        ws.send(bytes(20_000))


def send_what_the_kernel_takes(ws: plainsocket.WebSocket) -> None:
    ws.send(bytes(200_000))
    ws.receive()


def send_and_close(ws: plainsocket.WebSocket) -> None:
    ws.send(bytes(200_000))


@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (send_without_end, {"send_timeout": 0.3, "ping_interval": None}),
        (send_what_the_kernel_takes, {"ping_interval": 0.2, "ping_timeout": 0.3}),
        (send_and_close, {"close_timeout": 0.3}),
    ],
    ids=["send_timeout", "ping_timeout", "close_timeout"],
)
def test_the_kernel_keeps_nothing_for_a_stalled_peer_that_was_given_up(
    handler: Any, options: dict[str, Any]
) -> None:
    """Else a connection that no limit counts any more goes on holding megabytes for minutes."""

    def is_in_the_kernel(port: int, peer: int) -> bool:
        with open("/proc/net/tcp") as table:
            pairs = [line.split()[1:3] for line in table]
        return any(
            (local[-5:], remote[-5:]) == (f":{port:04X}", f":{peer:04X}") for local, remote in pairs
        )

    with (
        serving(handler, **options) as server,
        RawClient(server.port, receive_buffer=SMALL) as stalled,
    ):
        stalled.open()
        peer = stalled.socket.getsockname()[1]
        assert is_in_the_kernel(server.port, peer)
        wait_until(lambda: server.server.connections)
        wait_until(lambda: not server.server.connections)
        wait_until(lambda: not is_in_the_kernel(server.port, peer))


# -- many stalled peers --------------------------------------------------------------------------

WRITE_LIMIT = 64 * 1024
MESSAGE = 16 * 1024

# In a process of its own: its memory is the server's only.
SERVER = f"""
import json, os, socket
import plainsocket

stalled = []

def echo(ws):
    for message in ws:
        ws.send(message)

def flood(ws):
    stalled.append(ws)
    # Else the kernel would take some megabytes for each.
    ws._carrier._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    number = 0
    while True:
        # One object each, as an application makes them: equal ones would cost nothing.
        ws.send(number.to_bytes({MESSAGE}, "big"))
        number += 1

def report(ws):
    for _ in ws:
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        amounts = [each.buffered_amount for each in stalled]
        ws.send(json.dumps(dict(
            rss=pages * os.sysconf("SC_PAGESIZE"),
            buffered=sum(amounts),
            most=max(amounts, default=0),
            full=sum(amount >= {WRITE_LIMIT} for amount in amounts),
            open=len(server.connections),
        )))

server = plainsocket.Server(
    {{"/echo": echo, "/flood": flood, "/report": report}}, port=0, write_limit={WRITE_LIMIT}
)
server.start()
print("port", server.address[1], flush=True)
server.serve_forever()
"""


def report_of(client: RawClient) -> dict[str, int]:
    client.send_frame(Opcode.TEXT, b"report")
    report: dict[str, int] = json.loads(client.receive_frame()[1])
    return report


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as these tests need, here and in the server."""
    needed = 4096
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(needed, hard)))
        except (OSError, ValueError):
            needs.unavailable(f"{needed} open files are needed, {hard} are the limit (ulimit -Hn)")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(many_files: None) -> Iterator[tuple[Program, int]]:
    with running(sys.executable, "-c", SERVER) as program:
        yield program, int(program.wait_for(r"^port (\d+)$")[1])


@contextlib.contextmanager
def stalled_peers(port: int, count: int, report: RawClient) -> Iterator[dict[str, int]]:
    """So many peers that read nothing; yields the report when the server has filled them."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            peer = stack.enter_context(RawClient(port, receive_buffer=SMALL))
            peer.send(peer.request("/flood"))
        deadline = time.monotonic() + 3 * PATIENCE
        while (last := report_of(report))["full"] < count:
            assert time.monotonic() < deadline, last
            time.sleep(0.1)
        time.sleep(0.5)  # what would go on growing, grows
        yield report_of(report)


@pytest.mark.slow
@pytest.mark.parametrize("count", [300, 1000])
def test_memory_for_stalled_peers_is_bounded(
    server: tuple[Program, int], count: int, record_property: Any
) -> None:
    _program, port = server
    with RawClient(port) as reporter:
        reporter.open("/report")
        before = report_of(reporter)
        with stalled_peers(port, count, reporter) as after:
            growth = after["rss"] - before["rss"]
            record_property("rss_growth_per_stalled_peer", growth // count)
            record_property("buffered_per_stalled_peer", after["buffered"] // count)
            print(
                f"{count} stalled peers: {growth / count / 1024:.1f} KiB of RSS and "
                f"{after['buffered'] / count / 1024:.1f} KiB buffered each"
            )
            frame = MESSAGE + 14
            assert after["most"] < WRITE_LIMIT + frame
            # What is buffered, each message with the object it is of, and the connection itself.
            assert growth < count * (WRITE_LIMIT + 2 * frame + 64 * 1024)
            again = report_of(reporter)
            assert again["buffered"] <= after["buffered"] + frame
        wait_until(lambda: report_of(reporter)["open"] == 1)


def echo_times(client: RawClient, count: int) -> list[float]:
    """The round trips of so many echoes, in seconds, in order of length."""
    times = []
    for number in range(count):
        start = time.perf_counter()
        client.send_frame(Opcode.TEXT, b"%d" % number)
        assert client.receive_frame()[1] == b"%d" % number
        times.append(time.perf_counter() - start)
        time.sleep(0.001)
    return sorted(times)


@pytest.mark.slow
def test_many_stalled_peers_do_not_delay_a_healthy_one(
    server: tuple[Program, int], record_property: Any
) -> None:
    _program, port = server
    stalled, echoes = 1200, 1000
    with RawClient(port) as reporter, RawClient(port) as healthy:
        reporter.open("/report")
        healthy.open("/echo")
        echo_times(healthy, 100)
        alone = echo_times(healthy, echoes)
        with stalled_peers(port, stalled, reporter) as report:
            beside = echo_times(healthy, echoes)
            assert report["open"] == stalled + 2
    p99 = echoes * 99 // 100
    for name, times in (("alone", alone), ("beside_stalled", beside)):
        record_property(f"p99_ms_{name}", round(times[p99] * 1000, 3))
    print(
        f"echo of a healthy peer, alone / beside {stalled} stalled ones, in ms: "
        f"p50 {alone[echoes // 2] * 1000:.2f} / {beside[echoes // 2] * 1000:.2f}, "
        f"p99 {alone[p99] * 1000:.2f} / {beside[p99] * 1000:.2f}, "
        f"max {alone[-1] * 1000:.2f} / {beside[-1] * 1000:.2f}"
    )
    assert beside[-1] < PATIENCE / 2
