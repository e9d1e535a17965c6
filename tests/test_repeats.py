"""Up requests that repeat the head of the one before: no other than those that are read as ever."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

import plainsocket
from page import (
    CONTENT_TYPE,
    CREDIT,
    DATA,
    END,
    NewSession,
    Records,
    Reply,
    data_records,
    open_body,
    post,
    record,
    replies,
    up_body,
)
from plainsocket.frames import Opcode, header
from plainsocket.handler import WebSocketHandler
from plainsocket.repeats import RepeatingHandler
from rawclient import RawClient
from serving import PATIENCE, echo, serving, wait_until


class Client(RawClient):
    """A page with one WebSocket, which sends all of its requests on one connection."""

    def __init__(self, port: int, token: bytes = b"", *, origin: str | None = None) -> None:
        """`token`: of a session that is there."""
        super().__init__(port)
        self.offset = 0
        self.told = 0  # how far the stream was when a request was answered
        self.taken = 0  # how much of it has come
        self._records = Records()
        self._messages = b""
        self.token = token
        if not token:
            origins = {} if origin is None else {"origin": origin}
            self.stream: Reply = post(port, "/echo", open_body(), **origins)
            head = self.stream.read_exactly(2)
            self.token = NewSession(head + self.stream.read_exactly(head[1] + 21)).token

    def __enter__(self) -> Client:
        return self

    def head(
        self, size: int, *, origin: str | None = None, version: str = "1.1", **more: str
    ) -> bytes:
        fields = {
            "Host": f"127.0.0.1:{self.port}",
            "Content-Type": CONTENT_TYPE,
            "Origin": origin or f"http://127.0.0.1:{self.port}",
            "Content-Length": str(size),
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        lines = [
            f"POST /echo HTTP/{version}",
            *(f"{name}: {value}" for name, value in fields.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def request(self, text: str = "usual", **more: Any) -> bytes:  # type: ignore[override]
        """One with this message."""
        data = data_records(1, header(Opcode.TEXT, len(text), fin=True) + text.encode())
        return self.with_data(data, **more)

    def with_data(self, data: bytes, *, received: int = 0, **more: Any) -> bytes:
        body = up_body(self.token, self.offset, data, received)
        self.offset += len(data)
        return self.head(len(body), **more) + body

    def answer(self) -> tuple[int, list[str]]:
        """Of the next one its status and its headers without the date and the session's books."""
        head = self.receive_head().split("\r\n")
        told = [line for line in head if line.startswith("Plainsocket: ")]
        if told:
            up, self.told = map(int, told[0].split()[1:])
            assert up == self.offset
        dates = [line for line in head if line.startswith("Date: ")]
        assert len(dates) == 1
        assert re.fullmatch(r"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", dates[0])
        return int(head[0].split()[1]), sorted(set(head[1:]) - set(told) - set(dates))

    def message(self) -> str:
        """The next one that comes back."""
        while len(self._messages) < 2 or len(self._messages) < 2 + self._messages[1]:
            data = self.stream.read_some()
            self.taken += len(data)
            for kind, _, payload in self._records.feed(data):
                self._messages += payload if kind == DATA else b""
        size = 2 + self._messages[1]
        text, self._messages = self._messages[2:size], self._messages[size:]
        return text.decode("latin-1")


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request, in order, whether pywsgi's work was spared."""
    taken: list[bool] = []

    def get_environ(self: WebSocketHandler) -> dict[str, Any]:
        taken.append(False)
        return WebSocketHandler.get_environ(self)

    def handle_one_request(self: RepeatingHandler) -> Any:
        before = len(taken)
        result = usual(self)
        if result is True and len(taken) == before:
            taken.append(True)
        return result

    usual = RepeatingHandler.handle_one_request
    monkeypatch.setattr(RepeatingHandler, "get_environ", get_environ)
    monkeypatch.setattr(RepeatingHandler, "handle_one_request", handle_one_request)
    return taken


@pytest.fixture
def client(repeated: list[bool]) -> Iterator[Client]:
    with serving(stop_timeout=0.1) as running, Client(running.port) as client:
        del repeated[:]  # the open
        yield client
        while replies:
            replies.pop().close()


def is_repeated(repeated: list[bool], count: int) -> list[bool]:
    """Of so many requests; the page may have the answer before that is noted."""
    wait_until(lambda: len(repeated) == count)
    return repeated


def test_all_but_the_first_of_them(client: Client, repeated: list[bool]) -> None:
    answers = []
    for number in range(5):
        client.send(client.request(f"{number:05}"))
        answers.append(client.answer())
        assert client.message() == f"{number:05}"
        assert client.told == client.taken  # it was sent before the answer
    assert answers == [answers[0]] * 5
    assert answers[0][0] == 204
    assert is_repeated(repeated, 5) == [False, True, True, True, True]


def test_an_answer_to_another_origin(repeated: list[bool]) -> None:
    other = "http://elsewhere.example"
    with serving(stop_timeout=0.1, origins=[other]) as running:
        answers = []
        with Client(running.port, origin=other) as client:
            for _ in range(3):
                client.send(client.request(origin=other))
                answers.append(client.answer())
        while replies:
            replies.pop().close()
    assert answers == [answers[0]] * 3
    assert f"Access-Control-Allow-Origin: {other}" in answers[0][1]
    assert repeated[1:] == [False, True, True]


def test_one_that_comes_in_pieces(client: Client, repeated: list[bool]) -> None:
    client.send(client.request())
    client.answer()
    request = client.request()
    for cut in (1, 40, len(request) - 1):
        client.send(request[:cut])
        assert client.message() == "usual"  # the one before
        client.send(request[cut:])
        assert client.answer()[0] == 204
        request = client.request()
    assert is_repeated(repeated, 4) == [False] * 4


def test_one_of_which_a_whole_record_has_come(client: Client, repeated: list[bool]) -> None:
    message = header(Opcode.TEXT, 2, fin=True) + b"hi"
    records = data_records(1, message) * 2
    for _ in range(2):
        request = client.with_data(records)
        client.send(request[:-12])
        time.sleep(0.1)
        client.send(request[-12:])
        assert client.answer()[0] == 204
    assert [client.message() for _ in range(4)] == ["hi"] * 4
    assert is_repeated(repeated, 2) == [False, False]


def test_bytes_of_a_message_that_look_like_a_record(client: Client, repeated: list[bool]) -> None:
    client.send(client.request())
    client.answer()
    inner = record(DATA, 1, TEXT)
    whole = record(DATA, 1, header(Opcode.BINARY, 20, fin=True) + b"first" + inner)
    for part in (whole[:15], whole[15:]):
        client.send(client.with_data(part))
        assert client.answer()[0] == 204
    assert client.message() == "usual"
    assert client.message() == "first" + inner.decode("latin-1")
    assert is_repeated(repeated, 3) == [False, False, False]


def test_over_http_1_0(client: Client) -> None:
    answers = []
    for _ in range(3):
        client.send(client.request(version="1.0", Connection="keep-alive"))
        answers.append(client.answer())
    assert answers == [answers[0]] * 3
    assert "Connection: keep-alive" in answers[0][1]


def test_requests_of_the_application(repeated: list[bool]) -> None:
    """Behind one of the carrier's, whatever their bodies look like."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("201 Created", [("Content-Length", "0")])
        return []

    with serving({"/echo": echo}, app=app, stop_timeout=0.1) as running:
        with Client(running.port) as client:
            client.send(client.request())
            assert client.answer()[0] == 204
            for _ in range(2):
                request = client.request()
                client.offset -= 15
                client.send(request.replace(CONTENT_TYPE.encode(), b"text/plain"))
                assert client.receive_head().split()[1] == "201"
        while replies:
            replies.pop().close()


def test_a_session_of_another_origin(repeated: list[bool]) -> None:
    """Its token is worth nothing among requests of this one."""
    other = "http://elsewhere.example"
    with serving(stop_timeout=0.1, origins=["self", other]) as running:
        with Client(running.port) as client:
            client.send(client.request())
            assert client.answer()[0] == 204
            with Client(running.port, origin=other) as page:
                client.token, client.offset = page.token, 0
            client.send(client.request())
            assert client.receive_head().split()[1] == "410"
        while replies:
            replies.pop().close()


def test_two_at_once(client: Client) -> None:
    client.send(client.request("first"))
    client.answer()
    one, end = client.request("2"), client.offset
    two = client.request("3")
    client.send(one + two)
    client.offset, after = end, client.offset
    assert client.answer()[0] == 204
    client.offset = after
    assert client.answer()[0] == 204
    assert [client.message() for _ in range(3)] == ["first", "2", "3"]


def test_another_head(client: Client, repeated: list[bool]) -> None:
    for more in ({}, {"Cookie": "a=1"}, {"Cookie": "a=2"}, {}):
        client.send(client.request(**more))
        assert client.answer()[0] == 204
        assert client.message() == "usual"
    assert is_repeated(repeated, 4) == [False] * 4


def test_the_same_bytes_once_more(client: Client, repeated: list[bool]) -> None:
    """As a proxy repeats them: they are not taken twice."""
    client.send(client.request())
    client.answer()
    again = client.request("again")
    for _ in range(3):
        client.send(again)
        assert client.answer()[0] == 204
    client.send(client.request("after"))
    assert client.answer()[0] == 204
    assert [client.message() for _ in range(3)] == ["usual", "again", "after"]
    assert is_repeated(repeated, 5) == [False, True, False, False, True]


TEXT = header(Opcode.TEXT, 5, fin=True) + b"usual"
OTHERS = {
    "of no kind": (record(9, 1, TEXT), 400),
    "not all of a record": (record(DATA, 1, TEXT + b"12345678")[:-8], 204),
    "no DATA": (record(CREDIT, 1, bytes(3) + b"\1") + bytes(3), 204),
    "a longer head": (b"\0\1" + record(DATA, 1, TEXT)[2:], 400),
    "no channel's": (record(DATA, 7, TEXT), 204),
    "the end": (record(END, 1) + record(END, 1)[:7], 204),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_records(client: Client, repeated: list[bool], kind: str) -> None:
    data, status = OTHERS[kind]
    assert len(data) == 15
    client.send(client.request())
    client.answer()
    client.send(client.with_data(data))
    assert client.answer()[0] == status
    assert repeated[:2] == [False, False]


def test_more_than_the_credit(repeated: list[bool]) -> None:
    """A page that sends on regardless is refused, as by any other request."""

    def deaf(ws: plainsocket.WebSocket) -> None:
        gevent.sleep(PATIENCE)

    limits = {"read_limit": 1024, "http_window": 64 << 10}
    with serving(deaf, stop_timeout=0.1, **limits) as running, Client(running.port) as client:
        status, count = 204, 0
        while status == 204:
            client.send(client.request("x" * 100))
            status, count = int(client.receive_head().split()[1]), count + 1
        while replies:
            replies.pop().close()
    assert status == 400
    assert 600 < count < 700
    assert repeated[1:] == [False, *[True] * (count - 2), False]


def test_what_is_refused(client: Client, repeated: list[bool]) -> None:
    cases: dict[str, tuple[Callable[[bytes], bytes], int]] = {
        "token": (lambda body: body[:10] + bytes([body[10] ^ 1]) + body[11:], 410),
        "no token": (lambda body: b"\2\0" + body[2:], 400),
        "acknowledged too much": (lambda body: body[:26] + b"\0\1" + body[28:], 400),
    }
    for change, status in cases.values():
        with Client(client.port) as page:
            del repeated[:]
            page.send(page.request())
            page.answer()
            request = page.request()
            head, _, body = request.partition(b"\r\n\r\n")
            page.send(head + b"\r\n\r\n" + change(body))
            assert page.receive_head().split()[1] == str(status)
            assert True not in repeated


def test_a_session_that_is_over(client: Client, repeated: list[bool]) -> None:
    client.send(client.request())
    client.answer()
    request = client.request()
    with Client(client.port, client.token) as other:
        other.offset = 15
        other.send(other.with_data(record(END)))
        assert other.answer()[0] == 204
    client.send(request)
    assert client.receive_head().split()[1] == "410"
    assert True not in repeated
