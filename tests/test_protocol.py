"""protocol.py: one connection without I/O, for either role (RFC 6455 sections 5 to 8)."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plainsocket.frames import Opcode, header
from plainsocket.protocol import (
    FRAGMENT_SIZE,
    FRAMES_AT_ONCE,
    MAX_PINGS,
    Frame,
    Message,
    Protocol,
    Role,
    State,
)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY: Final = bytes.fromhex("37fa213d")
ROLES: Final[tuple[Role, Role]] = ("server", "client")
LIMIT: Final = 2**20  # the default of max_message_size
FRAGMENTED: Final = 4 * FRAGMENT_SIZE  # bytes, of messages that leave in fragments

both_roles = pytest.mark.parametrize("role", ROLES)


# -- a second, naive implementation, to hold against the real one --------------------------------


class Read(NamedTuple):
    opcode: int
    fin: bool
    masked: bool
    payload: bytes


def mask(payload: bytes, key: bytes) -> bytes:
    pattern = (key * (len(payload) // 4 + 1))[: len(payload)]
    return bytes(a ^ b for a, b in zip(payload, pattern, strict=True))


def frame(
    to: Role,
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool | None = None,
    announced: int | None = None,
) -> bytes:
    """A frame that `to` may get; `announced` is a length for which `payload` is the beginning."""
    masked = to == "server" if masked is None else masked
    size = len(payload) if announced is None else announced
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    head = bytes([opcode | rsv | fin << 7, length[0] | masked << 7]) + length[1:]
    return head + KEY + mask(payload, KEY) if masked else head + payload


def close_frame(to: Role, code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(to, CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def read_frames(data: bytes) -> Iterator[Read]:
    """Read what a protocol has put out; its form is checked on the way."""
    while data:
        size, head = data[1] & 0x7F, 2
        if size == 126:
            size, head = int.from_bytes(data[2:4], "big"), 4
            assert size >= 126
        elif size == 127:
            size, head = int.from_bytes(data[2:10], "big"), 10
            assert size >= 65536
        masked = data[1] >= 128
        key = data[head : head + 4] if masked else b""
        head += len(key)
        payload = data[head : head + size]
        assert len(payload) == size
        assert data[0] & 0x70 == 0
        opcode = data[0] & 0x0F
        assert opcode in (CONTINUATION, TEXT, BINARY) or (size <= 125 and data[0] >= 128)
        yield Read(opcode, data[0] >= 128, masked, mask(payload, key) if masked else payload)
        data = data[head + size :]


def join(frames: Iterable[Frame]) -> bytes:
    return b"".join(buffer for one in frames for buffer in one)


def one_frame(data: bytes | None) -> Read:
    assert data is not None
    [read] = read_frames(data)
    return read


def other(role: Role) -> Role:
    return "client" if role == "server" else "server"


def receive(protocol: Protocol, data: bytes) -> list[Message]:
    """As the caller of a protocol has to: where the end is due, let it come."""
    messages = protocol.receive(data)
    if protocol.end_is_due:
        assert protocol.receive(b"") == []
    return messages


def chop(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    position = 0
    for size in itertools.cycle(sizes):
        if position >= len(data):
            return
        yield data[position : position + size]
        position += size


def assert_failed(protocol: Protocol, code: int) -> None:
    """It has failed with `code`, owes one close frame that says so, and does nothing more."""
    assert protocol.state is State.CLOSED
    assert protocol.failed
    assert protocol.close_code == code
    assert protocol.close_reason
    frames = protocol.take_close()
    sent = one_frame(frames)
    assert sent.opcode == CLOSE
    assert sent.payload == code.to_bytes(2, "big") + protocol.close_reason.encode()
    assert protocol.close_sent == (code, protocol.close_reason)
    assert_silent(protocol)


def late_text(to: Role) -> bytes:
    return frame(to, TEXT, b"late")


def late_ping(to: Role) -> bytes:
    return frame(to, PING, b"late")


def assert_silent(protocol: Protocol) -> None:
    """Whatever comes, a protocol that is over gives nothing and says nothing."""
    code, reason = protocol.close_code, protocol.close_reason
    frames = [make(role) for role in ROLES for make in (late_text, late_ping, close_frame)]
    for data in (b"", *frames, b"\xff" * 20):
        assert protocol.receive(data) == []
        assert not protocol.end_is_due
        assert protocol.take_pongs() == []
        assert protocol.take_close() is None
    protocol.close(1000)
    protocol.fail(1011, "late")
    protocol.receive_eof()
    assert protocol.take_close() is None
    assert protocol.state is State.CLOSED
    assert (protocol.close_code, protocol.close_reason) == (code, reason)


# -- messages ------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)  # of every plane
large = st.builds(
    lambda unit, size: unit * (size // len(unit) + 1),
    st.sampled_from(["a", "é", "€", "😀", "aé€😀"]),
    st.sampled_from([125, 126, 1000, 20_000]),
)
messages_strategy = st.lists(texts | st.binary(max_size=200) | large, max_size=5)
sizes_strategy = st.lists(st.integers(1, 40) | st.integers(1, 50_000), min_size=1, max_size=6)


@both_roles
@given(messages=messages_strategy, sizes=sizes_strategy)
@settings(deadline=None, max_examples=60)
def test_messages_arrive_however_the_bytes_are_chopped(
    role: Role, messages: list[Message], sizes: list[int]
) -> None:
    sender, receiver = Protocol(other(role)), Protocol(role)
    data = b"".join(join(sender.send(message)) for message in messages)
    received = [message for piece in chop(data, sizes) for message in receiver.receive(piece)]
    assert received == messages
    assert [type(message) for message in received] == [type(message) for message in messages]
    assert receiver.state is State.OPEN
    assert not receiver.message_begun


@st.composite
def fragmented(draw: st.DrawFn) -> tuple[Message, list[bytes]]:
    """A message, and its bytes cut anywhere, also inside characters, and into nothing."""
    message = draw(texts | st.binary(max_size=200))
    data = message.encode() if isinstance(message, str) else message
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    bounds = [0, *cuts, len(data)]
    return message, [data[start:end] for start, end in itertools.pairwise(bounds)]


@both_roles
@given(
    parts=st.lists(fragmented(), min_size=1, max_size=4),
    controls=st.lists(
        st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)), max_size=8
    ),
    sizes=sizes_strategy,
)
@settings(deadline=None, max_examples=60)
def test_fragments_with_control_frames_between_them(
    role: Role,
    parts: list[tuple[Message, list[bytes]]],
    controls: list[tuple[int, bytes]],
    sizes: list[int],
) -> None:
    data = b""
    between = iter(controls)
    for message, pieces in parts:
        for index, piece in enumerate(pieces):
            opcode = CONTINUATION if index else TEXT if isinstance(message, str) else BINARY
            data += frame(role, opcode, piece, fin=index == len(pieces) - 1)
            data += b"".join(frame(role, *control) for control in itertools.islice(between, 1))
    data += b"".join(frame(role, *control) for control in between)
    protocol = Protocol(role)
    received: list[Message] = []
    answers: list[bytes] = []
    for piece in chop(data, sizes):
        received += protocol.receive(piece)
        answers += protocol.take_pongs()
    assert received == [message for message, _ in parts]
    assert [one_frame(answer).payload for answer in answers] == [
        payload for opcode, payload in controls if opcode == PING
    ]
    assert protocol.state is State.OPEN


BOUNDARIES = [
    0, 1, 125, 126, 127, 65535, 65536, 65537, FRAGMENT_SIZE - 1, FRAGMENT_SIZE, FRAGMENT_SIZE + 1,
    2 * FRAGMENT_SIZE, 2 * FRAGMENT_SIZE + 1, LIMIT,
]  # fmt: skip


@both_roles
@pytest.mark.parametrize("size", BOUNDARIES)
def test_message_of_a_boundary_size(role: Role, size: int) -> None:
    sender, receiver = Protocol(other(role)), Protocol(role, max_message_size=FRAGMENTED)
    for message in ("x" * size, bytes(size)):
        data = join(sender.send(message))
        assert receiver.receive(data) == [message]
        received = [
            got for piece in chop(data, [1] * 15 + [70_001]) for got in receiver.receive(piece)
        ]
        assert received == [message]


@both_roles
@pytest.mark.parametrize("size", BOUNDARIES)
def test_frames_of_a_boundary_size(role: Role, size: int) -> None:
    message = bytes(itertools.islice(itertools.cycle(range(251)), size))
    frames = Protocol(role).send(message)
    reads = [one_frame(b"".join(buffers)) for buffers in frames]
    count = max(1, -(-size // FRAGMENT_SIZE))
    assert [read.opcode for read in reads] == [BINARY] + [CONTINUATION] * (count - 1)
    assert [read.fin for read in reads] == [False] * (count - 1) + [True]
    assert all(len(read.payload) <= FRAGMENT_SIZE for read in reads)
    assert {read.masked for read in reads} == {role == "client"}
    assert b"".join(read.payload for read in reads) == message


def test_text_is_fragmented_by_bytes() -> None:
    assert FRAGMENT_SIZE % 3, "or the bound would not lie inside a character"
    text = "€" * (FRAGMENT_SIZE // 3 + 1)
    frames = Protocol("client").send(text)
    assert len(frames) == 2
    assert Protocol("server", max_message_size=FRAGMENTED).receive(join(frames)) == [text]


@both_roles
def test_examples_of_the_rfc(role: Role) -> None:
    examples = {  # RFC 6455 section 5.7
        "server": "818537fa213d7f9f4d5158",
        "client": "810548656c6c6f",
    }
    assert Protocol(role).receive(bytes.fromhex(examples[role])) == ["Hello"]
    if role == "client":
        assert Protocol("client").receive(bytes.fromhex("010348656c80026c6f")) == ["Hello"]


@both_roles
def test_messages_before_an_error_are_kept(role: Role) -> None:
    protocol = Protocol(role)
    data = frame(role, TEXT, b"one") + frame(role, BINARY, b"two") + frame(role, CONTINUATION)
    assert receive(protocol, data + frame(role, TEXT, b"three")) == ["one", b"two"]
    assert_failed(protocol, 1002)


@both_roles
def test_message_begun(role: Role) -> None:
    protocol = Protocol(role)
    data = frame(role, TEXT, b"ab", fin=False) + frame(role, CONTINUATION, b"c")
    assert not protocol.message_begun
    for index in range(len(data) - 1):
        assert protocol.receive(data[index : index + 1]) == []
        assert protocol.message_begun
    assert protocol.receive(data[-1:]) == ["abc"]
    assert not protocol.message_begun


@both_roles
@pytest.mark.parametrize("how", ["eof", "fail", "close", "error"])
def test_no_message_is_begun_after_the_end(role: Role, how: str) -> None:
    protocol = Protocol(role)
    protocol.receive(frame(role, TEXT, b"half", fin=False))
    if how == "eof":
        protocol.receive_eof()
    elif how == "fail":
        protocol.fail(1011, "x")
    else:
        receive(protocol, close_frame(role) if how == "close" else frame(role, TEXT))
    assert protocol.state is State.CLOSED
    assert not protocol.message_begun


# -- what sends take -----------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("message", [None, 1, 1.5, ["a"], object(), ("a",), {"a": 1}])
def test_what_is_no_message(role: Role, message: Any) -> None:
    with pytest.raises(TypeError, match=f"str or bytes, not {type(message).__name__}"):
        Protocol(role).send(message)


@both_roles
@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\ude00\ud83d"])
def test_text_with_lone_surrogates(role: Role, text: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        Protocol(role).send(text)


@both_roles
@pytest.mark.parametrize("size", [0, 5, 20_000, FRAGMENT_SIZE + 1])
def test_mutable_bytes_are_copied(role: Role, size: int) -> None:
    mutable = bytearray(b"x" * size)
    frames = Protocol(role).send(mutable)
    view_frames = Protocol(role).send(memoryview(mutable))
    mutable[:] = b"y" * size
    for sent in (frames, view_frames):
        receiver = Protocol(other(role), max_message_size=FRAGMENTED)
        assert receiver.receive(join(sent)) == [b"x" * size]
    mutable.append(0)  # which a view of it that is still held would forbid


def test_views_of_any_shape() -> None:
    view = memoryview(bytes(range(100)))
    assert Protocol("client").receive(join(Protocol().send(view[::2]))) == [bytes(range(0, 100, 2))]
    words = memoryview(bytes(range(100))).cast("I")
    assert Protocol("client").receive(join(Protocol().send(words))) == [bytes(range(100))]


def test_large_payload_of_a_server_is_not_copied() -> None:
    message = bytes(FRAGMENT_SIZE)
    [(_, payload)] = Protocol("server").send(message)
    assert payload is message
    message, frames = bytes(FRAGMENTED), []
    assert traced(lambda: frames.extend(Protocol("server").send(message))) < LITTLE
    assert len(frames) == 4


def test_client_masks_each_frame_with_a_key_of_its_own() -> None:
    protocol = Protocol("client")
    keys = set()
    for _ in range(50):
        [(data,)] = protocol.send(b"same")
        keys.add(data[2:6])
        keys.add(protocol.ping(b"same")[2:6])
    for buffers in protocol.send(bytes(3 * FRAGMENT_SIZE)):
        keys.add(buffers[0][10:14])
    assert len(keys) == 103


def test_client_masks_control_frames() -> None:
    protocol = Protocol("client")
    assert one_frame(protocol.ping(b"a")) == (PING, True, True, b"a")
    protocol.receive(frame("client", PING, b"b"))
    [pong] = protocol.take_pongs()
    assert one_frame(pong) == (PONG, True, True, b"b")
    protocol.close(1001, "c")
    assert one_frame(protocol.take_close()) == (CLOSE, True, True, b"\x03\xe9c")


def test_server_masks_nothing() -> None:
    protocol = Protocol("server")
    assert protocol.ping(b"a") == b"\x89\x01a"
    protocol.receive(frame("server", PING, b"b"))
    assert protocol.take_pongs() == [b"\x8a\x01b"]
    protocol.close(1001, "c")
    assert protocol.take_close() == b"\x88\x03\x03\xe9c"


# -- violations ----------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("payload", [b"", b"\x03\xe8"])
def test_masking_the_wrong_way(role: Role, opcode: int, payload: bytes) -> None:
    protocol = Protocol(role)
    assert receive(protocol, frame(role, opcode, payload, masked=role == "client")) == []
    assert_failed(protocol, 1002)


@both_roles
@pytest.mark.parametrize("rsv", [0x40, 0x20, 0x10, 0x70])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_reserved_bits(role: Role, rsv: int, opcode: int) -> None:
    protocol = Protocol(role)
    assert receive(protocol, frame(role, opcode, rsv=rsv)) == []
    assert_failed(protocol, 1002)


@both_roles
def test_reserved_bit_in_a_continuation(role: Role) -> None:
    protocol = Protocol(role)
    protocol.receive(frame(role, TEXT, b"a", fin=False))
    receive(protocol, frame(role, CONTINUATION, b"b", rsv=0x40))
    assert_failed(protocol, 1002)


@both_roles
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("opcode", [*range(3, 8), *range(11, 16)])
def test_reserved_opcodes(role: Role, opcode: int, fin: bool) -> None:
    protocol = Protocol(role)
    receive(protocol, frame(role, opcode, b"x", fin=fin))
    assert_failed(protocol, 1002)


@both_roles
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_fragmented_control_frame(role: Role, opcode: int) -> None:
    protocol = Protocol(role)
    receive(protocol, frame(role, opcode, fin=False))
    assert_failed(protocol, 1002)


@both_roles
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [126, 65536])
def test_control_frame_over_125_bytes_fails_by_its_head(role: Role, opcode: int, size: int) -> None:
    protocol = Protocol(role)
    receive(protocol, frame(role, opcode, announced=size)[:2])
    assert_failed(protocol, 1002)


@both_roles
@pytest.mark.parametrize(
    "length",
    [
        "7e0000", "7e007d", "7f0000000000000000", "7f000000000000007d", "7f000000000000ffff",
        "7f8000000000000000", "7fffffffffffffffff",
    ],
)  # fmt: skip
def test_length_in_a_wrong_form(role: Role, length: str) -> None:
    size = bytearray.fromhex(length)
    size[0] |= 0x80 if role == "server" else 0
    protocol = Protocol(role)
    receive(protocol, b"\x82" + size)
    assert_failed(protocol, 1002)


@both_roles
@pytest.mark.parametrize("fin", [True, False])
def test_continuation_of_nothing(role: Role, fin: bool) -> None:
    protocol = Protocol(role)
    receive(protocol, frame(role, CONTINUATION, b"a", fin=fin))
    assert_failed(protocol, 1002)


@both_roles
def test_continuation_after_a_whole_message(role: Role) -> None:
    protocol = Protocol(role)
    whole = frame(role, TEXT, b"a", fin=False) + frame(role, CONTINUATION, b"b")
    assert protocol.receive(whole) == ["ab"]
    receive(protocol, frame(role, CONTINUATION, b"c"))
    assert_failed(protocol, 1002)


@both_roles
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_new_message_inside_a_fragmented_one(role: Role, opcode: int, fin: bool) -> None:
    protocol = Protocol(role)
    protocol.receive(frame(role, TEXT, b"a", fin=False))
    assert receive(protocol, frame(role, opcode, b"b", fin=fin)) == []
    assert_failed(protocol, 1002)


# -- limits --------------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("limit", [1, 125, 126, 1000, 70_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_size_limit_is_exact(role: Role, limit: int, opcode: int) -> None:
    protocol = Protocol(role, max_message_size=limit)
    [message] = protocol.receive(frame(role, opcode, b"x" * limit))
    assert len(message) == limit
    assert receive(protocol, frame(role, opcode, b"x" * (limit + 1))) == []
    assert_failed(protocol, 1009)


@both_roles
def test_default_size_limit_is_exact(role: Role) -> None:
    protocol = Protocol(role)
    assert protocol.receive(frame(role, BINARY, bytes(LIMIT))) == [bytes(LIMIT)]
    receive(protocol, frame(role, BINARY, announced=LIMIT + 1))
    assert_failed(protocol, 1009)


@both_roles
@pytest.mark.parametrize("announced", [101, 65536, 2**32, 2**63 - 1])
def test_size_limit_counts_what_is_announced(role: Role, announced: int) -> None:
    protocol = Protocol(role, max_message_size=100)
    receive(protocol, frame(role, BINARY, announced=announced) + bytes(60))
    assert protocol.to_skip == announced - 60
    assert protocol.receive(bytes(41)) == []
    assert protocol.to_skip == announced - 101
    assert_failed(protocol, 1009)


@both_roles
def test_size_limit_counts_text_as_utf8(role: Role) -> None:
    protocol = Protocol(role, max_message_size=9)
    assert protocol.receive(frame(role, TEXT, "€€€".encode())) == ["€€€"]
    receive(protocol, frame(role, TEXT, "€€€a".encode()))
    assert_failed(protocol, 1009)


@both_roles
def test_size_limit_across_fragments(role: Role) -> None:
    protocol = Protocol(role, max_message_size=10)
    first, middle = (frame(role, opcode, b"abcd", fin=False) for opcode in (TEXT, CONTINUATION))
    for _ in range(2):  # and each message has the whole limit for itself
        assert protocol.receive(first + middle) == []
        assert protocol.receive(frame(role, CONTINUATION, b"ij")) == ["abcdabcdij"]
    assert protocol.receive(first + middle) == []
    receive(protocol, frame(role, CONTINUATION, announced=3, fin=False))
    assert_failed(protocol, 1009)


@both_roles
def test_size_limit_leaves_control_frames_alone(role: Role) -> None:
    protocol = Protocol(role, max_message_size=1)
    protocol.receive(frame(role, BINARY, b"x", fin=False))
    protocol.receive(frame(role, PING, b"y" * 125))
    assert len(protocol.take_pongs()) == 1
    assert protocol.receive(frame(role, CONTINUATION)) == [b"x"]


@both_roles
def test_fragment_limit_is_exact(role: Role) -> None:
    protocol = Protocol(role, max_fragments=5)
    start, middle = (frame(role, opcode, fin=False) for opcode in (BINARY, CONTINUATION))
    ping, end = frame(role, PING), frame(role, CONTINUATION)
    for _ in range(2):
        assert protocol.receive(start + (ping + middle) * 3 + end) == [b""]
    receive(protocol, start + middle * 4)
    assert protocol.state is State.OPEN
    receive(protocol, end)
    assert_failed(protocol, 1008)


@both_roles
def test_fragment_limit_of_one(role: Role) -> None:
    protocol = Protocol(role, max_fragments=1)
    assert protocol.receive(frame(role, BINARY, b"x") * 3) == [b"x"] * 3
    assert protocol.receive(frame(role, BINARY, b"x", fin=False)) == []
    receive(protocol, frame(role, CONTINUATION))
    assert_failed(protocol, 1008)


LITTLE = 2**16  # bytes: a block of masking keys may be drawn meanwhile, or a cache filled


def traced(action: Callable[[], object]) -> int:
    """Bytes that `action` leaves allocated."""
    Protocol("client").send("x")  # masking keys are drawn many at a time
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        action()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@both_roles
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_memory_is_paid_by_bytes_that_came(role: Role, opcode: int) -> None:
    protocol = Protocol(role, max_message_size=2**40)
    head = frame(role, opcode, announced=2**40)
    assert traced(lambda: protocol.receive(head)) < LITTLE
    assert protocol.state is State.OPEN
    piece = mask(b"x" * 2**20, KEY if role == "server" else bytes(4))
    assert 2**20 < traced(lambda: protocol.receive(piece)) < 2**21


@both_roles
@pytest.mark.parametrize("fragmented", [False, True])
def test_memory_is_released_by_a_failure(role: Role, fragmented: bool) -> None:
    protocol = Protocol(role, max_message_size=2**24)
    begin = frame(role, BINARY, bytes(2**20), fin=False)
    if fragmented:
        bad = frame(role, TEXT)
    else:
        begin = frame(role, TEXT, bytes(2**20), announced=2**21)
        bad = b"\xff" * 8

    def fill_and_fail() -> None:
        assert protocol.receive(begin) == []
        assert protocol.state is State.OPEN
        receive(protocol, bad)

    assert traced(fill_and_fail) < LITTLE
    assert protocol.state is State.CLOSED


@both_roles
@pytest.mark.parametrize("how", ["eof", "fail", "close"])
def test_memory_is_released_by_every_end(role: Role, how: str) -> None:
    protocol = Protocol(role)
    begin = frame(role, BINARY, bytes(2**19), fin=False)

    def fill_and_end() -> None:
        assert protocol.receive(begin) == []
        if how == "eof":
            protocol.receive_eof()
        elif how == "fail":
            protocol.fail(1011, "x")
        else:
            receive(protocol, close_frame(role))

    assert traced(fill_and_end) < LITTLE
    assert protocol.state is State.CLOSED


@both_roles
def test_empty_fragments_cost_no_memory(role: Role) -> None:
    protocol = Protocol(role)
    data = frame(role, BINARY, fin=False) + frame(role, CONTINUATION, fin=False) * 2000
    assert traced(lambda: protocol.receive(data)) < 2**14


# -- UTF-8 ---------------------------------------------------------------------------------------

# (what may still become text, the byte after which it can't)
BAD_TEXT = [
    (b"", b"\x80"),
    (b"", b"\xbf"),
    (b"", b"\xc0"),
    (b"", b"\xc1"),
    (b"", b"\xf5"),
    (b"", b"\xfe"),
    (b"", b"\xff"),
    (b"hello", b"\xff"),
    (b"\xc3", b"("),
    (b"\xc3\xa9", b"\xa9"),
    (b"\xe0", b"\x9f"),  # overlong
    (b"\xed", b"\xa0"),  # a surrogate
    (b"\xed", b"\xbf"),
    (b"\xf0", b"\x8f"),  # overlong
    (b"\xf4", b"\x90"),  # beyond U+10FFFF
    (b"\xe2\x82", b"("),
    (b"\xf0\x9f", b"("),
    (b"\xf0\x9f\x98", b"("),
    ("κόσμε😀".encode() + b"\xed", b"\xa0"),
]


@both_roles
@pytest.mark.parametrize(("begin", "bad"), BAD_TEXT)
def test_bad_text_in_one_frame(role: Role, begin: bytes, bad: bytes) -> None:
    protocol = Protocol(role)
    assert receive(protocol, frame(role, TEXT, begin + bad + b"rest")) == []
    assert_failed(protocol, 1007)


@both_roles
@pytest.mark.parametrize(("begin", "bad"), BAD_TEXT)
def test_bad_text_fails_in_the_middle_of_a_frame(role: Role, begin: bytes, bad: bytes) -> None:
    protocol = Protocol(role)
    data = frame(role, TEXT, begin + bad, announced=1000)
    for index in range(len(data) - 1):
        assert receive(protocol, data[index : index + 1]) == []
        assert protocol.state is State.OPEN
    receive(protocol, data[-1:])
    assert_failed(protocol, 1007)


@both_roles
@pytest.mark.parametrize(("begin", "bad"), BAD_TEXT)
def test_bad_text_fails_in_the_middle_of_a_message(role: Role, begin: bytes, bad: bytes) -> None:
    protocol = Protocol(role)
    assert receive(protocol, frame(role, TEXT, begin, fin=False)) == []
    assert protocol.state is State.OPEN
    receive(protocol, frame(role, PING))
    receive(protocol, frame(role, CONTINUATION, bad, fin=False))
    assert_failed(protocol, 1007)


@both_roles
@pytest.mark.parametrize("end", [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xf0", b"\xed"])
def test_text_that_ends_inside_a_character(role: Role, end: bytes) -> None:
    whole, split, empty_end = Protocol(role), Protocol(role), Protocol(role)
    receive(whole, frame(role, TEXT, b"a" + end))
    assert_failed(whole, 1007)
    for piece in chop(frame(role, TEXT, b"a" + end), [1]):
        assert split.state is State.OPEN
        receive(split, piece)
    assert_failed(split, 1007)
    receive(empty_end, frame(role, TEXT, end, fin=False))
    assert empty_end.state is State.OPEN
    receive(empty_end, frame(role, CONTINUATION))
    assert_failed(empty_end, 1007)


@both_roles
@pytest.mark.parametrize(
    "text", ["", "\x00", "\x7f\x80", "\ud7ff\ue000", "\ufeffbom", "\U0010ffff"]
)
def test_text_at_the_bounds_of_unicode(role: Role, text: str) -> None:
    protocol = Protocol(role)
    data = text.encode()
    assert protocol.receive(frame(role, TEXT, data)) == [text]
    pieces = [bytes([byte]) for byte in data] or [b""]
    fragments = b"".join(
        frame(role, CONTINUATION if index else TEXT, piece, fin=False)
        for index, piece in enumerate(pieces)
    )
    assert protocol.receive(fragments + frame(role, CONTINUATION)) == [text]


@both_roles
def test_binary_need_not_be_text(role: Role) -> None:
    protocol = Protocol(role)
    fragments = frame(role, BINARY, b"\xff", fin=False) + frame(role, CONTINUATION, b"\xed\xa0")
    assert protocol.receive(fragments) == [b"\xff\xed\xa0"]
    assert protocol.receive(frame(role, TEXT, "é".encode())) == ["é"]


@both_roles
def test_text_after_text_in_pieces_starts_afresh(role: Role) -> None:
    protocol = Protocol(role)
    data = frame(role, TEXT, "é€".encode())
    received = [
        message for piece in chop(data * 5, [1, 2, 3]) for message in receive(protocol, piece)
    ]
    assert received == ["é€"] * 5


# -- pings and pongs -----------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("payload", [b"", b"x", b"\x00\xff" * 62, b"y" * 125])
def test_ping_is_answered_with_its_payload(role: Role, payload: bytes) -> None:
    protocol = Protocol(role)
    assert protocol.receive(frame(role, PING, payload)) == []
    [pong] = protocol.take_pongs()
    assert one_frame(pong) == (PONG, True, role == "client", payload)
    assert protocol.take_pongs() == []


@both_roles
def test_pings_are_answered_in_their_order(role: Role) -> None:
    protocol = Protocol(role)
    data = b"".join(frame(role, PING, payload) for payload in (b"a", b"b", b"a"))
    assert protocol.receive(data + frame(role, TEXT, b"x")) == ["x"]
    assert [one_frame(pong).payload for pong in protocol.take_pongs()] == [b"a", b"b", b"a"]


@both_roles
def test_ping_is_answered_when_it_is_there_in_full(role: Role) -> None:
    protocol = Protocol(role)
    data = frame(role, PING, b"abc")
    for piece in chop(data[:-1], [1]):
        protocol.receive(piece)
        assert protocol.take_pongs() == []
    protocol.receive(data[-1:])
    assert len(protocol.take_pongs()) == 1


@both_roles
def test_pong_answers_its_ping(role: Role) -> None:
    protocol = Protocol(role)
    assert one_frame(protocol.ping(b"a")) == (PING, True, role == "client", b"a")
    protocol.receive(frame(role, PONG, b"a"))
    assert protocol.pongs == [b"a"]
    protocol.pongs.clear()
    protocol.receive(frame(role, PONG, b"a"))
    assert protocol.pongs == []


@both_roles
def test_pong_answers_earlier_pings_too(role: Role) -> None:
    protocol = Protocol(role)
    for payload in (b"a", b"b", b"c", b"d"):
        protocol.ping(payload)
    protocol.receive(frame(role, PONG, b"c"))
    assert protocol.pongs == [b"a", b"b", b"c"]
    protocol.receive(frame(role, PONG, b"a") + frame(role, PONG, b"d"))
    assert protocol.pongs == [b"a", b"b", b"c", b"d"]


@both_roles
@pytest.mark.parametrize("payload", [b"", b"b", b"a\x00"])
def test_unsolicited_pong_is_ignored(role: Role, payload: bytes) -> None:
    protocol = Protocol(role)
    protocol.ping(b"a")
    assert protocol.receive(frame(role, PONG, payload)) == []
    assert protocol.pongs == []
    assert protocol.take_pongs() == []
    assert protocol.state is State.OPEN


@both_roles
def test_oldest_pings_are_forgotten(role: Role) -> None:
    protocol = Protocol(role)
    payloads = [number.to_bytes(2, "big") for number in range(MAX_PINGS + 2)]
    for payload in payloads:
        protocol.ping(payload)
    protocol.receive(frame(role, PONG, payloads[1]))
    assert protocol.pongs == []
    protocol.receive(frame(role, PONG, payloads[-1]))
    assert protocol.pongs == payloads[2:]


# -- the close -----------------------------------------------------------------------------------

VALID_CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@both_roles
@pytest.mark.parametrize("code", VALID_CODES)
def test_peer_closes(role: Role, code: int) -> None:
    protocol = Protocol(role)
    assert receive(protocol, close_frame(role, code, "grüß".encode())) == []
    assert protocol.state is State.CLOSED
    assert (protocol.close_code, protocol.close_reason) == (code, "grüß")
    assert not protocol.failed
    answer = one_frame(protocol.take_close())
    assert answer == (CLOSE, True, role == "client", code.to_bytes(2, "big"))
    assert protocol.close_sent == (code, "")
    assert_silent(protocol)


@both_roles
def test_peer_closes_without_a_code(role: Role) -> None:
    protocol = Protocol(role)
    receive(protocol, close_frame(role, None))
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 1005)
    assert not protocol.failed
    assert one_frame(protocol.take_close()).payload == b""
    assert_silent(protocol)


@both_roles
@pytest.mark.parametrize("code", INVALID_CODES)
def test_peer_closes_with_an_invalid_code(role: Role, code: int) -> None:
    protocol = Protocol(role)
    receive(protocol, close_frame(role, code))
    assert_failed(protocol, 1002)


@both_roles
def test_close_payload_of_one_byte(role: Role) -> None:
    protocol = Protocol(role)
    receive(protocol, frame(role, CLOSE, b"\x03"))
    assert_failed(protocol, 1002)


@both_roles
@pytest.mark.parametrize("reason", [b"\xff", b"ok\xc3", b"\xed\xa0\x80"])
def test_close_reason_that_is_not_utf8(role: Role, reason: bytes) -> None:
    protocol = Protocol(role)
    receive(protocol, close_frame(role, 1000, reason))
    assert_failed(protocol, 1007)


@both_roles
def test_longest_close_reason(role: Role) -> None:
    protocol = Protocol(role)
    receive(protocol, close_frame(role, 4000, b"r" * 123))
    assert (protocol.close_code, protocol.close_reason) == (4000, "r" * 123)


@both_roles
@pytest.mark.parametrize("code", VALID_CODES)
def test_this_end_closes(role: Role, code: int) -> None:
    protocol = Protocol(role)
    protocol.close(code, "bye")
    assert (protocol.state, protocol.close_code) == (State.CLOSING, None)
    assert protocol.close_sent == (code, "bye")
    sent = one_frame(protocol.take_close())
    assert sent == (CLOSE, True, role == "client", code.to_bytes(2, "big") + b"bye")
    assert protocol.take_close() is None
    receive(protocol, close_frame(role, 1001, b"me too"))
    assert protocol.state is State.CLOSED
    assert (protocol.close_code, protocol.close_reason) == (1001, "me too")
    assert protocol.close_sent == (code, "bye")
    assert not protocol.failed
    assert_silent(protocol)


@both_roles
def test_this_end_closes_without_a_code(role: Role) -> None:
    protocol = Protocol(role)
    protocol.close(None)
    assert one_frame(protocol.take_close()).payload == b""
    assert protocol.close_sent == (1005, "")


@both_roles
@pytest.mark.parametrize("code", [*INVALID_CODES, -1, 65536])
def test_this_end_cannot_close_with_an_invalid_code(role: Role, code: int) -> None:
    protocol = Protocol(role)
    with pytest.raises(ValueError, match=str(code)):
        protocol.close(code)
    assert protocol.state is State.OPEN
    assert protocol.take_close() is None


@both_roles
@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "\ud800"])
def test_this_end_cannot_close_with_a_bad_reason(role: Role, reason: str) -> None:
    protocol = Protocol(role)
    with pytest.raises(ValueError, match=r"124 bytes|surrogates"):
        protocol.close(1000, reason)
    assert protocol.state is State.OPEN
    assert protocol.take_close() is None


@both_roles
def test_second_close_changes_nothing(role: Role) -> None:
    protocol = Protocol(role)
    protocol.close(1000, "first")
    protocol.close(1001, "second")
    assert one_frame(protocol.take_close()).payload == b"\x03\xe8first"
    protocol.close(1001, "third")
    assert protocol.take_close() is None


@both_roles
def test_closing_handshake_of_two_protocols(role: Role) -> None:
    first, second = Protocol(role), Protocol(other(role))
    first.close(4000, "done")
    to_second = first.take_close()
    assert to_second is not None
    receive(second, to_second)
    to_first = second.take_close()
    assert to_first is not None
    receive(first, to_first)
    assert (second.close_code, second.close_reason) == (4000, "done")
    assert (first.close_code, first.close_reason) == (4000, "")
    assert_silent(first)
    assert_silent(second)


def test_both_close_at_once() -> None:
    server, client = Protocol("server"), Protocol("client")
    server.close(1001, "server stops")
    client.close(1000, "page leaves")
    to_client, to_server = server.take_close(), client.take_close()
    assert to_client is not None
    assert to_server is not None
    receive(server, to_server)
    receive(client, to_client)
    assert (server.close_code, server.close_reason) == (1000, "page leaves")
    assert (client.close_code, client.close_reason) == (1001, "server stops")
    assert_silent(server)
    assert_silent(client)


@both_roles
def test_data_after_a_close_is_ignored(role: Role) -> None:
    protocol = Protocol(role)
    late = frame(role, TEXT, b"late") + frame(role, PING) + b"\xff" * 30
    assert receive(protocol, close_frame(role, 1001) + late) == []
    assert (protocol.close_code, protocol.failed) == (1001, False)
    assert one_frame(protocol.take_close()).payload == b"\x03\xe9"
    assert_silent(protocol)


@both_roles
def test_close_inside_a_fragmented_message(role: Role) -> None:
    protocol = Protocol(role)
    data = frame(role, TEXT, b"half", fin=False) + close_frame(role, 1000)
    assert receive(protocol, data) == []
    assert (protocol.close_code, protocol.failed) == (1000, False)


@both_roles
def test_messages_are_received_while_closing(role: Role) -> None:
    protocol = Protocol(role)
    protocol.close()
    assert protocol.receive(frame(role, TEXT, b"still")) == ["still"]
    assert (protocol.state, protocol.close_code) == (State.CLOSING, None)
    assert receive(protocol, frame(role, BINARY, b"last") + close_frame(role)) == [b"last"]
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 1000)


@both_roles
def test_pings_are_not_answered_while_closing(role: Role) -> None:
    protocol = Protocol(role)
    protocol.close()
    protocol.receive(frame(role, PING, b"a"))
    assert protocol.take_pongs() == []


@both_roles
def test_ping_just_before_a_close_is_not_answered(role: Role) -> None:
    protocol = Protocol(role)
    receive(protocol, frame(role, PING, b"a") + close_frame(role))
    assert protocol.take_pongs() == []
    assert one_frame(protocol.take_close()).opcode == CLOSE


@both_roles
def test_pongs_still_count_while_closing(role: Role) -> None:
    protocol = Protocol(role)
    protocol.ping(b"a")
    protocol.close()
    protocol.receive(frame(role, PONG, b"a"))
    assert protocol.pongs == [b"a"]


@both_roles
def test_violation_while_closing(role: Role) -> None:
    protocol = Protocol(role)
    protocol.close(1001, "bye")
    receive(protocol, frame(role, CONTINUATION))
    assert (protocol.state, protocol.close_code, protocol.failed) == (State.CLOSED, 1002, True)
    assert one_frame(protocol.take_close()).payload == b"\x03\xe9bye"  # the only close frame
    assert_silent(protocol)


# -- an end that waits until the messages before it have been answered ---------------------------


@both_roles
@pytest.mark.parametrize("end", ["close", "error"])
def test_messages_before_the_end_can_be_answered(role: Role, end: str) -> None:
    protocol = Protocol(role)
    last = close_frame(role, 1001, b"bye") if end == "close" else frame(role, CONTINUATION)
    assert protocol.receive(frame(role, TEXT, b"a") + frame(role, PING) + last) == ["a"]
    assert (protocol.end_is_due, protocol.state) == (True, State.OPEN)
    assert protocol.take_close() is None
    assert len(protocol.take_pongs()) == 1
    assert Protocol(other(role)).receive(join(protocol.send("answer"))) == ["answer"]
    assert protocol.receive(b"") == []
    assert (protocol.end_is_due, protocol.state) == (False, State.CLOSED)
    if end == "close":
        assert (protocol.close_code, protocol.close_reason) == (1001, "bye")
        assert one_frame(protocol.take_close()).payload == b"\x03\xe9"
        assert_silent(protocol)
    else:
        assert_failed(protocol, 1002)


@both_roles
def test_end_is_not_put_off_without_messages(role: Role) -> None:
    protocol = Protocol(role)
    assert protocol.receive(frame(role, PING) + close_frame(role)) == []
    assert not protocol.end_is_due
    assert protocol.state is State.CLOSED


@both_roles
def test_bytes_behind_a_due_end_are_ignored(role: Role) -> None:
    protocol = Protocol(role)
    assert protocol.receive(frame(role, TEXT, b"a") + close_frame(role)) == ["a"]
    assert protocol.receive(frame(role, TEXT, b"late")) == []
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 1000)


@both_roles
def test_eof_behind_a_due_end(role: Role) -> None:
    protocol = Protocol(role)
    assert protocol.receive(frame(role, TEXT, b"a") + close_frame(role, 1001)) == ["a"]
    protocol.receive_eof()
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 1001)
    assert not protocol.end_is_due


@both_roles
def test_closing_where_the_end_is_due(role: Role) -> None:
    protocol = Protocol(role)
    assert protocol.receive(frame(role, TEXT, b"a") + close_frame(role, 1001)) == ["a"]
    protocol.close(4000, "mine")
    assert one_frame(protocol.take_close()).payload == b"\x0f\xa0mine"
    assert protocol.receive(b"") == []
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 1001)
    assert_silent(protocol)


@both_roles
@pytest.mark.parametrize("then", ["receive", "eof"])
@pytest.mark.parametrize("end", ["close", "error"])
def test_failing_where_the_end_is_due(role: Role, then: str, end: str) -> None:
    protocol = Protocol(role)
    last = close_frame(role, 1001) if end == "close" else frame(role, CONTINUATION)
    assert protocol.receive(frame(role, TEXT, b"a") + last) == ["a"]
    protocol.fail(1006, "cut")
    assert protocol.state is State.CLOSED
    if then == "eof":
        protocol.receive_eof()
    else:
        protocol.receive(b"")
    assert (protocol.close_code, protocol.close_reason) == (1006, "cut")
    assert protocol.take_close() is None
    assert_silent(protocol)


# -- other ends ----------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("is_closing", [False, True])
def test_eof_without_a_close_frame(role: Role, is_closing: bool) -> None:
    protocol = Protocol(role)
    if is_closing:
        protocol.close()
        assert protocol.take_close() is not None
    protocol.receive_eof()
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 1006)
    assert protocol.close_reason
    assert_silent(protocol)


@both_roles
def test_eof_inside_a_message(role: Role) -> None:
    protocol = Protocol(role)
    protocol.receive(frame(role, TEXT, b"half", announced=100))
    protocol.receive_eof()
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 1006)


@both_roles
def test_eof_after_the_close(role: Role) -> None:
    protocol = Protocol(role)
    receive(protocol, close_frame(role, 4001, b"bye"))
    protocol.receive_eof()
    assert (protocol.close_code, protocol.close_reason) == (4001, "bye")
    assert protocol.take_close() is not None


@both_roles
@pytest.mark.parametrize("code", [1001, 1008, 1011, 4000])
def test_this_end_fails_the_connection(role: Role, code: int) -> None:
    protocol = Protocol(role)
    protocol.fail(code, "broken")
    assert_failed(protocol, code)


@both_roles
def test_this_end_cuts_the_connection(role: Role) -> None:
    protocol = Protocol(role)
    protocol.fail(1006, "cut")
    assert (protocol.state, protocol.close_code, protocol.close_reason) == (
        State.CLOSED, 1006, "cut"
    )  # fmt: skip
    assert protocol.take_close() is None
    assert_silent(protocol)


@both_roles
def test_no_pong_leaves_after_the_end(role: Role) -> None:
    protocol = Protocol(role)
    protocol.receive(frame(role, PING))
    protocol.fail(1006, "cut")
    assert protocol.take_pongs() == []


# -- nothing that a peer sends raises ------------------------------------------------------------


def feed(protocol: Protocol, pieces: Iterable[bytes]) -> None:
    """Feed a peer's bytes and check that whatever comes of it is in order."""
    closes: list[bytes] = []
    for piece in pieces:
        was_closed = protocol.state is State.CLOSED
        messages = receive(protocol, piece)
        assert all(type(message) in (str, bytes) for message in messages)
        assert not (was_closed and messages)
        closes += filter(None, [protocol.take_close()])
        for pong in protocol.take_pongs():
            assert one_frame(pong).opcode == PONG
    if protocol.state is not State.CLOSED:
        assert closes == []
        assert protocol.close_code is None
        return
    [close] = closes
    sent = one_frame(close)
    assert sent.opcode == CLOSE
    code = int.from_bytes(sent.payload[:2], "big") if sent.payload else 1005
    assert code == protocol.close_code
    assert code in (1005, 1007, 1008, 1009) or code in VALID_CODES or 3000 <= code <= 4999
    assert protocol.failed is (protocol.close_sent != (code, ""))
    assert_silent(protocol)


@st.composite
def any_frame(draw: st.DrawFn, role: Role) -> bytes:
    """A frame that is mostly right in each of its parts."""
    return frame(
        role,
        draw(
            st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, CONTINUATION, CLOSE, PING, PONG, 3])
        ),
        draw(
            st.binary(max_size=140)
            | texts.map(str.encode)
            | st.sampled_from([1000, 1001, 1005, 4000, 0]).map(lambda code: code.to_bytes(2, "big"))
        ),
        fin=draw(st.booleans()),
        rsv=draw(st.sampled_from([0] * 15 + [0x40])),
        masked=(role == "server") ^ draw(st.sampled_from([False] * 15 + [True])),
    )


@both_roles
@given(data=st.binary(max_size=300), sizes=sizes_strategy)
@settings(deadline=None, max_examples=100)
def test_any_bytes(role: Role, data: bytes, sizes: list[int]) -> None:
    feed(Protocol(role, max_message_size=1000), chop(data, sizes))


@both_roles
@given(draw=st.data(), sizes=sizes_strategy)
@settings(deadline=None, max_examples=60)
def test_any_frames(role: Role, draw: st.DataObject, sizes: list[int]) -> None:
    frames = draw.draw(st.lists(any_frame(role), max_size=12))
    protocol = Protocol(role, max_message_size=300, max_fragments=4)
    feed(protocol, chop(b"".join(frames), sizes))


@both_roles
@given(
    messages=st.lists(texts | st.binary(max_size=200), min_size=1, max_size=4),
    mutations=st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 2), st.integers(0, 255)), max_size=4
    ),
    sizes=sizes_strategy,
)
@settings(deadline=None, max_examples=60)
def test_good_frames_with_bytes_changed(
    role: Role,
    messages: list[Message],
    mutations: list[tuple[int, int, int]],
    sizes: list[int],
) -> None:
    sender = Protocol(other(role))
    data = bytearray().join(join(sender.send(message)) + sender.ping(b"p") for message in messages)
    sender.close(1000, "bye")
    data += sender.take_close() or b""
    for place, change, byte in mutations:
        place %= len(data)
        data[place : place + min(change, 1)] = bytes([byte] if change < 2 else [])
    feed(Protocol(role), chop(bytes(data), sizes))


@both_roles
@given(draw=st.data(), sizes=sizes_strategy)
@settings(deadline=None, max_examples=60)
def test_the_end_is_the_same_however_the_bytes_are_chopped(
    role: Role, draw: st.DataObject, sizes: list[int]
) -> None:
    data = b"".join(draw.draw(st.lists(any_frame(role), max_size=8)))
    at_once, in_pieces = Protocol(role), Protocol(role)
    expected = receive(at_once, data)
    received = [message for piece in chop(data, sizes) for message in receive(in_pieces, piece)]
    assert received == expected
    assert (in_pieces.state, in_pieces.close_code) == (at_once.state, at_once.close_code)


# -- without masks, as in the http carrier's channels ----------------------------------------------


@pytest.mark.parametrize("size", [0, 20, 125, 126, 70_000])
def test_no_masks_where_the_carrier_has_none(size: int) -> None:
    server, client = Protocol(masked=False), Protocol("client", masked=False)
    for message in ("x" * size, bytes(size)):
        for sender, receiver in ((client, server), (server, client)):
            frames = b"".join(bytes(part) for frame in sender.send(message) for part in frame)
            assert frames[1] < 0x80
            assert receiver.receive(frames) == [message]


def test_masked_frame_where_there_are_none_is_refused() -> None:
    server = Protocol(masked=False)
    assert server.receive(header(Opcode.TEXT, 2, key=b"abcd") + b"hi") == []
    assert (server.close_code, server.close_reason) == (1002, "masked frame from a client")


# -- one read, and others' turn -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "ping", "fragment"])
def test_of_very_many_frames_in_one_read_some_are_held_back(kind: str) -> None:
    count = 3 * FRAMES_AT_ONCE + 7
    opcode = {"text": Opcode.TEXT, "ping": Opcode.PING, "fragment": Opcode.CONTINUATION}[kind]
    frame = header(opcode, 0, fin=kind != "fragment", key=KEY)
    begin, end = b"", b""
    if kind == "fragment":
        begin, end = header(Opcode.TEXT, 0, fin=False, key=KEY), header(opcode, 0, key=KEY)
    protocol = Protocol()
    messages, pings, turns = protocol.receive(begin + frame * count + end), 0, 1
    while True:
        assert len(messages) <= FRAMES_AT_ONCE * turns
        assert len(protocol.pings_due) <= FRAMES_AT_ONCE
        pings += len(protocol.take_pongs())
        if not protocol.holding:
            break
        messages += protocol.receive(b"")
        turns += 1
    assert turns == 4
    assert (len(messages), pings) == {"text": (count, 0), "ping": (0, count), "fragment": (1, 0)}[
        kind
    ]
    assert protocol.close_code is None
