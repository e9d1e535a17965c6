"""The client against a server that breaks every rule: each end is a documented one, in time."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from peers import good_answer, nothing_left, raw_server, read_head
from plainsocket import ConnectionClosed, WebSocketError, connect
from plainsocket.frames import Opcode, header, is_valid_close_code
from rawclient import frame

OWN_CODES = {1002, 1005, 1006, 1007, 1008, 1009}  # besides those that a server may send
DEADLINE = 10.0  # seconds, on a machine that does other work too


def good_frames(choose: random.Random) -> bytes:
    frames = [
        frame(Opcode.TEXT, "Zoë".encode(), mask=False),
        frame(Opcode.BINARY, choose.randbytes(choose.choice([0, 1, 125, 126, 70_000])), mask=False),
        frame(Opcode.TEXT, b"frag", fin=False, mask=False),
        frame(Opcode.CONTINUATION, b"ment", mask=False),
        frame(Opcode.PING, b"x", mask=False),
        frame(Opcode.PONG, b"", mask=False),
        frame(Opcode.CLOSE, b"\x0f\xa0bye", mask=False),
    ]
    return b"".join(choose.sample(frames, choose.randint(0, len(frames))))


def bad_frames(choose: random.Random) -> bytes:
    return choose.choice(
        [
            frame(Opcode.TEXT, b"masked"),
            frame(Opcode.TEXT, b"\xff\xfe", mask=False),
            frame(Opcode.TEXT, b"rsv", rsv=0x40, mask=False),
            frame(Opcode.PING, b"x" * 125, fin=False, mask=False),
            header(Opcode.PING, 126) + b"x" * 126,
            header(0x3, 1) + b"x",
            header(0xF, 0),
            header(Opcode.BINARY, (1 << 63) - 1),
            b"\x82\xff" + b"\xff" * 8,
            b"\x82\x7e\x00\x01x",
            frame(Opcode.CLOSE, b"\x00", mask=False),
            frame(Opcode.CLOSE, b"\x03\xed", mask=False),
            frame(Opcode.CLOSE, b"\x0f\xa0\xff", mask=False),
            frame(Opcode.CONTINUATION, b"", mask=False),
            choose.randbytes(choose.randint(1, 50)),
        ]
    )


def mutated(data: bytes, choose: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 1, 2, 5])):
        place = choose.randrange(len(changed) + 1)
        kind = choose.randrange(5)
        if kind == 0:
            changed[place:place] = choose.choice([b"\0", b"\r\n", b"\n", b" ", b":", b"\xff", b","])
        elif kind == 1:
            del changed[place : place + choose.choice([1, 2, 20])]
        elif kind == 2 and place < len(changed):
            changed[place] = choose.randrange(256)
        elif kind == 3:
            changed[place:place] = changed[place : place + choose.randint(1, 60)]
        else:
            changed[place:place] = choose.randbytes(choose.randint(1, 30))
    return bytes(changed)


def answer_of(request: bytes, choose: random.Random) -> bytes:
    kind = choose.randrange(8)
    if kind == 0:
        return choose.randbytes(choose.randint(0, 300))
    if kind == 1:
        status = choose.choice([b"200 OK", b"302 Found", b"404", b"503 x", b"101 x", b"199 x"])
        coding = choose.choice(
            [
                b"Content-Length: 7\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Location: /\xff\r\n",
                b"",
            ]
        )
        return b"HTTP/1.1 " + status + b"\r\n" + coding + b"\r\n" + choose.randbytes(40)
    good = good_answer(request)
    if kind == 2:
        return mutated(good, choose) + good_frames(choose)
    if kind == 3:
        return mutated(good + good_frames(choose), choose)
    return good + good_frames(choose) + bad_frames(choose) + good_frames(choose)


def server_of(seed: int) -> Callable[[Any], None]:
    """Answer in pieces, end anywhere, in every way that a socket can."""
    choose = random.Random(seed)

    def handle(sock: Any) -> None:
        answer = answer_of(read_head(sock), choose)
        if choose.random() < 0.3:
            answer = answer[: choose.randrange(len(answer) + 1)]
        while answer:
            size = choose.choice([1, 7, 100, 100_000])
            sock.sendall(answer[:size])
            answer = answer[size:]
            if size < 100 and choose.random() < 0.2:
                gevent.sleep(0)
        end = choose.randrange(4)
        if end == 0:
            sock.shutdown(1)
        if end < 3:
            while sock.recv(65536):
                pass

    return handle


def talk(port: int) -> str:
    """Open, take what comes, answer, close; return what came of it."""
    try:
        ws = connect(
            f"ws://127.0.0.1:{port}/",
            open_timeout=0.3,
            close_timeout=0.1,
            message_timeout=0.5,
            ping_interval=0.5,
            ping_timeout=0.5,
            max_message_size=100_000,
            max_redirects=1,
        )
    except (WebSocketError, TimeoutError, ConnectionError) as error:
        return type(error).__name__
    with ws:
        try:
            while True:
                message = ws.receive(0.05)
                assert isinstance(message, (str, bytes))
                ws.send(message)
        except TimeoutError:
            pass
        except ConnectionClosed:
            pass
    assert ws.closed
    assert ws.close_code is not None
    assert is_valid_close_code(ws.close_code) or ws.close_code in OWN_CODES
    return str(ws.close_code)


def fuzz(seeds: range) -> None:
    ends = set()
    with nothing_left(greenlets=True):
        for start in range(seeds.start, seeds.stop, 100):
            with gevent.Timeout(DEADLINE * 4, AssertionError(f"hangs after seed {start}")):
                greenlets = [gevent.spawn(one, seed) for seed in range(start, start + 100)]
                gevent.joinall(greenlets, raise_error=True)
                ends |= {greenlet.value for greenlet in greenlets}
    # Or it has missed what it is for.
    assert ends >= {"HandshakeError", "HandshakeRefused", "1002", "4000"}


def one(seed: int) -> str:
    try:
        with raw_server(server_of(seed)) as port, gevent.Timeout(DEADLINE, AssertionError("hangs")):
            return talk(port)
    except BaseException as error:
        error.add_note(f"seed {seed}") if hasattr(error, "add_note") else None
        raise


def test_a_server_that_breaks_every_rule() -> None:
    fuzz(range(100))


@pytest.mark.slow
def test_for_longer() -> None:
    start = int(os.environ.get("PLAINSOCKET_FUZZ_SEED", "1000"))
    fuzz(range(start, start + 1000))
