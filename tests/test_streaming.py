"""Messages sent and received in pieces, over real sockets: send_stream, receive_stream."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.client import connect

import plainsocket
from plainsocket.frames import Opcode, header
from plainsocket.protocol import FRAGMENT_SIZE, Message
from plainsocket.stream import MessageStream
from processes import Program, running
from rawclient import RawClient, frame
from serving import PATIENCE, serving, wait_until

OFFER = "permessage-deflate; client_max_window_bits"
MB = 1 << 20


class Outcome:
    """What a handler has to tell the test."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def wait(self, count: int) -> list[Any]:
        wait_until(lambda: len(self.seen) >= count)
        return self.seen


@pytest.fixture
def outcome() -> Outcome:
    return Outcome()


def raised_by(call: Callable[[], object]) -> Any:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        return error
    return None


# -- sending -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "alone", "context"])
@pytest.mark.parametrize(
    "pieces",
    [
        ["one"],
        ["", "one ", "", "é𝄞", ""],
        [""],
        [b"\x00", b"\xff" * 10],
        [b""],
        ["long " * 50_000, "x" * (FRAGMENT_SIZE * 3), "end"],
        [os.urandom(1000)] * 50,
        [bytes(300_000)] * 9,
    ],
    ids=lambda pieces: f"{type(pieces[0]).__name__}-{len(pieces)}x{len(pieces[0])}",
)
def test_pieces_make_one_message(
    pieces: list[Any], compression: str | None, outcome: Outcome
) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        for _ in range(2):
            ws.send_stream(iter(pieces))
            ws.send("after")
        outcome.seen.append(ws.messages_sent)

    options = {
        "compression": compression is not None,
        "compression_context": compression == "context",
    }
    with serving(handler, **options) as server, connect(server.url("/"), max_size=None) as peer:
        for _ in range(2):
            assert peer.recv(timeout=PATIENCE) == type(pieces[0])().join(pieces)
            assert peer.recv(timeout=PATIENCE) == "after"
    assert outcome.wait(1) == [4]


def test_each_piece_leaves_as_soon_as_it_is_there() -> None:
    go_on = threading.Event()

    def pieces() -> Iterator[str]:
        yield "first"
        while not go_on.is_set():
            gevent.sleep(0.01)
        yield "second"

    with (
        serving(lambda ws: ws.send_stream(pieces())) as server,
        RawClient(server.port) as client,
    ):
        client.open("/")
        head, payload = client.receive_frame()
        assert (head.opcode, head.fin, payload) == (Opcode.TEXT, False, b"first")
        client.send_frame(Opcode.PING, b"between")
        assert client.receive_frame()[1] == b"between"
        go_on.set()
        head, payload = client.receive_frame()
        assert (head.opcode, head.fin, payload) == (Opcode.CONTINUATION, False, b"second")
        head, payload = client.receive_frame()
        assert (head.opcode, head.fin, payload) == (Opcode.CONTINUATION, True, b"")


def test_no_pieces_no_message() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        ws.send_stream([])
        ws.send("next")

    with serving(handler) as server, connect(server.url("/")) as peer:
        assert peer.recv(timeout=PATIENCE) == "next"


def test_other_senders_wait_their_turn() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        def pieces(letter: str) -> Iterator[str]:
            for size in (1, 70_000, 5, 300_000) * 2:
                gevent.sleep(0)
                yield letter * size

        def sender(letter: str) -> None:
            for _ in range(3):
                ws.send(letter.upper() * 1000)
                ws.send_stream(pieces(letter))

        gevent.joinall([gevent.spawn(sender, letter) for letter in "abcd"], raise_error=True)

    sizes: dict[str, list[int]] = {}
    with (
        serving(handler, write_limit=100_000) as server,
        connect(server.url("/"), max_size=None) as peer,
    ):
        for message in peer:
            assert message == message[:1] * len(message)
            sizes.setdefault(str(message[:1]), []).append(len(message))
    assert sizes == {
        **{letter: [740_012] * 3 for letter in "abcd"},
        **{letter: [1000] * 3 for letter in "ABCD"},
    }


def test_a_slow_peer_is_waited_for_and_memory_stays_bounded(outcome: Outcome) -> None:
    total = 20 * MB
    most = 0

    def handler(ws: plainsocket.WebSocket) -> None:
        def pieces() -> Iterator[bytes]:
            nonlocal most
            for _ in range(total // 50_000):
                most = max(most, ws.buffered_amount)
                yield bytes(50_000)

        ws.send_stream(pieces())

    with (
        serving(handler, write_limit=100_000) as server,
        RawClient(server.port, receive_buffer=65536) as client,
    ):
        client.open("/")
        wait_until(lambda: most >= 100_000)  # the kernel has room for a part of it
        received = 0
        while True:
            head, payload = client.receive_frame()
            received += len(payload)
            if head.fin:
                break
    assert received == total // 50_000 * 50_000
    assert 100_000 <= most < 200_000


def test_a_peer_that_takes_nothing_fails_the_connection(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        outcome.seen.append(raised_by(lambda: ws.send_stream(bytes(50_000) for _ in range(10**6))))

    with (
        serving(handler, send_timeout=0.5) as server,
        RawClient(server.port, receive_buffer=4096) as client,
    ):
        client.open("/")
        [error] = outcome.wait(1)
    assert isinstance(error, plainsocket.ConnectionClosed)
    assert error.code == 1006


@pytest.mark.parametrize(
    "last", [ZeroDivisionError(), gevent.GreenletExit(), b"bytes", 5, "\ud800"], ids=repr
)
def test_half_a_message_fails_the_connection(last: Any, outcome: Outcome) -> None:
    def pieces() -> Iterator[Any]:
        yield "half a "
        if isinstance(last, BaseException):
            raise last
        yield last

    def handler(ws: plainsocket.WebSocket) -> None:
        outcome.seen.append(type(raised_by(lambda: ws.send_stream(pieces()))))
        outcome.seen.append(raised_by(lambda: ws.send("more")))

    with serving(handler) as server, connect(server.url("/")) as peer:
        with pytest.raises(PeerClosed) as closed:
            peer.recv(timeout=PATIENCE)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "message broken off")
    expected = {bytes: TypeError, int: TypeError, str: UnicodeEncodeError}
    raised, then = outcome.wait(2)
    assert raised is expected.get(type(last), type(last))
    assert isinstance(then, plainsocket.ConnectionClosed)


@pytest.mark.parametrize("first", [ZeroDivisionError(), 5, None, "\ud800"], ids=repr)
def test_an_error_before_the_first_piece_harms_nothing(first: Any) -> None:
    def pieces() -> Iterator[Any]:
        if isinstance(first, BaseException):
            raise first
        yield first

    def handler(ws: plainsocket.WebSocket) -> None:
        with pytest.raises((ZeroDivisionError, TypeError, UnicodeEncodeError)):
            ws.send_stream(pieces())
        ws.send("unharmed")

    with serving(handler) as server, connect(server.url("/")) as peer:
        assert peer.recv(timeout=PATIENCE) == "unharmed"


def test_a_kill_while_waiting_for_the_peer_fails_the_connection(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        sender = gevent.spawn(ws.send_stream, (bytes(50_000) for _ in range(10**6)))
        while ws.buffered_amount < 200_000:
            gevent.sleep(0.01)
        waiting = gevent.spawn(raised_by, lambda: ws.send("behind it"))
        gevent.sleep(0)
        sender.kill()
        outcome.seen.append(waiting.get(timeout=PATIENCE))

    with (
        serving(handler, write_limit=200_000, close_timeout=0.5) as server,
        RawClient(server.port, receive_buffer=4096) as client,
    ):
        client.open("/")
        [error] = outcome.wait(1)
    assert isinstance(error, plainsocket.ConnectionClosed)
    assert error.code == 1011


def test_senders_behind_a_stream_learn_of_the_end_at_once(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        go_on = gevent.event.Event()

        def pieces() -> Iterator[str]:
            yield "half"
            go_on.wait()
            yield "whole"

        streams = gevent.spawn(raised_by, lambda: ws.send_stream(pieces()))
        gevent.sleep(0)
        senders = [gevent.spawn(raised_by, lambda: ws.send("behind it")) for _ in range(3)]
        outcome.seen += [sender.get(timeout=PATIENCE) for sender in senders]
        go_on.set()
        outcome.seen.append(streams.get(timeout=PATIENCE))

    with serving(handler) as server:
        with RawClient(server.port) as client:
            client.open("/")
            client.receive_frame()
        errors = outcome.wait(4)
    assert all(isinstance(error, plainsocket.ConnectionClosed) for error in errors)


def test_what_is_streamed_from_cannot_send(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        def pieces() -> Iterator[str]:
            yield "one"
            outcome.seen.append(raised_by(lambda: ws.send("two")))
            outcome.seen.append(raised_by(lambda: ws.send_stream(["two"])))
            yield "three"

        ws.send_stream(pieces())

    with serving(handler) as server, connect(server.url("/")) as peer:
        assert peer.recv(timeout=PATIENCE) == "onethree"
    assert [type(error) for error in outcome.wait(2)] == [RuntimeError] * 2


def test_a_closed_connection_is_told_first(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        ws.close()
        outcome.seen.append(raised_by(lambda: ws.send_stream(5)))  # type: ignore[arg-type]

    with serving(handler) as server, connect(server.url("/")):
        assert isinstance(outcome.wait(1)[0], plainsocket.ConnectionClosed)


# -- receiving -----------------------------------------------------------------------------------


def whole(stream: MessageStream) -> Message:
    pieces = list(stream)
    assert all(pieces)
    assert {type(piece) for piece in pieces} <= {str if stream.is_text else bytes}
    if stream.is_text:
        return "".join(str(piece) for piece in pieces)
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def stream_echo(ws: plainsocket.WebSocket) -> None:
    """Echo without ever having a message as a whole."""
    while True:
        stream = ws.receive_stream()
        if stream.is_text:
            ws.send("text:")
        pieces: Iterator[Any] = iter(stream)
        first = next(pieces, None)
        if first is None:
            ws.send("" if stream.is_text else b"")
        else:
            ws.send_stream(chain_first(first, pieces))


def chain_first(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


@pytest.mark.parametrize("compression", [False, True])
def test_messages_of_every_size_in_pieces(compression: bool) -> None:
    messages: list[Message] = ["", "a", "é𝄞" * 200_000, b"", bytes(3 * MB), os.urandom(200_000)]
    with (
        serving(stream_echo, compression=compression, max_message_size=1000) as server,
        connect(server.url("/"), max_size=None) as peer,
    ):
        for message in messages * 2:
            peer.send(message)
            if isinstance(message, str):
                assert peer.recv(timeout=PATIENCE) == "text:"
            assert peer.recv(timeout=PATIENCE) == message


def test_fragments_and_control_frames_between() -> None:
    with serving(stream_echo) as server, RawClient(server.port) as client:
        client.open("/")
        client.send_frame(Opcode.TEXT, b"", fin=False)
        assert client.receive_frame()[1] == b"text:"  # its kind is known before anything of it
        client.send_frame(Opcode.CONTINUATION, "é".encode()[:1], fin=False)
        client.send_frame(Opcode.PING, b"ping")
        assert client.receive_frame()[1] == b"ping"
        client.send_frame(Opcode.CONTINUATION, "é".encode()[1:], fin=False)
        assert client.receive_frame()[1] == "é".encode()
        client.send_frame(Opcode.CONTINUATION, b"!", fin=True)
        assert client.receive_frame()[1] == b"!"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 2000, 40_000])
def test_a_message_that_has_begun_or_come_before_it_was_asked_for(
    cut: int, compressed: bool, outcome: Outcome
) -> None:
    """Over the limit or below it: none of it is lost, and it is not refused."""
    texts = ["é" * 20_000, "é" * 200, "é" * 20_000]
    go_on = threading.Event()

    def handler(ws: plainsocket.WebSocket) -> None:
        while not go_on.is_set():
            gevent.sleep(0.01)
        for _ in texts:
            outcome.seen.append(whole(ws.receive_stream()))

    with (
        serving(handler, compression=True, max_message_size=10_000) as server,
        RawClient(server.port) as client,
    ):
        client.open("/", sec_websocket_extensions=OFFER)
        data = b""
        for text in texts:
            payload = deflated(text.encode()) if compressed else text.encode()
            data += frame(Opcode.TEXT, payload, rsv=0x40 if compressed else 0)
        client.send(data[: cut or len(data)])
        gevent.sleep(0.05)
        go_on.set()
        client.send(data[cut or len(data) :])
        assert outcome.wait(3) == texts


def deflated(payload: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("timeout", [None, 0.05])
def test_receive_refuses_what_waited_for_a_stream(
    timeout: float | None, compressed: bool, outcome: Outcome
) -> None:
    go_on = threading.Event()

    def handler(ws: plainsocket.WebSocket) -> None:
        outcome.seen.append(ws.receive())
        outcome.seen.append("waits")
        while not go_on.is_set():
            gevent.sleep(0.01)
        outcome.seen.append(raised_by(lambda: ws.receive(timeout)))

    with serving(handler, compression=True, max_message_size=1000) as server:
        with RawClient(server.port) as client:
            client.open("/", sec_websocket_extensions=OFFER)
            client.send_frame(Opcode.TEXT, b"short")
            outcome.wait(2)
            payload = deflated(bytes(2000)) if compressed else bytes(2000)
            client.send_frame(Opcode.BINARY, payload, rsv=0x40 if compressed else 0)
            go_on.set()
            assert client.receive_close() == (1009, "message over 1000 bytes")
        error = outcome.wait(3)[2]
    assert isinstance(error, plainsocket.ConnectionClosed)
    assert error.code == 1009


def test_a_handler_that_ends_refuses_it_too() -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        gevent.sleep(0.2)

    with (
        serving(handler, max_message_size=1000, close_timeout=1) as server,
        RawClient(server.port) as client,
    ):
        client.open("/")
        client.send_frame(Opcode.BINARY, bytes(2000))
        assert client.receive_close()[0] == 1000
        client.receive_rest()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_limit_of_its_own(compressed: bool, outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        outcome.seen.append(len(whole(ws.receive_stream(max_size=100_000))))
        stream = ws.receive_stream(max_size=99_999)
        outcome.seen.append(raised_by(lambda: whole(stream)))

    with (
        serving(handler, compression=True, max_message_size=1000) as server,
        RawClient(server.port) as client,
    ):
        client.open("/", sec_websocket_extensions=OFFER)
        payload = deflated(bytes(100_000)) if compressed else bytes(100_000)
        for _ in range(2):
            client.send_frame(Opcode.BINARY, payload[:50], rsv=0x40 * compressed, fin=False)
            client.send_frame(Opcode.CONTINUATION, payload[50:])
        assert client.receive_close() == (1009, "message over 99999 bytes")
        size, error = outcome.wait(2)
    assert size == 100_000
    assert isinstance(error, plainsocket.ConnectionClosed)
    assert error.code == 1009


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("how", ["receive", "receive_stream", "close", "with"])
def test_leaving_early_drops_the_rest_of_the_message(
    how: str, compressed: bool, outcome: Outcome
) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        for _ in range(2):
            stream = ws.receive_stream()
            outcome.seen.append(next(stream)[:5])
            if how == "close":
                stream.close()
            elif how == "with":
                with stream:
                    pass
            following = whole(ws.receive_stream()) if how == "receive_stream" else ws.receive()
            outcome.seen.append(following)
            outcome.seen.append(type(raised_by(partial(next, stream))))

    with serving(handler, compression=True) as server, RawClient(server.port) as client:
        client.open("/", sec_websocket_extensions=OFFER)
        payload = b"begin" + bytes(5 * MB)
        if compressed:
            payload = deflated(payload)
        for _ in range(2):
            client.send_frame(Opcode.BINARY, payload[:-9], rsv=0x40 * compressed, fin=False)
            client.send_frame(Opcode.CONTINUATION, payload[-9:])
            client.send_frame(Opcode.TEXT, b"next")
        assert outcome.wait(6) == [b"begin", "next", RuntimeError] * 2


def test_leaving_what_is_complete_but_not_taken(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        stream = ws.receive_stream()
        outcome.seen.append(next(stream))
        gevent.sleep(0.05)
        outcome.seen += [ws.receive(), ws.receive()]

    with serving(handler) as server, RawClient(server.port) as client:
        client.open("/")
        client.send(
            frame(Opcode.TEXT, b"a", fin=False)
            + frame(Opcode.CONTINUATION, b"b")
            + frame(Opcode.TEXT, b"c")
            + frame(Opcode.TEXT, b"d")
        )
        assert outcome.wait(3) == ["a", "c", "d"]


def test_a_timeout_loses_nothing(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        outcome.seen.append(type(raised_by(lambda: ws.receive_stream(0.05))))
        outcome.seen.append(ws.receive())
        outcome.seen.append(type(raised_by(lambda: ws.receive_stream(timeout=0.05))))
        outcome.seen.append(whole(ws.receive_stream(timeout=PATIENCE)))

    with serving(handler) as server, RawClient(server.port) as client:
        client.open("/")
        outcome.wait(1)
        client.send_frame(Opcode.TEXT, b"one")
        outcome.wait(3)
        client.send_frame(Opcode.BINARY, b"two")
        assert outcome.wait(4) == [TimeoutError, "one", TimeoutError, b"two"]


def test_a_connection_that_ends_within_a_message(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        stream = ws.receive_stream()
        outcome.seen.append(next(stream))
        outcome.seen.append(raised_by(lambda: next(stream)))
        outcome.seen.append(raised_by(lambda: next(stream)))
        outcome.seen.append(raised_by(ws.receive_stream))

    with serving(handler) as server:
        with RawClient(server.port) as client:
            client.open("/")
            client.send_frame(Opcode.TEXT, b"half", fin=False)
            outcome.wait(1)
        first, *errors = outcome.wait(4)
    assert first == "half"
    assert [type(error) for error in errors] == [plainsocket.ConnectionClosed] * 3


def test_one_receiver_at_a_time_and_none_for_an_endpoint(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        waiting = gevent.spawn(ws.receive)
        gevent.sleep(0)
        outcome.seen.append(raised_by(ws.receive_stream))
        outcome.seen.append(waiting.get(timeout=PATIENCE))

    class Other(plainsocket.Endpoint):
        def on_open(self) -> None:
            outcome.seen.append(raised_by(self.ws.receive_stream))

    with serving({"/": handler, "/endpoint": Other}) as server:
        with connect(server.url("/")) as peer:
            outcome.wait(1)
            peer.send("for the first")
            error, message = outcome.wait(2)
        with connect(server.url("/endpoint")):
            endpoint_error = outcome.wait(3)[2]
    assert "another greenlet" in str(error)
    assert message == "for the first"
    assert "on_message" in str(endpoint_error)


def test_text_that_is_not_utf8_ends_the_stream(outcome: Outcome) -> None:
    def handler(ws: plainsocket.WebSocket) -> None:
        stream = ws.receive_stream()
        outcome.seen.append(next(stream))
        outcome.seen.append(raised_by(lambda: next(stream)))

    with serving(handler) as server, RawClient(server.port) as client:
        client.open("/")
        client.send_frame(Opcode.TEXT, b"good", fin=False)
        outcome.wait(1)
        client.send_frame(Opcode.CONTINUATION, b"\xff", fin=False)
        assert client.receive_close()[0] == 1007
        assert outcome.wait(2)[1].code == 1007


def test_a_peer_waits_for_a_slow_reader(outcome: Outcome) -> None:
    """A bomb of 200 MB is inflated no faster than it is taken."""
    most = 0
    go_on = threading.Event()

    def handler(ws: plainsocket.WebSocket) -> None:
        nonlocal most
        total = 0
        stream = ws.receive_stream()
        outcome.seen.append("begun")
        while not go_on.is_set():
            gevent.sleep(0.01)
        for piece in stream:
            total += len(piece)
            most = max(most, ws._messages_size)
            if total % 7 == 0:
                gevent.sleep(0)
        outcome.seen.append(total)

    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(50 * MB)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    with serving(handler, compression=True) as server, RawClient(server.port) as client:
        client.open("/", sec_websocket_extensions=OFFER)
        client.send_frame(Opcode.BINARY, bomb[:-4], rsv=0x40)
        outcome.wait(1)
        go_on.set()
        assert outcome.wait(2)[1] == 50 * MB
    assert most < 4 * 65536


def test_many_compressed_messages_in_one_read_are_bounded(outcome: Outcome) -> None:
    most = 0
    count = 300

    def handler(ws: plainsocket.WebSocket) -> None:
        nonlocal most
        gevent.sleep(0.05)
        for _ in range(count):
            most = max(most, ws._messages_size)
            assert len(ws.receive()) == 100_000
        outcome.seen.append("done")

    with serving(handler, compression=True) as server, RawClient(server.port) as client:
        client.open("/", sec_websocket_extensions=OFFER)
        client.send(frame(Opcode.BINARY, deflated(bytes(100_000)), rsv=0x40) * count)
        outcome.wait(1)
    assert 0 < most < 400_000


SERVER = """
import plainsocket

def echo(ws):
    while True:
        ws.send_stream(ws.receive_stream())

with plainsocket.Server(echo, port=0, compression=True) as server:
    print("port", server.address[1], flush=True)
    server.serve_forever()
"""


def large_frames(size: int, *, compressed: bool) -> Iterator[tuple[bytes, bytes]]:
    """One message of `size` bytes: pieces of its payload, and what goes over the wire for each."""
    block = b"".join(
        b"%d: a line of text, and some noise %r\n" % (n, os.urandom(9)) for n in range(9999)
    )
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    for start in range(0, size, len(block)):
        payload = block[: size - start]
        wire = payload
        if compressed:
            wire = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        first, last = start == 0, start + len(block) >= size
        opcode = Opcode.BINARY if first else Opcode.CONTINUATION
        if compressed and last:
            wire = wire[:-4]
        rsv = 0x40 if compressed and first else 0
        yield payload, header(opcode, len(wire), fin=last, rsv=rsv, key=bytes(4)) + wire


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_a_large_message_through_an_echo_in_bounded_memory(
    compressed: bool, tmp_path: Path
) -> None:
    """As many MiB as PLAINSOCKET_STREAM_MB says; the figures are printed (`pytest -rP`)."""
    size = int(os.environ.get("PLAINSOCKET_STREAM_MB", "96")) * MB
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    sent, received = hashlib.sha1(), hashlib.sha1()

    def send(client: RawClient) -> None:
        for payload, wire in large_frames(size, compressed=compressed):
            sent.update(payload)
            client.send(wire)

    with running(sys.executable, str(program)) as server:
        port = int(server.wait_for(r"port (\d+)")[1])
        with RawClient(port) as client:
            client.socket.settimeout(PATIENCE)
            client.open("/", sec_websocket_extensions=OFFER if compressed else None)
            before = peak_memory(server)
            sender = threading.Thread(target=send, args=(client,), daemon=True)
            sender.start()
            total, inflater = 0, zlib.decompressobj(-15)
            file = client.socket.makefile("rb")
            while True:
                first, length = file.read(2)
                if length >= 126:
                    length = int.from_bytes(file.read(2 if length == 126 else 8), "big")
                payload = file.read(length)
                if compressed:
                    payload = inflater.decompress(payload)
                received.update(payload)
                total += len(payload)
                if first & 0x80:
                    break
            sender.join(PATIENCE)
            grown = peak_memory(server) - before
    print(f"{size >> 20} MiB, compressed: {compressed}; memory grew by {grown >> 10} KiB")
    assert total == size
    assert received.digest() == sent.digest()
    assert grown < 16 * MB


def peak_memory(program: Program) -> int:
    status = Path(f"/proc/{program._process.pid}/status").read_text()
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024
