"""reconnecting(): when it tries again, and after how long."""

from __future__ import annotations

import email.utils
import logging
import os
import random
import ssl
import time
from typing import Any

import gevent
import pytest
import trustme

import plainsocket
from peers import answering, good_answer, nothing_left, raw_server, tls_server_context
from plainsocket import HandshakeError, HandshakeRefused, ProxyError, reconnecting
from plainsocket.backoff import is_final
from serving import PATIENCE, serving


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Any:
    with nothing_left():
        yield


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What it waits, instead of waiting; each time the longest that chance allows."""
    waited: list[float] = []
    monkeypatch.setattr(gevent, "sleep", waited.append)
    monkeypatch.setattr(random, "uniform", lambda low, high: low + high)
    return waited


def test_the_next_connection_comes_when_one_is_over() -> None:
    def once(ws: plainsocket.WebSocket) -> None:
        ws.send("hello")

    taken = []
    with serving(once) as server:
        for ws in reconnecting(server.url(), min_delay=0.01):
            with ws:
                taken += list(ws)
            if len(taken) == 3:
                break
    assert taken == ["hello"] * 3


def test_a_connection_left_open_is_closed_first() -> None:
    with serving() as server:
        connections = reconnecting(server.url(), min_delay=0.001)
        first = next(connections)
        second = next(connections)
        assert first.close_code == 1000
        second.send("x")
        assert second.receive(PATIENCE) == "x"
        second.finish()


def test_delays_double_and_start_afresh(delays: list[float]) -> None:
    refusals = 5

    def process(request: plainsocket.Request) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise plainsocket.Refused(503)

    with serving(process_request=process) as server:
        connections = reconnecting(server.url(), min_delay=1, max_delay=9, stable_after=1e6)
        next(connections)
        assert delays == [1, 2, 4, 8, 9]
        next(connections)
        assert delays[5:] == [9]  # the one before did not live for long
        connections._stable_after = 0
        next(connections)
        assert delays[6:] == [1]
        next(connections).finish()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("0", 0), ("99999", 3600), ("-1", 0), ("soon", 0), ("9" * 5000, 3600)],
)
def test_retry_after(value: str, seconds: float, delays: list[float]) -> None:
    check_retry_after(value, delays)
    assert delays == [seconds + 1]


def test_retry_after_a_date(delays: list[float]) -> None:
    check_retry_after(email.utils.formatdate(time.time() + 100, usegmt=True), delays)
    assert 91 <= delays[0] <= 102
    delays.clear()
    check_retry_after("Thu, 01 Jan 1970 00:00:00 GMT", delays)
    assert delays == [1]


def check_retry_after(value: str, delays: list[float]) -> None:
    def process(request: plainsocket.Request) -> None:
        if not delays:
            raise plainsocket.Refused(429, "", [("Retry-After", value)])

    with serving(process_request=process) as server:
        next(reconnecting(server.url())).finish()


def test_jitter_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(gevent, "sleep", waited.append)
    with pytest.raises(ConnectionRefusedError):
        next(reconnecting("ws://127.0.0.1:1/", min_delay=10, max_delay=10, attempts=60))
    assert len(waited) == 59
    assert min(waited) < 2 < 8 < max(waited) <= 10


def refusal(status: int) -> HandshakeRefused:
    return HandshakeRefused(status, "", [], b"")


@pytest.mark.parametrize(
    ("error", "final"),
    [
        *[(refusal(status), True) for status in (200, 301, 400, 401, 403, 404, 426)],
        *[(refusal(status), False) for status in (408, 425, 429, 500, 502, 503, 504)],
        (HandshakeError("no"), True),
        (ProxyError("no", 407), True),
        (ProxyError("no", 502), False),
        (ProxyError("no"), False),
        (ssl.SSLCertVerificationError(), True),
        (ssl.SSLEOFError(), False),
        (TimeoutError(), False),
        (ConnectionRefusedError(), False),
    ],
    ids=repr,
)
def test_which_errors_are_final(error: OSError, final: bool) -> None:
    assert is_final(error) is final


def test_final_errors_are_raised(delays: list[float]) -> None:
    with (
        raw_server(answering(lambda _: b"HTTP/1.1 404 Not Found\r\n\r\n")) as port,
        pytest.raises(HandshakeRefused, match="404"),
    ):
        next(reconnecting(f"ws://127.0.0.1:{port}"))
    context = tls_server_context(trustme.CA(), "localhost")
    with serving(ssl_context=context) as server, pytest.raises(ssl.SSLCertVerificationError):
        next(reconnecting(f"wss://localhost:{server.port}"))
    assert delays == []
    with pytest.raises(ConnectionRefusedError):
        next(reconnecting("ws://127.0.0.1:1/", is_final=lambda error: True))
    for wrong in ({"attempts": 0}, {"min_delay": 0}, {"min_delay": 5, "max_delay": 1}):
        with pytest.raises(ValueError, match="must be"):
            reconnecting("ws://127.0.0.1:1/", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fragment"):
        reconnecting("ws://127.0.0.1:1/#x")


def test_a_log_of_it_holds_no_secret(delays: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plainsocket")
    with pytest.raises(ConnectionRefusedError):
        next(reconnecting("ws://me:secret@127.0.0.1:1/?token=secret", attempts=2))
    (record,) = caplog.records
    assert "127.0.0.1:1: " in record.getMessage()
    assert "secret" not in caplog.text


def test_a_server_that_comes_back() -> None:
    """What dies in the middle of a handshake is tried again."""
    answers = [b"", b"HTTP/1.1 101 Swi", b"HTTP/1.1 503 \r\nRetry-After: 0\r\n\r\n"]

    def answer(request: bytes) -> bytes:
        return answers.pop(0) if answers else good_answer(request)

    with raw_server(answering(answer)) as port:
        with gevent.Timeout(PATIENCE):
            ws = next(reconnecting(f"ws://127.0.0.1:{port}", min_delay=0.01))
        assert ws.wait() is None
