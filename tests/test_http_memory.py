"""What the http carrier's sessions cost in memory: idle, and filled to their limits.

The figures of docs/http-carrier.md come from here: `pytest -s tests/test_http_memory.py`. All
limits are the defaults.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from page import Page, open_body, post, replies
from plainsocket.frames import Opcode
from processes import running
from rawclient import RawClient
from serving import wait_until

pytestmark = pytest.mark.slow

KIB = 1024
WINDOW = 16384 * KIB  # http_window
WRITE_LIMIT = 256 * KIB
CHANNELS = 64  # http_channels
MESSAGE = 16 * KIB
IDLE = 80 * KIB  # what a session with one WebSocket may cost while nothing is on its way
ANOTHER = 64 * KIB  # and each further WebSocket of it

# In a process of its own: its memory is the server's only.
SERVER = f"""
import json, os
import gevent
import plainsocket

def echo(ws):
    for message in ws:
        ws.send(message)

class Echo(plainsocket.Endpoint):
    def on_message(self, message):
        self.ws.send(message)

def flood(ws):
    number = 0
    while True:
        # One object each, as an application makes them: equal ones would cost nothing.
        ws.send(number.to_bytes({MESSAGE}, "big"))
        number += 1

def sink(ws):
    gevent.sleep(3600)  # and never takes a message

def report(ws):
    for _ in ws:
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        ws.send(json.dumps(pages * os.sysconf("SC_PAGESIZE")))

server = plainsocket.Server(
    {{"/echo": echo, "/endpoint": Echo, "/flood": flood, "/sink": sink, "/report": report}},
    port=0, stop_timeout=0.1)
server.start()
print("port", server.address[1], flush=True)
server.serve_forever()
"""


class Measure:
    """Memory of a server that nobody else talks to."""

    def __init__(self, port: int, reporter: RawClient) -> None:
        self.port = port
        self._reporter = reporter

    def memory(self) -> int:
        self._reporter.send_frame(Opcode.TEXT, b"?")
        size: int = json.loads(self._reporter.receive_frame()[1])
        return size

    def growth(self, count: int, make: Callable[[], object]) -> int:
        """Bytes that each of `count` sessions adds; each is made by `make`."""
        for _ in range(2):  # what the first of a kind loads and keeps does not count
            make()
        before = self.memory()
        for _ in range(count):
            make()
        return (self.memory() - before) // count


@pytest.fixture
def measure() -> Iterator[Measure]:
    with running(sys.executable, "-c", SERVER) as program:
        port = int(program.wait_for(r"^port (\d+)$")[1])
        with RawClient(port) as reporter:
            reporter.open("/report")
            yield Measure(port, reporter)
            while replies:
                replies.pop().close()


def tell(what: str, size: int, record_property: Any) -> None:
    record_property("bytes_per_session", size)
    print(f"{what}: {size / KIB:.0f} KiB of memory for a session")


@pytest.mark.parametrize("path", ["/echo", "/endpoint"])
def test_an_idle_one(measure: Measure, path: str, record_property: Any) -> None:
    def idle() -> None:
        post(measure.port, path, open_body()).read_exactly(20)

    size = measure.growth(300, idle)
    tell(f"idle, {path}", size, record_property)
    assert size < IDLE


def test_one_that_acknowledges_nothing(measure: Measure, record_property: Any) -> None:
    """It reads all that comes, until the server stops at its window."""

    def filled() -> None:
        post(measure.port, "/flood", open_body(credit=1 << 30)).read_exactly(WINDOW)

    size = measure.growth(12, filled)
    tell("nothing acknowledged", size, record_property)
    assert WINDOW // 2 < size < WINDOW + WINDOW // 4 + WRITE_LIMIT + IDLE


def test_one_that_reads_nothing(measure: Measure, record_property: Any) -> None:
    def deaf() -> None:
        post(measure.port, "/flood", open_body(credit=1 << 30))

    size = measure.growth(12, deaf)
    tell("nothing read", size, record_property)
    assert size < WINDOW + WINDOW // 4 + WRITE_LIMIT + IDLE


def test_one_whose_messages_nobody_takes(measure: Measure, record_property: Any) -> None:
    """As many WebSockets as it may have, and on each all the credit that it is given."""
    with contextlib.ExitStack() as stack:

        def full() -> None:
            page = stack.enter_context(Page(measure.port, "/sink"))
            for _ in range(CHANNELS):
                socket = page.socket()
                while socket.credit:
                    socket.send(bytes(MESSAGE))
            wait_until(lambda: page.unacknowledged == 0)

        size = measure.growth(4, full)
    tell("nothing taken", size, record_property)
    assert WINDOW // 2 < size < WINDOW + CHANNELS * 64 * KIB + IDLE + (CHANNELS - 1) * ANOTHER
