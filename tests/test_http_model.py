"""Both ends of the http carrier with requests that are cut, repeated and reordered at random.

Every message has to arrive, each way: once, in order, intact.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import gevent
import pytest

import page as pages
import plainsocket
from page import POLL, STREAM, Page, Reply, Upload, post
from serving import PATIENCE, serving

Message = str | bytes

LASTING = ("lasts", "lasts, cut", "lasts, deaf", "lasts, repeat", "lasts, late")


def messages(seed: Any, count: int) -> list[Message]:
    """Of many sizes, most of them small; each can be told from all others."""
    chance = random.Random(f"{seed}")
    made: list[Message] = []
    for number in range(count):
        size = chance.choice((0, 1, 20, 100, 124, 126, 300))
        if chance.random() < 0.003:
            size = chance.choice((16_384, 65_536, 70_000, 300_000))
        text = f"{number} " + "\N{SNOWMAN}" * (size // 3)
        made.append(text if chance.random() < 0.5 else text.encode() + chance.randbytes(size))
    return made


class Both:
    """A handler that sends and receives at the same time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.received: dict[str, list[Message]] = {}
        self.codes: list[int | None] = []

    def __call__(self, ws: plainsocket.WebSocket) -> None:
        received = self.received[ws.path] = []
        sender = gevent.spawn(self._send, ws)
        received.extend(ws)
        sender.join()
        self.codes.append(ws.close_code)

    def _send(self, ws: plainsocket.WebSocket) -> None:
        for message in messages(f"down {ws.path}", self.count):
            ws.send(message)


class Chaos:
    """Sends requests as a bad network and bad proxies do."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []
        self.is_calm = False

    def _choose(self, *ways: str) -> str:
        with self._lock:
            way = "well" if self.is_calm else self._chance.choice(ways)
            self.done[way] += 1
            return way

    def _number(self, most: int) -> int:
        with self._lock:
            return self._chance.randint(0, most)

    def __call__(self, port: int, path: str, body: bytes, **headers: str | None) -> Reply:
        if body[0] == 1:
            way = self._choose("well", "repeat")
        elif body[0] == 2:
            way = self._choose("well", "well", "well", "lose", "cut", "deaf", "repeat", "late")
        else:
            way = self._choose("lose", *["cut answer"] * 6, "repeat")
        if way == "lose":
            raise OSError("lost")
        if way == "late":
            self.pause()
        if way == "cut":
            self._send_part(port, path, body)
            raise OSError("cut")
        if way == "repeat":
            self._repeat(port, path, body, headers)
        reply = post(port, path, body, **headers)
        if way == "deaf":
            reply.close()
            raise OSError("the answer was lost")
        if way == "cut answer" or (body[0] == 1 and reply.status == 200):
            return CutReply(reply, 100 + self._number(self._number(30_000)))
        return reply

    def choose_lasting(self) -> str:
        """How an up request that lasts fares; "no": it is one with a length."""
        return self._choose("no", "no", *LASTING)

    def chunks(self, data: bytes) -> Iterator[bytes]:
        places = sorted({self._number(len(data)) for _ in range(3)} | {0, len(data)})
        return (data[start:end] for start, end in itertools.pairwise(places))

    def beginning(self, data: bytes) -> bytes:
        return data[: self._number(len(data))]

    def pause(self) -> None:
        time.sleep(self._number(20) / 1000)

    def _send_part(self, port: int, path: str, body: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                f"Origin: http://127.0.0.1:{port}\r\nContent-Type: {pages.CONTENT_TYPE}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + self.beginning(body))

    def _repeat(self, port: int, path: str, body: bytes, headers: Any) -> None:
        """Once before, and once some time behind."""

        def again() -> None:
            time.sleep(self._number(50) / 1000)
            try:
                reply = post(port, path, body, **headers)
            except OSError:
                return
            if body[0] != 2:
                time.sleep(0.005)
            reply.close()

        thread = threading.Thread(target=again, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)


class CutReply(Reply):
    """An answer that ends after so many bytes."""

    def __init__(self, reply: Reply, left: int) -> None:
        super().__init__(reply.connection, reply.response)
        self._reply = reply
        self._left = left

    def read_some(self) -> bytes:
        if self._left <= 0:
            raise OSError("cut")
        data = self._reply.read_some()[: self._left]
        self._left -= len(data)
        return data

    def read_exactly(self, size: int) -> bytes:
        self._left -= size
        return self._reply.read_exactly(size)


class Restless(Page):
    """A page that cuts its stream into requests at random, and changes its mode now and then."""

    def __init__(self, port: int, chaos: Chaos, seed: int, mode: int) -> None:
        super().__init__(port, seconds=1, credit=100_000, mode=mode, request=chaos)
        self._chance = random.Random(seed)
        self._chaos = chaos

    def piece(self) -> int:
        return int(self._chance.triangular(1, 16_000, 1))

    def _ask(self) -> tuple[Reply | None, int]:
        if self._chance.random() < 0.2:
            self.mode = self._chance.choice((STREAM, POLL))
        return super()._ask()

    def _send(self, offset: int, data: bytes, received: int) -> None:
        way = self._chaos.choose_lasting() if data else "no"
        if not way.startswith("lasts"):
            super()._send(offset, data, received)
            return
        if way == "lasts, late":
            self._chaos.pause()
        try:
            with contextlib.ExitStack() as stack:
                uploads = [
                    stack.enter_context(Upload(self.port, self.token, offset=offset))
                    for _ in range(2 if way == "lasts, repeat" else 1)
                ]
                if way == "lasts, cut":
                    chunk = b"%x\r\n%b" % (len(data), data)
                    uploads[0].send(self._chaos.beginning(chunk))
                    raise OSError("cut")
                self._write_pieces(uploads, offset, data)
                if way == "lasts, deaf":
                    uploads[0].end_unheard()
                    raise OSError("the answer was lost")
                heads = [upload.end() for upload in uploads]
        except (OSError, AssertionError):  # or the server has cut it
            self._again()
            return
        for head in heads:
            told = re.search(r"(?im)^plainsocket: (.+)\r$", head)
            self._settle(int(head.split()[1]), told and told[1])

    def _write_pieces(self, uploads: list[Upload], offset: int, data: bytes) -> None:
        """As many as follow each other, each when the last one was acknowledged."""
        while data:
            for chunk in self._chaos.chunks(data):
                for upload in uploads:
                    upload.write(chunk)
            offset += len(data)
            with self._changed:
                if not self._changed.wait_for(partial(self._has_taken, offset), 0.3):
                    return
                data = self._take_piece() if self._up_sent == offset else b""

    def _has_taken(self, offset: int) -> bool:
        """Whether the server has."""
        return self._up_start >= offset


def digest(received: list[Message]) -> str:
    return hashlib.sha256(repr(received).encode()).hexdigest()


def run(seed: int, mode: int, count: int, paths: list[str]) -> Counter[str]:
    handler = Both(count)
    chaos = Chaos(seed)
    with (
        serving(handler, http_window=300_000, stop_timeout=0.1) as running,
        Restless(running.port, chaos, seed, mode) as page,
    ):
        sockets = {path: page.socket(path) for path in paths}

        def send(path: str) -> None:
            for message in messages(f"up {path}", count):
                sockets[path].send(message)

        threads = [threading.Thread(target=send, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for path, ws in sockets.items():
            expected = messages(f"down {path}", count)
            got = [ws.receive(60.0) for _ in expected]
            assert digest(got) == digest(expected)
        for thread in threads:
            thread.join()
        chaos.is_calm = True
        for ws in sockets.values():
            ws.close()
            assert ws.closed.wait(PATIENCE)
            assert ws.close_frame == (1000, "")
            assert ws.messages.empty()
        assert page.status is None
        chaos.join()
        chaos.done["ACK"] = page.acks
    for path in paths:
        assert digest(handler.received[path]) == digest(messages(f"up {path}", count))
    assert handler.codes == [1000] * len(paths)
    print(f"seed {seed}: {dict(chaos.done)}")
    return chaos.done


def test_some_messages() -> None:
    run(seed=3, mode=POLL, count=150, paths=["/one", "/two"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_thousand_messages_each_way(seed: int) -> None:
    done = run(seed, mode=STREAM, count=2500, paths=["/one", "/two", "/three", "/four"])
    assert all(done[way] for way in ("lose", "cut", "deaf", "late", "repeat", "cut answer"))
    assert all(done[way] for way in (*LASTING, "ACK"))
