"""Handlers' greenlets: their Python frames, which begin in little memory, and what an idle one
costs."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import plainsocket
from plainsocket import workers
from processes import running
from rawclient import RawClient
from serving import serving


def descend(ws: plainsocket.WebSocket, depth: int, function: Callable[[], int]) -> int:
    """Receive at every depth, on the way down and on the way up."""
    below = 0
    assert ws.receive() == f"down {depth}"
    ws.send(str(function()))
    if depth < 60:
        below = descend(ws, depth + 1, function)
    assert ws.receive() == f"up {depth}"
    ws.send(str(below))
    return below + depth


def large_function(variables: int) -> Callable[[], int]:
    """A function whose frame takes that many words; it returns their number."""
    lines = [f"    v{n} = 1" for n in range(variables)]
    names = ", ".join(f"v{n}" for n in range(variables))
    scope: dict[str, Callable[[], int]] = {}
    exec("\n".join(["def function():", *lines, f"    return sum([{names}])"]), scope)
    return scope["function"]


@pytest.mark.parametrize("variables", [3, 100, 400, 4000])
def test_frames_may_be_deep_and_large(variables: int) -> None:
    function = large_function(variables)

    def handler(ws: plainsocket.WebSocket) -> None:
        descend(ws, 0, function)

    with serving(handler) as server, ExitStack() as stack:
        clients = [
            stack.enter_context(plainsocket.connect(server.url())) for _ in range(3)
        ]  # in turns, so that each greenlet's frames are left and come back to
        for depth in range(61):
            for client in clients:
                client.send(f"down {depth}")
                assert client.receive(timeout=10) == str(variables)
        for depth in reversed(range(61)):
            for client in clients:
                client.send(f"up {depth}")
                assert client.receive(timeout=10) == str(sum(range(depth + 1, 61)))


ABANDONED = """
import gc, threading
import gevent
import plainsocket

def handler(ws, depth=0):
    if depth < 30:
        handler(ws, depth + 1)
    ws.receive()

def run():
    for _ in range(3):
        server = plainsocket.Server(handler, port=0)
        server.start()
        clients = [plainsocket.connect(f"ws://127.0.0.1:{server.address[1]}") for _ in range(20)]
        gevent.wait(timeout=0.1)
        assert len(server.connections) == 20
        if threading.current_thread() is not threading.main_thread():
            gevent.get_hub().destroy(destroy_loop=True)
        else:
            server.stop(timeout=0)

for _ in range(3):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    gc.collect()
run()
print("done")
"""


def test_greenlets_that_are_abandoned_or_killed() -> None:
    """Their thread ends while they wait, or the server cuts them."""
    with running(sys.executable, "-c", ABANDONED) as program:
        program.wait_for("^done$")


SERVER = """
import plainsocket

def handler(ws):
    for message in ws:
        ws.send(message)

server = plainsocket.Server(handler, port=0)
with server:
    print("port", server.address[1], flush=True)
    server.serve_forever()
"""


@pytest.mark.once
@pytest.mark.skipif(
    not workers.__file__.endswith(".so"), reason="it is the compiled core that saves memory"
)
def test_what_an_idle_handler_costs() -> None:
    """A page is 4 KiB: were one touched for its frames, it would be nearly 11 in all."""
    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * count)), hard))
    with running(sys.executable, "-c", SERVER) as program, ExitStack() as stack:
        port = int(program.wait_for(r"^port (\d+)$")[1])

        def open_some(number: int) -> None:
            clients = [stack.enter_context(RawClient(port)) for _ in range(number)]
            for client in clients:
                client.open()

        open_some(100)  # and with them what is there once
        before = memory(program.pid)
        open_some(count)
        assert (memory(program.pid) - before) / count < 9


def memory(pid: int) -> int:
    """What a process has in use, in KiB."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1])
