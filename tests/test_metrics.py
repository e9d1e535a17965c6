"""Metrics: a real server's numbers, scraped and read as Prometheus reads them."""

from __future__ import annotations

import gc
import http.client
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

import plainsocket
from plainsocket import metrics as metrics_module
from plainsocket.metrics import Metrics
from rawclient import RawClient
from serving import PATIENCE, Running, echo, serving, wait_until

Numbers = dict[tuple[str, ...], float]
"""By name and values of the labels."""


def parse(text: str) -> Numbers:
    numbers: Numbers = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in numbers
            numbers[key] = sample.value
    return numbers


def request(port: int, method: str, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def scrape_text(server: Running) -> str:
    response, body = request(server.port, "GET", "/metrics")
    assert response.status == 200
    return body.decode()


def scrape(server: Running) -> Numbers:
    return parse(scrape_text(server))


@contextmanager
def measured(handler: Any = echo, **options: Any) -> Iterator[Running]:
    metrics = Metrics(CollectorRegistry())
    with serving(handler, observer=metrics, app=metrics.app(), **options) as server:
        yield server


def test_the_package_does_not_import_prometheus_client() -> None:
    code = "import sys, plainsocket; print('prometheus_client' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.split() == [b"False"]


@pytest.mark.works_with("prometheus-client")
def test_before_anything_has_happened() -> None:
    with measured() as server:
        numbers = scrape(server)
    assert numbers["plainsocket_connections",] == 0
    assert numbers["plainsocket_messages_received_total",] == 0
    assert numbers["plainsocket_connection_duration_seconds_count",] == 0


class Echo(plainsocket.Endpoint):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


@pytest.mark.parametrize("handler", [echo, Echo], ids=["function", "Endpoint"])
def test_a_connection_is_counted_while_it_is_open_and_at_its_end(handler: Any) -> None:
    with measured({"/echo": handler}) as server:
        with connect(server.url()) as first, connect(server.url(), compression=None) as second:
            for peer in (first, second, second):
                peer.send("four")
                assert peer.recv(timeout=PATIENCE) == "four"
            wait_until(lambda: scrape(server)["plainsocket_connections",] == 2)
            numbers = scrape(server)
            sent = server.call(lambda: sum(ws.bytes_sent for ws in server.server.connections))
            assert numbers["plainsocket_connections_opened_total",] == 2
            assert numbers["plainsocket_messages_received_total",] == 3
            assert numbers["plainsocket_messages_sent_total",] == 3
            assert numbers["plainsocket_received_bytes_total",] == 3 * (2 + 4 + 4)
            assert numbers["plainsocket_sent_bytes_total",] == sent > 2 * len("HTTP/1.1 101") + 18
            assert numbers["plainsocket_connection_duration_seconds_count",] == 0
            second.close(4321, "a reason")
        wait_until(lambda: scrape(server)["plainsocket_connections",] == 0)
        numbers = scrape(server)
    assert numbers["plainsocket_connections_opened_total",] == 2
    assert numbers["plainsocket_connections_closed_total", "1000"] == 1
    assert numbers["plainsocket_connections_closed_total", "4xxx"] == 1
    assert numbers["plainsocket_messages_received_total",] == 3
    assert numbers["plainsocket_messages_sent_total",] == 3
    close_frames = (2 + 4 + 2) + (2 + 4 + 2 + len("a reason"))
    assert numbers["plainsocket_received_bytes_total",] == 30 + close_frames
    assert numbers["plainsocket_connection_duration_seconds_count",] == 2
    assert 0 < numbers["plainsocket_connection_duration_seconds_sum",] < PATIENCE


def test_under_pywsgis_own_server() -> None:
    metrics = Metrics(CollectorRegistry())

    class Handler(plainsocket.WebSocketHandler):
        options = plainsocket.Options(observer=metrics)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.websocket"].send("x")
        return []

    started = threading.Event()
    port: list[int] = []

    def run() -> None:
        server = WSGIServer(("127.0.0.1", 0), app, handler_class=Handler, log=None)
        server.start()
        port.append(server.server_port or 0)
        started.set()
        while parse(generate_latest(metrics._registry).decode())[CLOSED] < 1:
            gevent.sleep(0.01)
        server.stop()
        gevent.get_hub().destroy()

    CLOSED = ("plainsocket_connection_duration_seconds_count",)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    with connect(f"ws://127.0.0.1:{port[0]}/") as peer:
        assert peer.recv(timeout=PATIENCE) == "x"
    thread.join(PATIENCE)
    assert not thread.is_alive()
    numbers = parse(generate_latest(metrics._registry).decode())
    assert numbers["plainsocket_connections_opened_total",] == 1
    assert numbers["plainsocket_connections_closed_total", "1000"] == 1


def test_refusals_are_counted_by_status() -> None:
    def process_request(request: plainsocket.Request) -> None:
        if "guest" in request.query:
            raise plainsocket.Refused(401, "Log in first.")

    with measured({"/echo": echo}, process_request=process_request) as server:
        for _ in range(2):
            with pytest.raises(InvalidStatus, match="403"):
                connect(server.url(), origin=Origin("http://evil.example"))
        with pytest.raises(InvalidStatus, match="401"):
            connect(server.url("/echo?guest"))
        with RawClient(server.port) as client:
            client.send(b"hello?\r\n\r\n")
            assert client.receive_rest().startswith(b"HTTP/1.1 400 ")
        assert request(server.port, "GET", "/nothing")[0].status == 404  # the application's
        numbers = scrape(server)
    refused = {key[1]: value for key, value in numbers.items() if "refused" in key[0]}
    assert refused == {"400": 1, "401": 1, "403": 2}
    assert numbers["plainsocket_connections_opened_total",] == 0


def test_round_trips_are_counted_once_each() -> None:
    COUNT = ("plainsocket_ping_latency_seconds_count",)

    def handler(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            if message == "ping me":
                ws.ping()
            ws.send("done")

    with measured(handler) as server, connect(server.url()) as peer:
        for message, expected in (("ping me", 1), ("don't", 1), ("ping me", 2)):
            peer.send(message)
            assert peer.recv(timeout=PATIENCE) == "done"
            assert scrape(server)[COUNT] == expected
        numbers = scrape(server)
        assert numbers[COUNT] == 2
        assert 0 < numbers["plainsocket_ping_latency_seconds_sum",] < PATIENCE
        peer.send("ping me")
        assert peer.recv(timeout=PATIENCE) == "done"
        peer.close()
        wait_until(lambda: scrape(server)["plainsocket_connections_closed_total", "1000"] == 1)
        assert scrape(server)[COUNT] == 3


def test_nothing_that_a_peer_chooses_freely_gets_into_the_text() -> None:
    with measured() as server:
        for code in (*range(3000, 3010), *range(4000, 4010)):
            with connect(
                server.url(f"/HIDDEN{code}?token=HIDDEN"),
                additional_headers={"X-HIDDEN": "HIDDEN", "Cookie": "HIDDEN=HIDDEN"},
                user_agent_header="HIDDEN",
            ) as peer:
                peer.close(code, "HIDDEN")
        with RawClient(server.port) as client:
            client.send(client.request("/HIDDEN", origin="http://HIDDEN"))
            client.receive_rest()
        wait_until(lambda: scrape(server)["plainsocket_connections",] == 0)
        text = scrape_text(server)
    assert "HIDDEN" not in text
    assert "127.0.0.1" not in text
    numbers = parse(text)
    closed = {key[1:]: value for key, value in numbers.items() if "closed" in key[0]}
    assert closed == {("3xxx",): 10, ("4xxx",): 10}


def test_a_closed_websocket_is_not_kept() -> None:
    references: list[weakref.ref[plainsocket.WebSocket]] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        references.append(weakref.ref(ws))
        echo(ws)

    gc.disable()
    try:
        with measured(handler) as server:
            with connect(server.url()):
                wait_until(lambda: references)
                wait_until(lambda: scrape(server)["plainsocket_connections",] == 1)
            wait_until(lambda: references[0]() is None)
            assert scrape(server)["plainsocket_connections_closed_total", "1000"] == 1
    finally:
        gc.enable()


def test_a_connection_whose_handler_was_killed_is_not_open() -> None:
    greenlets: list[Any] = []
    kept: list[plainsocket.WebSocket] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        greenlets.append(gevent.getcurrent())
        kept.append(ws)
        echo(ws)

    with measured(handler) as server, connect(server.url()) as peer:
        peer.send("x")
        assert peer.recv(timeout=PATIENCE) == "x"
        wait_until(lambda: scrape(server)["plainsocket_connections",] == 1)
        server.call(greenlets[0].kill)
        numbers = scrape(server)
    assert numbers["plainsocket_connections",] == 0
    assert numbers["plainsocket_connections_closed_total", "1006"] == 1
    assert numbers["plainsocket_messages_received_total",] == 1


def test_the_end_may_be_told_before_the_beginning() -> None:
    kept: list[plainsocket.WebSocket] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        kept.append(ws)
        ws.abort()

    with measured(handler) as server:
        with RawClient(server.port) as client:
            client.send(client.request())
            client.receive_rest()
        wait_until(lambda: scrape(server)["plainsocket_connections_opened_total",] == 1)
        numbers = scrape(server)
    assert numbers["plainsocket_connections",] == 0
    assert numbers["plainsocket_connections_closed_total", "1006"] == 1
    assert numbers["plainsocket_connection_duration_seconds_count",] == 1


@pytest.mark.parametrize("from_outside", [False, True], ids=["by HTTP", "from another thread"])
def test_counters_never_go_back(monkeypatch: pytest.MonkeyPatch, from_outside: bool) -> None:
    """While connections come and go, and the scrape lets others have their turn."""
    monkeypatch.setattr(metrics_module, "_SLICE", 1)
    metrics = Metrics(CollectorRegistry())
    stop = threading.Event()
    total = [0]

    def come_and_go(url: str) -> None:
        while not stop.is_set():
            with connect(url) as peer:
                for _ in range(3):
                    peer.send("x")
                    peer.recv(timeout=PATIENCE)
                total[0] += 3

    def counters(server: Running) -> Numbers:
        if from_outside:
            numbers = parse(generate_latest(metrics._registry).decode())
        else:
            numbers = scrape(server)
        return {key: value for key, value in numbers.items() if not key[0].endswith("connections")}

    with serving(observer=metrics, app=metrics.app()) as server:
        threads = [threading.Thread(target=come_and_go, args=(server.url(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            before: Numbers = {}
            for _ in range(100):
                now = counters(server)
                assert all(now[key] >= value for key, value in before.items())
                before = now
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        wait_until(lambda: not server.server.connections)
        numbers = scrape(server)
        wait_until(lambda: scrape(server)["plainsocket_connections",] == 0)
        assert numbers["plainsocket_messages_received_total",] == total[0] > 0
        closed = sum(value for key, value in numbers.items() if "_closed_total" in key[0])
        assert closed == numbers["plainsocket_connections_opened_total",] == total[0] / 3


def test_the_route() -> None:
    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"the page"]

    metrics = Metrics(CollectorRegistry(), namespace="chat")
    app = metrics.app(page, path="/numbers")
    with serving({"/echo": echo}, observer=metrics, app=app) as server:
        response, body = request(server.port, "GET", "/numbers?any")
        assert response.status == 200
        assert response.getheader("Content-Type", "").startswith("text/plain; version=")
        assert parse(body.decode())["chat_connections",] == 0
        with RawClient(server.port) as client:
            client.send(b"HEAD /numbers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            head = client.receive_head()
            assert head.startswith("HTTP/1.1 200 ")
            length = int(re.findall(r"Content-Length: (\d+)", head)[0])
            assert abs(length - len(body)) < 10
            assert client.receive_rest() == b""
        response, body = request(server.port, "POST", "/numbers")
        assert (response.status, response.getheader("Allow"), body) == (405, "GET, HEAD", b"")
        for path in ("/", "/numbers/", "/metrics"):
            assert request(server.port, "GET", path)[1] == b"the page"
    with measured() as server:
        assert request(server.port, "GET", "/")[0].status == 404


def test_two_in_one_registry_have_names_of_their_own() -> None:
    registry = CollectorRegistry(auto_describe=True)
    Metrics(registry)
    Metrics(registry, namespace="other")
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(registry)
