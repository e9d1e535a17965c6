"""What a handler sends while it works through one read's messages leaves together, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import cycle, islice

import gevent
import pytest

import plainsocket
from plainsocket.frames import Opcode
from rawclient import RawClient, frame
from serving import serving

# Of each way that a frame can take: small, as text and with a head of each size, too large to be
# copied, in fragments, and of a mutable kind.
SIZES = [0, 1, 125, 126, 5000, 16_384, 32_767, 32_768, 65_536, 300_000]

Sent = str | bytes | bytearray


def messages(count: int) -> list[Sent]:
    makers: list[Callable[[int], Sent]] = [
        lambda size: "a" * size,
        lambda size: "€" * (size // 3),
        lambda size: b"\x80" * size,
        lambda size: bytearray(b"\x81" * size),
    ]
    pairs = zip(cycle(SIZES), cycle([*makers, makers[0], makers[2], makers[0]]), strict=False)
    return [maker(size) for size, maker in islice(pairs, count)]


def received(client: RawClient) -> str | bytes:
    whole, kind = b"", 0
    while True:
        head, payload = client.receive_frame()
        kind = head.opcode or kind
        whole += payload
        if head.fin:
            return whole.decode() if kind == Opcode.TEXT else whole


def several(count: int) -> bytes:
    return b"".join(frame(Opcode.TEXT, b"%d" % number) for number in range(count))


@pytest.mark.parametrize("receive_buffer", [None, 4096])
def test_all_that_is_sent_at_once_comes_in_order(receive_buffer: int | None) -> None:
    sent = messages(140)

    def answer(ws: plainsocket.WebSocket) -> None:
        for number in ws:
            for message in sent[int(number) * 20 : int(number) * 20 + 20]:
                ws.send(message)
            ws.send(number)

    with (
        serving(answer, write_limit=1 << 30) as server,
        RawClient(server.port, receive_buffer=receive_buffer) as client,
    ):
        client.open()
        client.send(several(7))
        for number in range(7):
            for message in sent[number * 20 : number * 20 + 20]:
                got = received(client)
                assert got == (message if isinstance(message, str) else bytes(message))
            assert received(client) == str(number)


def test_what_the_kernel_takes_in_part_comes_in_order() -> None:
    count, size = 3000, 5000  # more than the kernel keeps for a peer that does not read yet

    def answer(ws: plainsocket.WebSocket) -> None:
        for _ in ws:
            for number in range(count):
                ws.send(b"%0*d" % (size, number))

    with (
        serving(answer, write_limit=1 << 30) as server,
        RawClient(server.port, receive_buffer=4096) as client,
    ):
        client.open()
        client.send_frame(Opcode.TEXT, b"go")
        client.send_frame(Opcode.PING)
        for number in range(count):
            head, payload = client.receive_frame()
            if head.opcode == Opcode.PONG:
                head, payload = client.receive_frame()
            assert payload == b"%0*d" % (size, number)


def test_who_sends_to_others_meanwhile_mixes_nothing_up() -> None:
    connected: dict[str, plainsocket.WebSocket] = {}

    def tell_all(ws: plainsocket.WebSocket) -> None:
        connected[ws.path] = ws
        for message in ws:
            for path, other in connected.items():
                other.send(f"{path} {message!s}")
                other.send(b"x" * 10)

    with (
        serving(tell_all) as server,
        RawClient(server.port) as one,
        RawClient(server.port) as two,
    ):
        for client, path in ((one, "/one"), (two, "/two")):
            client.open(path)
            client.send_frame(Opcode.PING)
            client.receive_frame()
        one.send(several(50))
        for number in range(50):
            for client, path in ((one, "/one"), (two, "/two")):
                assert received(client) == f"{path} {number}"
                assert received(client) == b"x" * 10


def test_what_is_no_text_takes_nothing_with_it() -> None:
    def answer(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            ws.send(message)
            for bad, error in (("\ud800", UnicodeEncodeError), (1, TypeError)):
                with pytest.raises(error):
                    ws.send(bad)  # type: ignore[arg-type]

    with serving(answer) as server, RawClient(server.port) as client:
        client.open()
        client.send(several(5))
        assert [received(client) for _ in range(5)] == ["0", "1", "2", "3", "4"]


def test_pings_and_the_end_keep_their_places() -> None:
    def answer(ws: plainsocket.WebSocket) -> None:
        ws.send(ws.receive())
        ws.send(ws.receive())
        ws.close(4000, "enough")

    with serving(answer) as server, RawClient(server.port) as client:
        client.open()
        client.send(several(2) + frame(Opcode.PING, b"p"))
        frames = [client.receive_frame() for _ in range(4)]
        assert sorted(payload for _, payload in frames[:3]) == [b"0", b"1", b"p"]
        assert frames[3][0].opcode == Opcode.CLOSE


def test_a_handler_that_waits_lets_go_what_it_sent() -> None:
    may_go_on = threading.Event()

    def answer(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            ws.send(message)
            while not may_go_on.is_set():
                gevent.sleep(0.01)

    with serving(answer) as server, RawClient(server.port) as client:
        client.open()
        client.send(several(3))
        assert received(client) == "0"  # although the next one waits to be answered as well
        may_go_on.set()
        assert [received(client), received(client)] == ["1", "2"]


def test_in_several_threads_at_once() -> None:
    """Each has a hub of its own, and only one of them the place where frames are put together."""

    def busy(ws: plainsocket.WebSocket) -> None:
        for message in ws:
            ws.send(message)
            sum(range(2000))  # long enough for others to have their turn now and then
            ws.send(f"{ws.path} {message!s}")

    with serving(busy) as first, serving(busy) as second:
        clients = [(RawClient(server.port), name) for server in (first, second) for name in "ab"]
        for client, name in clients:
            client.open(f"/{name}")
        for _ in range(20):
            for client, _ in clients:
                client.send(several(100))
            for client, name in clients:
                for number in range(100):
                    assert received(client) == str(number)
                    assert received(client) == f"/{name} {number}"
        for client, _ in clients:
            client.socket.close()
