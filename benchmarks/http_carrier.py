"""What hand-over costs a page of the http carrier, and what hostile pages cost one beside them.

One blocking client sends one text message at a time by an up request on a kept connection, and
reads its echo from the down response. A round measures every case once; shown are the medians of
the rounds, and the server processes' CPU time for a message. A Markdown table on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SERVER = """
import json, sys
import plainsocket
from plainsocket.nodes import Nodes

def echo(ws):
    for message in ws:
        ws.send(message)

def flood(ws):
    while True:
        ws.send(bytes(50_000))

port, nodes = json.loads(sys.argv[1])
if nodes and "machines" in nodes:
    nodes["secret"] = nodes["secret"].encode()
    nodes["machines"] = {name: tuple(at) for name, at in nodes["machines"].items()}
plainsocket.serve(
    {"/echo": echo, "/flood": flood}, port=port, nodes=nodes and Nodes(**nodes), origins="*"
)
"""
HEADERS = {"Content-Type": "text/plain; plainsocket=1", "Origin": "http://127.0.0.1"}
MESSAGE = b"\x81\x20" + bytes(32)  # a frame of 32 bytes
ECHO = struct.pack("!BBHI", 0, 0, len(MESSAGE), 1) + MESSAGE


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def post(port: int, path: str, body: bytes) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, body, HEADERS)
    return connection.getresponse()


def open_body(credit: int = 1 << 30) -> bytes:
    return b"\1\0" + os.urandom(16) + struct.pack("!IBBIHH", 1, 0, 50, credit, 0, 0)


class Healthy:
    """A page; its session is on one server, and its requests go to another, or the same."""

    def __init__(self, owner: int, entry: int) -> None:
        self.down = post(owner, "/echo", open_body())
        head = self.down.read(2)
        self.token = self.down.read(head[1])
        self.down.read(21 + 15)  # the rest of the head, and OPENED
        self.sent = 0
        self.received = 15
        if entry != owner:
            self.down = post(entry, "/echo", self.body(3, struct.pack("!QIBB", 15, 1, 0, 50)))
            self.down.read(9)
        self.up = http.client.HTTPConnection("127.0.0.1", entry, timeout=30)

    def body(self, kind: int, rest: bytes) -> bytes:
        return bytes((kind, len(self.token))) + self.token + rest

    def round_trip(self) -> float:
        start = time.perf_counter()
        body = self.body(2, struct.pack("!QQ", self.received, self.sent) + ECHO)
        self.up.request("POST", "/echo", body, HEADERS)
        while True:  # the echo, and now and then CREDIT before it
            head = self.down.read(8)
            kind, _, length, _ = struct.unpack("!BBHI", head)
            self.down.read(length)
            self.received += 8 + length
            if kind == 0:
                break
        elapsed = time.perf_counter() - start
        response = self.up.getresponse()
        response.read()
        assert response.status == 204, response.status
        self.sent += len(ECHO)
        return elapsed


# -- pages that mean ill: each runs until it is killed ------------------------------------------


def abuse(kind: str, port: int) -> None:
    if kind == "never-read":  # and so never acknowledge
        kept = [post(port, "/flood", open_body()) for _ in range(100)]
        time.sleep(3600)
        del kept
    elif kind == "guess":
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            body = b"\2\x18" + os.urandom(24) + bytes(16)
            connection.request("POST", "/echo", body, HEADERS)
            connection.getresponse().read()
            time.sleep(0.002)
    elif kind == "sessions":
        while True:
            with contextlib.closing(post(port, "/echo", open_body())):
                time.sleep(0.002)
    elif kind == "byte-by-byte":
        head = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in HEADERS.items()
        )
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        for sock in slow:
            sock.sendall(head.encode() + b"\r\n2\r\n\2\x18\r\n")
        while True:
            for sock in slow:
                with contextlib.suppress(OSError):
                    sock.sendall(b"1\r\n \r\n")
                time.sleep(0.002)


# -- measuring -----------------------------------------------------------------------------------


def cpu_of(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server(port: int, nodes: dict[str, object] | None) -> Iterator[int]:
    command = [sys.executable, "-c", SERVER, json.dumps([port, nodes])]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        yield process.pid
    finally:
        process.kill()
        process.wait()


CASES = ("alone", "same machine", "another machine", *(
    "beside " + kind for kind in ("never-read", "guess", "sessions", "byte-by-byte")
))  # fmt: skip


def measure(case: str, count: int) -> tuple[float, float, float]:
    """Median and 99th percentile of the round trip, and CPU time a message; in milliseconds."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ports = [free_port(), free_port()]
        nodes: list[dict[str, object] | None] = [None, None]
        if case == "same machine":
            nodes = [{"directory": f"{folder}/n"}] * 2
        elif case == "another machine":
            machines = {"0": ("127.0.0.1", free_port()), "1": ("127.0.0.1", free_port())}
            known = {"machines": machines, "secret": "known to both of them"}
            nodes = [{"directory": f"{folder}/{n}", "machine": n, **known} for n in machines]
        pids = [stack.enter_context(server(*both)) for both in zip(ports, nodes, strict=True)]
        entry = ports[1] if case.endswith("machine") else ports[0]
        page = Healthy(ports[0], entry)
        if case.startswith("beside"):
            command = [sys.executable, __file__, "--abuse", case.split()[1], str(ports[0])]
            abuser = subprocess.Popen(command)
            stack.callback(abuser.wait)
            stack.callback(abuser.kill)
            time.sleep(1)
        for _ in range(count // 10):
            page.round_trip()
        before = cpu_of(pids)
        times = sorted(page.round_trip() for _ in range(count))
        cpu = (cpu_of(pids) - before) / count
        return times[count // 2] * 1000, times[count * 99 // 100] * 1000, cpu * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--abuse", nargs=2, metavar=("KIND", "PORT"))
    arguments = parser.parse_args()
    if arguments.abuse:
        abuse(arguments.abuse[0], int(arguments.abuse[1]))
        return
    found: dict[str, list[tuple[float, float, float]]] = {case: [] for case in CASES}
    for _ in range(arguments.rounds):
        for case in CASES:
            found[case].append(measure(case, arguments.messages))
    print("| | round trip, median | 99 % | CPU time a message |")
    print("| --- | --- | --- | --- |")
    for case, rounds in found.items():
        median, high, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {case} | {median:.2f} ms | {high:.2f} ms | {cpu:.2f} ms |")


if __name__ == "__main__":
    main()
