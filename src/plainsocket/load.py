"""`plainsocket bench`: how fast a server echoes, measured by clients in this process."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
from gevent.pool import Pool
from gevent.util import wrap_errors

from . import client_arguments
from .client import connect
from .client_arguments import (
    CLOSED_NORMALLY,
    FAILED,
    INTERRUPTED,
    exit_code,
    explain,
    interrupted_by_ctrl_c,
)
from .errors import ConnectionClosed, WebSocketError
from .protocol import Message
from .websocket import WebSocket

_PATIENCE: Final = 10.0  # seconds without an echo that end it
_OPENED_AT_ONCE: Final = 100
_PRECISION: Final = math.log(1.01)  # of what the histogram keeps: within 1 %
_ROWS: Final = 12
_PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def add_to(commands: Any) -> None:
    """Add the command to argparse's."""
    command = commands.add_parser(
        "bench",
        help="measure how fast a server echoes",
        description="Measure how fast a server echoes. It opens all connections first; then each "
        "keeps some messages in flight for a while, and ends by itself. The clients share one "
        "process and one core: where that is busy, it is the limit, and not the server.",
        epilog=client_arguments.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    client_arguments.add_to(command)
    command.add_argument(
        "-c", "--connections", type=_count, default=10, metavar="N", help="connections (10)"
    )
    command.add_argument(
        "-d", "--depth", type=_count, default=1, metavar="N", help="messages in flight on each (1)"
    )
    command.add_argument(
        "-b", "--size", type=_size, default=32, metavar="BYTES", help="size of a message (32)"
    )
    command.add_argument(
        "-t", "--duration", type=_seconds, default=5.0, metavar="S", help="seconds (5)"
    )
    command.add_argument("--binary", action="store_true", help="send binary messages, not text")
    command.add_argument("--json", action="store_true", help="print the figures as JSON")
    command.set_defaults(run=run)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError("a number from 1 to 100000")
    return number


def _size(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 1 << 26:
        raise argparse.ArgumentTypeError("a number of bytes from 0 to 67108864")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 86400:
        raise argparse.ArgumentTypeError("a number of seconds above 0")
    return number


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    try:
        url, arguments = client_arguments.for_connect(options)
        arguments["max_message_size"] = max(1 << 20, options.size)
        load = Load(options.connections, options.depth, _message(options), options.duration)
        with interrupted_by_ctrl_c():
            code = load.run(url, arguments, show_progress=sys.stderr.isatty())
    except ConnectionClosed as error:
        print(f"plainsocket: a connection was closed with {error}", file=sys.stderr)
        return exit_code(error.code) or FAILED
    except _NoEcho as error:
        print(f"plainsocket: {error}", file=sys.stderr)
        return FAILED
    except (ValueError, TypeError, ImportError, OSError) as error:
        code, text = explain(error)
        print(f"plainsocket: {text}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    figures = load.figures()
    print(json.dumps(figures) if options.json else "\n".join(report(load, figures)))
    return code


def _message(options: argparse.Namespace) -> Message:
    return os.urandom(options.size) if options.binary else "x" * options.size


class _NoEcho(WebSocketError):
    """What came back is not what was sent, or nothing did."""


@dataclass
class Times:
    """How often a time was met: any number of them in little memory."""

    counts: Counter[int] = field(default_factory=Counter)
    least: float = math.inf
    most: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[int(math.log(max(seconds, 1e-9)) // _PRECISION)] += 1
        self.least = min(self.least, seconds)
        self.most = max(self.most, seconds)

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    def percentile(self, percent: float) -> float:
        """The time, in seconds, within which that many were; within 1 %."""
        left = self.count * percent / 100
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return min(self.most, math.exp((bucket + 1) * _PRECISION))
        return self.most

    def rows(self, rows: int) -> Iterator[tuple[float, int]]:
        """Upper ends of `rows` ranges of equal width on a logarithmic scale, and their counts."""
        low, high = min(self.counts), max(self.counts)
        width = max(1, math.ceil((high - low + 1) / rows))
        for start in range(low, high + 1, width):
            count = sum(self.counts[bucket] for bucket in range(start, start + width))
            yield min(self.most, math.exp((start + width) * _PRECISION)), count


class Load:
    """What is measured, and the figures of it."""

    def __init__(self, connections: int, depth: int, message: Message, duration: float) -> None:
        self.connections = connections
        self.depth = depth
        self.size = len(message)
        self.duration = duration
        self.elapsed = 0.0
        self.cpu = 0.0
        self.opening = Times()
        self.round_trips = Times()
        self._message = message
        self._end = math.inf

    def run(self, url: str, arguments: dict[str, Any], *, show_progress: bool) -> int:
        """Measure; return the exit code. Raises what `connect` raises, and ConnectionClosed."""
        progress = _Progress(show_progress)
        sockets: list[WebSocket] = []
        try:
            self._open(sockets, url, arguments, progress)
            return self._send(sockets, progress)
        finally:
            progress.clear()
            for ws in sockets:
                ws.close()
            gevent.joinall([gevent.spawn(ws.finish) for ws in sockets], timeout=_PATIENCE)

    def _open(
        self, sockets: list[WebSocket], url: str, arguments: dict[str, Any], progress: _Progress
    ) -> None:
        def open_one() -> None:
            start = time.perf_counter()
            sockets.append(connect(url, **arguments))
            self.opening.add(time.perf_counter() - start)
            progress.show(len(sockets) / self.connections, "connecting")

        pool = Pool(_OPENED_AT_ONCE)
        tasks: list[Any] = []
        try:
            for _ in range(self.connections):
                tasks.append(pool.spawn(wrap_errors((Exception,), open_one)))
                _raise_errors_of(tasks[-2 * _OPENED_AT_ONCE :])
            pool.join()
            _raise_errors_of(tasks)
        finally:
            pool.kill()

    def _send(self, sockets: list[WebSocket], progress: _Progress) -> int:
        start, cpu = time.perf_counter(), time.process_time()
        self._end = start + self.duration
        clients: list[Any] = [
            gevent.spawn(wrap_errors((Exception,), self._echo), ws) for ws in sockets
        ]
        code = CLOSED_NORMALLY
        try:
            while (now := time.perf_counter()) < self._end:
                done = (now - start) / self.duration
                progress.show(done, f"{self.round_trips.count / max(now - start, 1e-9):,.0f}/s")
                gevent.joinall(clients, timeout=min(0.1, self._end - now), count=1)
                _raise_errors_of(clients)
            gevent.joinall(clients)
            _raise_errors_of(clients)
        except KeyboardInterrupt:
            code = INTERRUPTED
        finally:
            self.elapsed = time.perf_counter() - start
            self.cpu = time.process_time() - cpu
            gevent.killall(clients)
        return code

    def _echo(self, ws: WebSocket) -> None:
        message, add, clock = self._message, self.round_trips.add, time.perf_counter
        sent: deque[float] = deque()
        for _ in range(self.depth):
            sent.append(clock())
            ws.send(message)
        while sent:
            try:
                received = ws.receive(_PATIENCE)
            except TimeoutError:
                raise _NoEcho(f"no echo within {_PATIENCE:g} s") from None
            now = clock()
            add(now - sent.popleft())
            if len(received) != self.size or type(received) is not type(message):
                raise _NoEcho("the server does not echo: something else came back")
            if now < self._end:
                sent.append(now)
                ws.send(message)

    def figures(self) -> dict[str, Any]:
        """Times in seconds."""
        figures: dict[str, Any] = {
            "connections": self.connections,
            "depth": self.depth,
            "size": self.size,
            "duration": round(self.elapsed, 3),
            "messages": self.round_trips.count,
            "messages_per_second": round(self.round_trips.count / max(self.elapsed, 1e-9), 1),
            "client_cpu_share": round(self.cpu / max(self.elapsed, 1e-9), 3),
        }
        for name, times in (("connecting", self.opening), ("round_trip", self.round_trips)):
            if times.count:
                figures[name] = {
                    f"p{percent:g}": float(f"{times.percentile(percent):.4g}")
                    for percent in _PERCENTILES
                }
                figures[name]["max"] = float(f"{times.most:.4g}")
        return figures


def _raise_errors_of(greenlets: list[Any]) -> None:
    for greenlet in greenlets:
        if isinstance(greenlet.value, Exception):
            raise greenlet.value


def report(load: Load, figures: dict[str, Any]) -> Iterator[str]:
    """The figures and a histogram, for a person."""
    rate = figures["messages_per_second"]
    yield (
        f"{load.connections:,} connections, {load.depth:,} messages of {load.size:,} bytes in "
        f"flight on each, {load.elapsed:.1f} s"
    )
    yield ""
    yield (
        f"  {rate:,.0f} messages/s there and back, {rate * load.size / 1e6:,.1f} MB/s each way; "
        f"this process used {figures['client_cpu_share']:.0%} of a core"
    )
    for name in ("connecting", "round_trip"):
        if name in figures:
            times = "   ".join(f"{key} {_time(each)}" for key, each in figures[name].items())
            yield f"  {name.replace('_', ' '):<11} {times}"
    if load.round_trips.count:
        yield ""
        yield from _histogram(load.round_trips)


def _histogram(times: Times) -> Iterator[str]:
    rows = list(times.rows(_ROWS))
    most = max(count for _, count in rows)
    width = max(10, min(60, shutil.get_terminal_size().columns - 32))
    for end, count in rows:
        bar = _bar(count / most, width)
        yield f"  up to {_time(end):>8} {bar:<{width}} {count:>10,}".rstrip()


def _bar(share: float, width: int) -> str:
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        return "#" * round(share * width)
    whole, eighths = divmod(round(share * width * 8), 8)
    return _EIGHTHS[-1] * whole + (_EIGHTHS[eighths] if eighths else "")


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


class _Progress:
    """A bar on standard error, where that is a terminal."""

    def __init__(self, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._shown_at = 0.0

    def show(self, share: float, text: str) -> None:
        now = time.monotonic()
        if self._is_shown and now - self._shown_at > 0.05:
            self._shown_at = now
            bar = _bar(min(1.0, share), 40)
            print(f"\r\x1b[K  {bar:<40} {text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
