"""broadcast: one message to many, on any carrier, held up by none of them."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from websockets.sync.client import connect

import plainsocket
from page import Page
from plainsocket import broadcast
from plainsocket.frames import Opcode
from plainsocket.protocol import FRAGMENT_SIZE
from rawclient import RawClient
from serving import PATIENCE, Running, echo, serving, wait_until


class Room:
    """Handlers that do nothing but be there."""

    def __init__(self) -> None:
        self.members: dict[str, plainsocket.WebSocket] = {}

    def handler(self, ws: plainsocket.WebSocket) -> None:
        self.members[ws.path] = ws
        for _ in ws:
            pass

    def endpoint(self) -> type[plainsocket.Endpoint]:
        members = self.members

        class Member(plainsocket.Endpoint):
            def on_open(self) -> None:
                members[self.ws.path] = self.ws

        return Member


@contextlib.contextmanager
def room_of(*names: str, **options: Any) -> Iterator[tuple[Room, Running, list[RawClient]]]:
    room = Room()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(room.handler, **options))
        clients = [stack.enter_context(RawClient(server.port)) for _ in names]
        for name, client in zip(names, clients, strict=True):
            client.open(name)
        wait_until(lambda: len(room.members) == len(names))
        yield room, server, clients


@pytest.mark.parametrize("kind", ["handler", "endpoint"])
def test_all_get_all_in_order_on_every_carrier(kind: str) -> None:
    room = Room()
    messages: list[str | bytes] = ["one", b"\x00two", "", "drei: ß" * 100, b"x" * 70_000]

    def send_all() -> list[plainsocket.WebSocket]:
        left_out = []
        for number, message in enumerate(messages):
            left_out += broadcast(room.members.values(), message)
            for ws in room.members.values():
                ws.send(str(number))  # behind what was broadcast before
        return left_out

    handler = room.handler if kind == "handler" else room.endpoint()
    with (
        serving(handler, compression=True, stop_timeout=0.1) as server,
        connect(server.url("/plain"), compression=None) as plain,
        connect(server.url("/deflate"), compression="deflate") as deflated,
        connect(server.url("/deflate-too"), compression="deflate") as deflated_too,
        Page(server.port, "/http") as page,
    ):
        channel = page.socket()
        wait_until(lambda: len(room.members) == 4)
        assert server.call(send_all) == []
        for peer in (plain, deflated, deflated_too):
            for number, message in enumerate(messages):
                assert peer.recv(timeout=PATIENCE) == message
                assert peer.recv(timeout=PATIENCE) == str(number)
        for number, message in enumerate(messages):
            assert channel.receive() == message
            assert channel.receive() == str(number)
        counts = server.call(lambda: {ws.messages_sent for ws in room.members.values()})
        assert counts == {2 * len(messages)}


def test_what_one_turn_sends_leaves_together_at_its_end() -> None:
    with room_of("/a", "/b") as (room, server, clients):

        def send() -> list[int]:
            for _ in range(3):
                broadcast(room.members.values(), "12345678")
            waiting = [ws.buffered_amount for ws in room.members.values()]
            gevent.sleep(0)  # others' turn
            gevent.sleep(0)
            return waiting + [ws.buffered_amount for ws in room.members.values()]

        assert server.call(send) == [30, 30, 0, 0]
        for client in clients:
            assert [client.receive_frame()[1] for _ in range(3)] == [b"12345678"] * 3


def test_more_than_are_flushed_in_a_row() -> None:
    names = [f"/{number}" for number in range(300)]
    with room_of(*names) as (room, server, clients):
        assert server.call(lambda: broadcast(room.members.values(), "to all")) == []
        for client in clients:
            assert client.receive_frame()[1] == b"to all"


def test_who_lags_behind_is_left_out_and_returned_and_others_are_not() -> None:
    limit, size = 50_000, 10_000
    with (
        room_of("/fast", write_limit=limit) as (room, server, (fast,)),
        RawClient(server.port, receive_buffer=4096) as slow,
    ):
        slow.open("/slow")
        wait_until(lambda: "/slow" in room.members)
        lagging = room.members["/slow"]
        sent = 0
        left_out: list[plainsocket.WebSocket] = []
        while not left_out:
            message = sent.to_bytes(size, "big")
            left_out = server.call(functools.partial(broadcast, _all(room), message))
            assert fast.receive_frame()[1] == message
            sent += 1
        assert left_out == [lagging]
        waiting = server.call(lambda: lagging.buffered_amount)
        assert limit <= waiting < limit + size + 4
        for number in range(sent - 1):  # nothing that was accepted is lost
            assert int.from_bytes(slow.receive_frame()[1], "big") == number
        wait_until(lambda: not server.call(lambda: lagging.buffered_amount))
        assert server.call(lambda: broadcast(_all(room), "again")) == []
        assert slow.receive_frame()[1] == b"again"


def _all(room: Room) -> list[plainsocket.WebSocket]:
    return list(room.members.values())


def test_more_than_the_limit_in_one_turn_to_who_reads() -> None:
    with room_of("/a", write_limit=100_000) as (room, server, (client,)):
        count = 100
        received: list[bytes] = []
        reader = threading.Thread(
            target=lambda: received.extend(client.receive_frame()[1] for _ in range(count))
        )
        reader.start()

        def send() -> None:  # 2 MB: it leaves as it comes, so far as the kernel takes it
            for number in range(count):
                while broadcast(_all(room), number.to_bytes(20_000, "big")):
                    gevent.sleep(0.001)

        server.call(send)
        reader.join(PATIENCE)
        assert [int.from_bytes(payload, "big") for payload in received] == list(range(count))


def test_what_has_not_left_only_because_the_turn_lasts_makes_nobody_slow() -> None:
    with room_of("/a", write_limit=5_000) as (room, server, (client,)):
        left_out = server.call(lambda: [broadcast(_all(room), b"x" * 4000) for _ in range(5)])
        assert left_out == [[]] * 5
        for _ in range(5):
            assert client.receive_frame()[1] == b"x" * 4000


def test_a_message_in_fragments() -> None:
    data = bytes(range(256)) * (FRAGMENT_SIZE // 256) + b"the rest"
    with room_of("/a", "/b", write_limit=1 << 20) as (room, server, clients):
        assert server.call(lambda: broadcast(_all(room), data)) == []
        for client in clients:
            first, second = client.receive_frame(), client.receive_frame()
            assert first[1] + second[1] == data
            assert (first[0].fin, second[0].fin) == (False, True)


def test_the_closing_and_the_closed_are_left_out() -> None:
    with room_of("/open", "/closing", "/closed") as (room, server, clients):
        still, closing, closed = clients
        closed.socket.close()
        wait_until(lambda: server.call(lambda: room.members["/closed"].closed))

        def send() -> list[plainsocket.WebSocket]:
            room.members["/closing"].close()
            return broadcast(_all(room), "hello")

        assert server.call(send) == []
        assert still.receive_frame()[1] == b"hello"
        assert closing.receive_frame()[0].opcode == Opcode.CLOSE


def test_closing_behind_a_broadcast() -> None:
    with room_of("/a") as (room, server, (client,)):

        def send() -> None:
            broadcast(_all(room), "the last")
            room.members["/a"].close(4000, "over")

        server.call(send)
        assert client.receive_frame()[1] == b"the last"
        assert client.receive_close() == (4000, "over")


def test_a_message_being_streamed_is_not_interrupted() -> None:
    with room_of("/a") as (room, server, (client,)):
        ws = room.members["/a"]
        go_on = gevent.event.Event()

        def pieces() -> Iterator[str]:
            yield "begun, "
            go_on.wait(PATIENCE)
            yield "ended"

        def send() -> list[plainsocket.WebSocket]:
            streamer = gevent.spawn(ws.send_stream, pieces())
            gevent.sleep(0)
            left_out = broadcast([ws], "in between")
            go_on.set()
            streamer.get(timeout=PATIENCE)
            return left_out + broadcast([ws], "behind")

        assert server.call(send) == [ws]
        payloads = [client.receive_frame()[1] for _ in range(4)]
        assert payloads == [b"begun, ", b"ended", b"", b"behind"]


def test_what_is_no_message_reaches_nobody() -> None:
    with room_of("/a") as (room, server, (client,)):
        wrong: list[Any] = [1, None, "\ud800"]
        for message in wrong:
            with pytest.raises((TypeError, UnicodeEncodeError)):
                server.call(functools.partial(broadcast, _all(room), message))
        assert server.call(lambda: broadcast(_all(room), bytearray(b"good"))) == []
        assert client.receive_frame()[1] == b"good"


def test_a_websocket_of_another_thread() -> None:
    with room_of("/a") as (room, _, _), pytest.raises(RuntimeError, match="thread"):
        broadcast(_all(room), "x")


def test_in_the_hub() -> None:
    with room_of("/a") as (room, server, (client,)):
        server.call(lambda: gevent.get_hub().loop.run_callback(broadcast, _all(room), "tick"))
        assert client.receive_frame()[1] == b"tick"


def test_the_sender_is_one_of_them() -> None:
    members: set[plainsocket.WebSocket] = set()

    def chat(ws: plainsocket.WebSocket) -> None:
        members.add(ws)
        for message in ws:
            broadcast(members, message)

    with (
        serving({"/chat": chat, "/echo": echo}) as server,
        RawClient(server.port) as first,
        RawClient(server.port) as second,
    ):
        first.open("/chat")
        second.open("/chat")
        wait_until(lambda: len(members) == 2)
        for number in range(10):
            first.send_frame(Opcode.TEXT, b"%d" % number)
        for client in (first, second):
            assert [client.receive_frame()[1] for _ in range(10)] == [b"%d" % n for n in range(10)]
