"""Numbers for Prometheus, by `prometheus-client` (the extra `metrics`)::

    metrics = Metrics()
    plainsocket.serve(echo, observer=metrics, app=metrics.app())

`app` answers `/metrics`, and leaves other requests to another WSGI application.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import gevent
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .frames import CloseCode

if TYPE_CHECKING:
    from .websocket import WebSocket
from .wsgi import Application

_DURATIONS: Final = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)  # seconds
_LATENCIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLICE: Final = 500  # connections looked at in a row, before others have their turn


class _Counted(NamedTuple):
    """What has been counted of a connection so far."""

    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    latency: float | None = None


class Metrics(Collector):
    """Counts what happens to connections: the option `observer` of one or more servers.

    `registry` is where the numbers are collected; None is `prometheus_client.REGISTRY`, which has
    the process's numbers (memory, open files) and the application's own as well. The metrics'
    names begin with `namespace`; two `Metrics` in one registry need different ones. No label holds
    anything that a peer could choose freely: no paths, and the close codes 3000 to 4999 are "3xxx"
    and "4xxx".

    Open connections are looked at when the numbers are asked for, so that what a long one carries
    is counted as it goes. No WebSocket is kept alive for it.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, namespace: str = "plainsocket"
    ) -> None:
        self._registry = REGISTRY if registry is None else registry
        self._prefix = f"{namespace}_" if namespace else ""
        self._lock = threading.Lock()  # a registry may be read from any thread
        self._threads: set[int] = set()  # those that have a hub
        # None for connections that have ended.
        self._counted: WeakKeyDictionary[WebSocket, _Counted | None] = WeakKeyDictionary()
        self._opened = 0
        self._closed: Counter[str] = Counter()  # by code
        self._refused: Counter[int] = Counter()  # by status
        self._messages_received = self._messages_sent = 0
        self._bytes_received = self._bytes_sent = 0
        self._durations = Histogram(
            "connection_duration_seconds",
            "How long connections were open that have closed.",
            namespace=namespace,
            registry=None,
            buckets=_DURATIONS,
        )
        self._latencies = Histogram(
            "ping_latency_seconds",
            "Round trips of pings; of those between two scrapes the last of each connection.",
            namespace=namespace,
            registry=None,
            buckets=_LATENCIES,
        )
        self._registry.register(self)

    # -- what it is told (plainsocket.options.Observer) ------------------------------------------

    def opened(self, websocket: WebSocket) -> None:
        with self._lock:
            self._threads.add(threading.get_ident())
            self._opened += 1
            self._counted.setdefault(websocket, _Counted())  # it may have ended by now

    def closed(self, websocket: WebSocket) -> None:
        with self._lock:
            self._end(websocket)

    def refused(self, status: int) -> None:
        with self._lock:
            self._refused[int(status)] += 1

    def _end(self, websocket: WebSocket) -> None:
        if not self._count(websocket):
            return
        self._counted[websocket] = None
        code = websocket.close_code or CloseCode.ABNORMAL_CLOSURE
        self._closed[str(int(code)) if code < 3000 else f"{code // 1000}xxx"] += 1
        self._durations.observe(time.monotonic() - websocket.opened_at)

    def _count(self, websocket: WebSocket) -> bool:
        """Add what has come since the last time; False if the connection's end is counted."""
        before = self._counted.get(websocket, _Counted())
        if before is None:
            return False
        now = _Counted(
            websocket.messages_received,
            websocket.messages_sent,
            websocket.bytes_received,
            websocket.bytes_sent,
            websocket.latency,
        )
        if now == before:
            return True
        self._messages_received += now.messages_received - before.messages_received
        self._messages_sent += now.messages_sent - before.messages_sent
        self._bytes_received += now.bytes_received - before.bytes_received
        self._bytes_sent += now.bytes_sent - before.bytes_sent
        if now.latency is not None and now.latency != before.latency:
            self._latencies.observe(now.latency)
        self._counted[websocket] = now
        return True

    # -- what it tells ---------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand; called by the registry."""
        connections = self._count_all()
        name = self._prefix
        yield GaugeMetricFamily(
            f"{name}connections", "WebSockets that are open.", value=connections
        )
        with self._lock:
            counters = [
                ("connections_opened", "WebSockets that were opened.", self._opened),
                ("messages_received", "Messages from peers.", self._messages_received),
                ("messages_sent", "Messages accepted for sending.", self._messages_sent),
                ("received_bytes", "Bytes of frames from peers.", self._bytes_received),
                (
                    "sent_bytes",
                    "Bytes accepted for sending: frames and handshakes' answers.",
                    self._bytes_sent,
                ),
            ]
            closed = CounterMetricFamily(
                f"{name}connections_closed", "WebSockets that have closed.", labels=["code"]
            )
            for code, count in sorted(self._closed.items()):
                closed.add_metric([code], count)
            refused = CounterMetricFamily(
                f"{name}requests_refused",
                "Requests that the server itself refused, by HTTP status.",
                labels=["status"],
            )
            for status, count in sorted(self._refused.items()):
                refused.add_metric([str(status)], count)
        for counter, documentation, value in counters:
            yield CounterMetricFamily(f"{name}{counter}", documentation, value=value)
        yield closed
        yield refused
        yield from self._durations.collect()
        yield from self._latencies.collect()

    def _count_all(self) -> int:
        """Look at every open connection; return how many there are."""
        may_wait = threading.get_ident() in self._threads
        connections = 0
        with self._lock:
            references = self._counted.keyrefs()
        for start in range(0, len(references), _SLICE):
            if start and may_wait:
                gevent.sleep(0)
            with self._lock:
                for reference in references[start : start + _SLICE]:
                    websocket = reference()
                    if websocket is None:
                        continue
                    if websocket.is_gone:  # its handler was killed, or closed() is about to come
                        self._end(websocket)
                    elif self._count(websocket):
                        connections += 1
        return connections

    def app(self, application: Application | None = None, path: str = "/metrics") -> Application:
        """Return a WSGI application that answers `path`, and leaves the rest to `application`."""

        def with_metrics(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if environ.get("PATH_INFO") == path:
                return self._answer(environ["REQUEST_METHOD"], start_response)
            if application is not None:
                return application(environ, start_response)
            body = b"Nothing is served at this path.\n"
            return _respond(start_response, "404 Not Found", "text/plain; charset=utf-8", body)

        return with_metrics

    def _answer(self, method: str, start_response: Any) -> list[bytes]:
        if method not in ("GET", "HEAD"):
            allow = ("Allow", "GET, HEAD")
            return _respond(start_response, "405 Method Not Allowed", "text/plain", b"", allow)
        body = generate_latest(self._registry)
        no_store = ("Cache-Control", "no-store")
        answer = _respond(start_response, "200 OK", CONTENT_TYPE_LATEST, body, no_store)
        return answer if method == "GET" else []


def _respond(
    start_response: Any, status: str, content_type: str, body: bytes, *headers: tuple[str, str]
) -> list[bytes]:
    length = ("Content-Length", str(len(body)))
    start_response(status, [("Content-Type", content_type), length, *headers])
    return [body]
