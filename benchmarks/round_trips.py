"""Round trips of one message at a time: plainsocket beside bare TCP, near and with added delay.

The delay is a proxy's on 127.0.0.1, in a process of its own. The client is the same for all: one
blocking socket that writes bytes and reads as many back. Interleaved rounds; a Markdown table on
stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import multiprocessing
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SERVERS = Path(__file__).parent / "servers"
HOST = "127.0.0.1"
KEY = b"\x01\x02\x03\x04"
ROUNDS = 5
REQUEST = (
    b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def listen() -> socket.socket:
    listener = socket.create_server((HOST, 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited
    return listener


def echo_tcp(listener: socket.socket) -> None:
    """TCP's own: a blocking loop in Python."""
    while True:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data)


def delay(listener: socket.socket, port: int, seconds: float) -> None:
    """A proxy to `port` that keeps every byte for `seconds`, in each direction."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    ends: dict[socket.socket, socket.socket] = {}
    due: list[tuple[float, int, socket.socket, bytes]] = []
    count = 0
    while True:
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, _, sock, data = heapq.heappop(due)
            with contextlib.suppress(OSError):
                sock.sendall(data) if data else sock.shutdown(socket.SHUT_WR)
        # select's own waits end up to a millisecond late: the last one is spent awake.
        left = due[0][0] - now if due else 1.0
        for key, _events in selector.select(max(0.0, left - 0.001)):
            if key.fileobj is listener:
                near, _ = listener.accept()
                far = socket.create_connection((HOST, port))
                for one, other in ((near, far), (far, near)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    ends[one] = other
                    selector.register(one, selectors.EVENT_READ)
                continue
            end = key.fileobj
            assert isinstance(end, socket.socket)
            try:
                data = end.recv(65536)
            except OSError:
                data = b""
            if not data:
                selector.unregister(end)
            count += 1
            heapq.heappush(due, (time.monotonic() + seconds, count, ends[end], data))


def round_trips(port: int, head: bytes, message: bytes, answer: int, count: int) -> list[float]:
    """Seconds of `count` round trips; `head` opens, and is not timed."""
    with socket.create_connection((HOST, port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if head:
            sock.sendall(head)
            opened = b""
            while not opened.endswith(b"\r\n\r\n"):
                opened += sock.recv(65536)
        taken = []
        for _ in range(count):
            start = time.perf_counter()
            sock.sendall(message)
            left = answer
            while left:
                left -= len(sock.recv(left))
            taken.append(time.perf_counter() - start)
    return taken


@contextlib.contextmanager
def running(target: Callable[..., None], *arguments: object) -> Iterator[int]:
    """A process that serves on a listening socket of its own; its port."""
    with listen() as listener:
        process = multiprocessing.Process(target=target, args=(listener, *arguments), daemon=True)
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.join()


@contextlib.contextmanager
def server(command: list[str]) -> Iterator[int]:
    with listen() as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection((HOST, port)):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=10.0, help="milliseconds each way (10)")
    parser.add_argument("--count", type=int, default=2000, help="round trips a round (2000)")
    arguments = parser.parse_args()
    payload = b"x" * 32
    frame = bytes([0x81, 0x80 | len(payload)]) + KEY
    frame += bytes(each ^ KEY[place & 3] for place, each in enumerate(payload))
    commands = {
        name: [sys.executable, str(SERVERS / f"{name}.py")]
        for name in ("plainsocket_handler", "plainsocket_endpoint")
    }
    if os.access(SERVERS.parent / "build/c_epoll", os.X_OK):
        commands["c_epoll"] = [str(SERVERS.parent / "build/c_epoll")]
    with contextlib.ExitStack() as stack:
        ports = {"TCP, no WebSocket": (stack.enter_context(running(echo_tcp)), b"", payload, 32)}
        for name, command in commands.items():
            port = stack.enter_context(server(command))
            ports[name] = (port, REQUEST, frame, 2 + len(payload))
        for name, (port, head, message, answer) in list(ports.items()):
            proxy = stack.enter_context(running(delay, port, arguments.delay / 1000))
            ports[f"{name}, delayed"] = (proxy, head, message, answer)
        taken: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(ROUNDS):
            for name, (port, head, message, answer) in ports.items():
                count = arguments.count // 40 if name.endswith("delayed") else arguments.count
                taken[name] += round_trips(port, head, message, answer, count)
    print("| | p50, ms | p99, ms |\n| --- | ---: | ---: |")
    for name, times in taken.items():
        cuts = statistics.quantiles(times, n=100)
        print(f"| {name} | {1000 * statistics.median(times):.3f} | {1000 * cuts[98]:.3f} |")


if __name__ == "__main__":
    main()
