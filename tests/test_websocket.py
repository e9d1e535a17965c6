"""The WebSocket object, over real sockets, with the `websockets` package as the peer."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any

import gevent
import pytest
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

import plainsocket
from plainsocket.frames import Opcode
from plainsocket.protocol import FRAGMENT_SIZE, Message
from rawclient import RawClient, frame
from serving import PATIENCE, Running, serving, wait_until


class Kept:
    """A handler that hands its WebSocket to the test and keeps the connection until told to end."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.ws: Any = None
        self._end: Any = None

    def __call__(self, ws: plainsocket.WebSocket) -> None:
        self.ws = ws
        self._end = gevent.event.Event()
        self.ready.set()
        self._end.wait()

    def end(self) -> None:
        self._end.set()


@pytest.mark.parametrize(
    "message",
    ["", "text", "é𝄞\0", b"", b"\x00\xff" * 10, "é" * 100_000, b"x" * (1 << 20), "y" * 65536],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_messages_come_back_as_they_were(message: str | bytes) -> None:
    with serving() as server, connect(server.url(), max_size=None) as peer:
        peer.send(message)
        assert peer.recv(timeout=PATIENCE) == message


def test_fragments_with_a_ping_between_make_one_message() -> None:
    with serving() as server, RawClient(server.port) as client:
        client.open()
        client.send_frame(Opcode.TEXT, "é".encode()[:1], fin=False)
        client.send_frame(Opcode.PING, b"between")
        client.send_frame(Opcode.CONTINUATION, "é".encode()[1:] + b"!")
        assert client.receive_frame()[1] == b"between"
        assert client.receive_frame()[1].decode() == "é!"


def test_a_long_message_leaves_in_fragments_that_let_a_pong_through() -> None:
    size = 40 * FRAGMENT_SIZE

    def handler(ws: plainsocket.WebSocket) -> None:
        ws.send(bytes(size))
        ws.receive()

    with serving(handler) as server, RawClient(server.port, receive_buffer=65536) as client:
        client.open("/")
        client.send_frame(Opcode.PING, b"now")
        opcodes = []
        received = 0
        while received < size:
            head, payload = client.receive_frame()
            opcodes.append(head.opcode)
            if head.opcode != Opcode.PONG:
                assert len(payload) <= FRAGMENT_SIZE
                received += len(payload)
    assert opcodes[0] == Opcode.BINARY
    assert Opcode.PONG in opcodes[1:-1]


def test_bytes_behind_the_handshake_are_not_lost() -> None:
    with serving() as server, RawClient(server.port) as client:
        early = b"".join(frame(Opcode.TEXT, b"%d" % number) for number in range(100))
        client.send(client.request() + early)
        assert " 101 " in client.receive_head()
        for number in range(100):
            assert client.receive_frame()[1] == b"%d" % number


def test_sends_of_many_greenlets_never_interleave() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        def sender(letter: str) -> None:
            for size in (1, 70_000, 300_000, 5) * 5:
                ws.send(letter * size)

        gevent.joinall([gevent.spawn(sender, letter) for letter in "abcdefgh"], raise_error=True)

    sizes: dict[str, list[int]] = {}
    with (
        serving(handler, write_limit=100_000) as server,
        connect(server.url("/"), max_size=None) as peer,
    ):
        for message in peer:
            assert message == message[:1] * len(message)
            sizes.setdefault(str(message[:1]), []).append(len(message))
    assert sizes == {letter: [1, 70_000, 300_000, 5] * 5 for letter in "abcdefgh"}


def test_iteration_ends_and_receive_raises_at_the_end() -> None:
    seen: list[Any] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        seen.extend(ws)
        seen.append(ws.wait())
        assert ws.closed
        with pytest.raises(plainsocket.ConnectionClosed) as raised:
            ws.receive()
        seen.append((raised.value.code, raised.value.reason, ws.close_code, ws.close_reason))
        with pytest.raises(plainsocket.ConnectionClosed):
            ws.send(object())  # type: ignore[arg-type]  # closed comes before the argument
        seen.append("done")

    with serving(handler) as server:
        with connect(server.url()) as peer:
            peer.send("one")
            peer.close(4321, "why")
        wait_until(lambda: seen[-1:] == ["done"])
    assert seen == ["one", None, (4321, "why", 4321, "why"), "done"]


def test_messages_before_the_close_are_all_received_before_closed_turns_true() -> None:
    kept = Kept()
    with serving(kept) as server:
        with RawClient(server.port) as client:
            client.open("/")
            assert kept.ready.wait(PATIENCE)
            client.send(
                frame(Opcode.TEXT, b"1")
                + frame(Opcode.TEXT, b"2")
                + frame(Opcode.CLOSE, b"\x03\xe8")
            )
            assert client.receive_close() == (1000, "")
        ws = kept.ws
        assert server.call(lambda: (ws.closed, ws.close_code)) == (False, 1000)
        assert server.call(ws.receive) == "1"
        assert server.call(lambda: (ws.wait(), ws.closed)) == ("2", True)
        server.call(kept.end)


def test_replies_to_what_came_with_the_close_still_leave() -> None:
    with serving() as server, RawClient(server.port) as client:
        client.open()
        client.send(frame(Opcode.TEXT, b"last words") + frame(Opcode.CLOSE, b"\x03\xe8"))
        assert client.receive_frame()[1] == b"last words"
        assert client.receive_close() == (1000, "")


def test_receive_times_out_and_loses_nothing() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0.05)
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0)
        ws.send("now")
        ws.send(ws.receive(timeout=PATIENCE))

    with serving(handler) as server, connect(server.url()) as peer:
        assert peer.recv(timeout=PATIENCE) == "now"
        peer.send("late")
        assert peer.recv(timeout=PATIENCE) == "late"


def test_timeouts_and_kills_around_receive_leave_nothing_behind() -> None:
    """Each wait that is broken off is followed by another wait of the same greenlet: a wake-up
    left over would end that one early."""
    failures: list[Any] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        got = 0
        while got < 200:
            try:
                with gevent.Timeout(0.001):
                    assert ws.receive() == str(got)
                    got += 1
            except gevent.Timeout:
                before = time.monotonic()
                gevent.sleep(0.002)
                if time.monotonic() - before < 0.0015:
                    failures.append("woken early")
        ws.send("all")

    with serving(handler) as server, connect(server.url()) as peer:
        for number in range(200):
            peer.send(str(number))
            time.sleep(0.0013 if number % 3 else 0)
        assert peer.recv(timeout=PATIENCE) == "all"
    assert failures == []


def test_a_second_receiver_is_refused() -> None:
    kept = Kept()
    with serving(kept) as server, connect(server.url("/")) as peer:
        assert kept.ready.wait(PATIENCE)
        first = server.call(lambda: gevent.spawn(kept.ws.receive))
        with pytest.raises(RuntimeError, match="another greenlet"):
            server.call(kept.ws.receive)
        peer.send("for the first")
        assert server.call(first.get) == "for the first"
        server.call(kept.end)


def test_calls_from_another_thread_are_refused() -> None:
    kept = Kept()
    with serving(kept) as server, connect(server.url("/")):
        assert kept.ready.wait(PATIENCE)
        for call in (kept.ws.receive, lambda: kept.ws.send("x"), kept.ws.ping, kept.ws.close):
            with pytest.raises(RuntimeError, match="thread"):
                call()
        server.call(kept.end)


def test_waiting_in_the_hub_is_refused() -> None:
    kept = Kept()
    errors: list[str] = []

    def in_hub() -> None:
        try:
            kept.ws.receive()
        except RuntimeError as error:
            errors.append(str(error))

    with serving(kept) as server, connect(server.url("/")):
        assert kept.ready.wait(PATIENCE)
        server.call(lambda: gevent.get_hub().loop.run_callback(in_hub))
        wait_until(lambda: errors)
        server.call(kept.end)
    assert "hub" in errors[0]


@pytest.mark.parametrize("bad", [None, 1, ["x"], object()])
def test_what_is_not_a_message_is_a_type_error(bad: Any) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        with pytest.raises(TypeError):
            ws.send(bad)
        ws.send(bytearray(b"fine"))

    with serving(handler) as server, connect(server.url("/")) as peer:
        assert peer.recv(timeout=PATIENCE) == b"fine"


def test_ping_returns_the_round_trip() -> None:
    latencies: list[float | None] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        latencies.append(ws.latency)
        latencies.append(ws.ping())
        latencies.append(ws.latency)

    with serving(handler) as server, connect(server.url()) as peer, pytest.raises(PeerClosed):
        peer.recv(timeout=PATIENCE)
    assert latencies[0] is None
    assert latencies[1] == latencies[2]
    assert latencies[1] is not None
    assert 0 < latencies[1] < PATIENCE


def test_ping_without_a_pong_times_out_or_ends_with_the_connection() -> None:
    raised: list[BaseException] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        for _ in range(2):
            try:
                ws.ping()
            except OSError as error:
                raised.append(error)

    with serving(handler, ping_timeout=0.3, ping_interval=None) as server:
        with RawClient(server.port) as client:
            client.open()
            client.receive_frame()
            client.receive_frame()
        wait_until(lambda: len(raised) == 2)
    assert [type(error) for error in raised] == [TimeoutError, plainsocket.ConnectionClosed]


def test_close_sends_what_was_accepted_before() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        ws.send(bytes(5_000_000))
        ws.close(4000, "so long")
        ws.close(4001)  # does nothing
        with pytest.raises(plainsocket.ConnectionClosed) as raised:
            ws.send("too late")
        assert raised.value.code == 4000

    with serving(handler) as server, connect(server.url(), max_size=None) as peer:
        assert len(peer.recv(timeout=PATIENCE)) == 5_000_000
        with pytest.raises(PeerClosed):
            peer.recv(timeout=PATIENCE)
        assert (peer.close_code, peer.close_reason) == (4000, "so long")


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (2000, ""), (1000, "é" * 62)])
def test_close_refuses_what_may_not_be_sent(code: int, reason: str) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        with pytest.raises(ValueError, match="close"):
            ws.close(code, reason)
        ws.send("still open")

    with serving(handler) as server, connect(server.url()) as peer:
        assert peer.recv(timeout=PATIENCE) == "still open"


def test_messages_received_while_closing_still_count() -> None:
    kept = Kept()
    with serving(kept) as server:
        with RawClient(server.port) as client:
            client.open("/")
            assert kept.ready.wait(PATIENCE)
            server.call(kept.ws.close)
            client.receive_close()
            client.send_frame(Opcode.TEXT, b"in flight")
            client.send_frame(Opcode.CLOSE, b"\x03\xe8")
            assert server.call(kept.ws.receive) == "in flight"
            assert server.call(kept.ws.wait) is None
        server.call(kept.end)


def test_what_a_websocket_tells_of_itself() -> None:
    seen: list[Any] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        seen.append((ws.path, ws.origin, ws.subprotocol, ws.extensions, ws.carrier))
        seen.append((ws.environ["QUERY_STRING"], ws.environ["REQUEST_METHOD"], ws.closed))
        seen.append((ws.close_code, ws.close_reason, ws.buffered_amount))

    with serving(handler, subprotocols=["b", "a"], origins=["https://example.com"]) as server:
        url = server.url("/caf%C3%A9?x=1")
        offer = [Subprotocol("a"), Subprotocol("b")]
        with connect(url, origin=Origin("https://example.com"), subprotocols=offer) as peer:
            assert peer.subprotocol == "b"
    assert seen == [
        ("/café", "https://example.com", "b", (), "tcp"),
        ("x=1", "GET", False),
        (None, "", 0),
    ]


def test_a_slow_reader_makes_send_wait() -> None:
    kept = Kept()
    with serving(kept, write_limit=50_000) as server:
        with RawClient(server.port, receive_buffer=65536) as client:
            client.open("/")
            assert kept.ready.wait(PATIENCE)
            sent: list[int] = []

            def send_all() -> None:
                for number in range(400):
                    kept.ws.send(bytes(40_000))
                    sent.append(number)

            sending = server.call(lambda: gevent.spawn(send_all))
            wait_until(lambda: server.call(lambda: kept.ws.buffered_amount) >= 50_000)
            counts = [-1]

            def stands_still() -> bool:
                counts.append(len(sent))
                time.sleep(0.2)
                return counts[-2] == counts[-1]

            wait_until(stands_still)
            assert len(sent) < 400
            assert server.call(lambda: kept.ws.buffered_amount) < 50_000 + 40_010
            for _ in range(400):
                assert len(client.receive_frame()[1]) == 40_000
            server.call(sending.get)
        server.call(kept.end)


def test_a_timeout_in_send_withdraws_nothing_that_was_accepted() -> None:
    outcome: list[Any] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        number = 0
        while True:
            try:
                with gevent.Timeout(0.1):
                    ws.send(f"{number:>100000}")
                number += 1
            except gevent.Timeout:
                break
        outcome.append(number)
        ws.receive()
        ws.send("end")

    with (
        serving(handler, write_limit=200_000) as server,
        RawClient(server.port, receive_buffer=65536) as client,
    ):
        client.open()
        wait_until(lambda: outcome)
        client.send_frame(Opcode.TEXT, b"go on")
        received = []
        while (payload := client.receive_frame()[1]) != b"end":
            received.append(int(payload))
    assert received == list(range(outcome[0]))


def test_a_peer_that_sends_without_end_is_not_read_ahead() -> None:
    kept = Kept()
    with serving(kept) as server, RawClient(server.port) as client:
        client.open("/")
        client.socket.settimeout(0.5)
        message = frame(Opcode.BINARY, bytes(10_000))
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 100_000_000:
                client.send(message)
                sent += len(message)
        assert server.call(lambda: kept.ws._messages_size) < 200_000
        server.call(kept.end)


def test_a_receiver_that_always_finds_messages_lets_others_have_their_turn() -> None:
    turns: list[int] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        def take_turns() -> None:
            while True:
                turns.append(1)
                gevent.sleep(0)

        other = gevent.spawn(take_turns)
        for number, _ in enumerate(ws):
            time.sleep(0.001)  # work that does not let the loop run
            if number == 50:
                break
        assert turns
        other.kill()
        ws.send("done")

    with serving(handler) as server, RawClient(server.port) as client:
        client.send(client.request() + frame(Opcode.TEXT, b"x") * 100)
        client.receive_head()
        assert client.receive_frame()[1] == b"done"


def test_those_who_have_sent_in_one_turn_of_the_loop_are_served_in_that_order() -> None:
    received: list[Message] = []

    def handler(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            received.append(message)
            ws.send(message)

    with serving(handler) as server, ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(20)]
        for client in clients:
            client.open()
        for shift in range(3):
            received.clear()
            order = clients[shift:] + clients[:shift]

            def send_all(order: list[RawClient] = order) -> None:  # the loop stands still meanwhile
                for number, client in enumerate(order):
                    client.send(frame(Opcode.TEXT, b"%d" % number))

            # The kernel remembers who was ready until it is asked again.
            server.call(lambda: gevent.sleep(0.001))
            server.call(send_all)
            for number, client in enumerate(order):
                assert client.receive_frame()[1] == b"%d" % number
            assert received == [str(number) for number in range(20)]


def test_running_reaches_the_servers_thread() -> None:
    """The tests' own tool: a result and an error both come back."""
    with serving() as server:
        assert isinstance(server, Running)
        assert server.call(lambda: 5) == 5
        with pytest.raises(ZeroDivisionError):
            server.call(lambda: 1 // 0)
