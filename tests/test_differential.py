"""The protocol beside that of the `websockets` package: the same bytes, the same outcome.

Both roles. What is compared is what an application sees: the messages, then the close code that the
peer has sent or that this end fails with.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode as TheirOpcode
from websockets.protocol import OPEN, SEND_EOF
from websockets.protocol import State as TheirState
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from plainsocket.protocol import Message, Protocol, Role, State

LIMIT: Final = 1000  # bytes of a message
ROLES: Final[tuple[Role, Role]] = ("server", "client")
KEY: Final = b"\x37\xfa\x21\x3d"

Outcome = tuple[list[Message], int | None]


# -- the two readers -----------------------------------------------------------------------------


def ours(role: Role, pieces: list[bytes]) -> Outcome:
    protocol = Protocol(role, max_message_size=LIMIT)
    messages: list[Message] = []
    for piece in [*pieces, b""]:
        messages += protocol.receive(piece)
        if protocol.end_is_due:
            protocol.receive(b"")
    return messages, None if protocol.state is State.OPEN else protocol.close_code


def theirs(role: Role, pieces: list[bytes]) -> Outcome:
    protocol: ClientProtocol | ServerProtocol
    if role == "client":
        protocol = ClientProtocol(parse_uri("ws://x/"), max_size=LIMIT, state=OPEN)
    else:
        protocol = ServerProtocol(max_size=LIMIT, state=OPEN)
    messages: list[Message] = []
    parts: list[bytes] = []
    kind = None
    for piece in pieces:
        protocol.receive_data(piece)
        for event in protocol.events_received():
            assert isinstance(event, TheirFrame)
            if event.opcode in (TheirOpcode.TEXT, TheirOpcode.BINARY, TheirOpcode.CONT):
                kind = kind if event.opcode is TheirOpcode.CONT else event.opcode
                parts.append(bytes(event.data))
                if event.fin:
                    data = b"".join(parts)
                    parts.clear()
                    try:
                        messages.append(data.decode() if kind is TheirOpcode.TEXT else data)
                    except UnicodeDecodeError:  # which they leave to what is above
                        return messages, 1007
        assert SEND_EOF == b""
    if protocol.state is TheirState.OPEN:
        return messages, None
    if protocol.parser_exc is not None:
        assert protocol.close_sent is not None or protocol.close_rcvd is not None
        if protocol.close_rcvd is not None and "incomplete fragmented" in str(protocol.parser_exc):
            # They forbid a close frame inside a fragmented message, RFC 6455 5.4 does not.
            return messages, int(protocol.close_rcvd.code)
        sent = protocol.close_sent
        return messages, None if sent is None else int(sent.code)
    assert protocol.close_rcvd is not None
    return messages, int(protocol.close_rcvd.code)


# -- what is known to differ, and rightly ---------------------------------------------------------


def walk(data: bytes) -> tuple[bool, bool]:
    """Go from head to head; return whether all lengths are in their shortest form (RFC 6455 5.2),
    which they do not check, and whether the last frame is there in full."""
    position = 0
    while len(data) - position >= 2:
        length, head = data[position + 1] & 0x7F, 2
        if length >= 126:
            form, head, least, most = ("!H", 4, 126, 1 << 16)
            if length == 127:
                form, head, least, most = ("!Q", 10, 1 << 16, 1 << 63)
            if len(data) - position < head:
                return True, False
            (length,) = struct.unpack_from(form, data, position + 2)
            if not least <= length < most:
                return False, False
        if data[position + 1] & 0x80:
            head += 4
        position += head + length
    return True, position == len(data)


def check(role: Role, pieces: list[bytes]) -> None:
    our_messages, our_code = ours(role, pieces)
    their_messages, their_code = theirs(role, pieces)
    is_minimal, is_whole = walk(b"".join(pieces))
    if not is_minimal:
        return
    if our_code == 1007 and their_code != 1007:
        # Bad text fails here at once (RFC 3629), there once the message is complete: or not at
        # all, where the message ends by something worse, or not.
        assert their_messages[: len(our_messages)] == our_messages
        return
    assert our_messages == their_messages
    if not is_whole and None in (our_code, their_code):
        return  # by what there is of a frame one may know already that it is bad
    if our_code == 1002 and their_code in (1007, 1009):
        return  # too large or no text, and wrong besides: which of the two is told is free
    assert our_code == their_code


# -- bytes ---------------------------------------------------------------------------------------


def wire(role: Role, opcode: int, payload: bytes, *, first: int = 0x80, masked: bool) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = b"\x7e" + struct.pack("!H", size)
    else:
        length = b"\x7f" + struct.pack("!Q", size)
    if not masked:
        return bytes([first | opcode]) + length + payload
    head = bytes([first | opcode, length[0] | 0x80]) + length[1:]
    return head + KEY + bytes(each ^ KEY[place & 3] for place, each in enumerate(payload))


payloads = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([b"x" * size for size in (124, 125, 126, 127, 999, 1000, 1001, 70_000)]),
    st.sampled_from([b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xe2\x98"]),
)
close_payloads = st.one_of(
    st.builds(
        lambda code, reason: struct.pack("!H", code) + reason,
        st.sampled_from(
            [0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 2999, 3000, 4999]
        ),
        payloads.filter(lambda payload: len(payload) < 124),
    ),
    st.sampled_from([b"", b"\x03"]),
)


@st.composite
def frames(draw: st.DrawFn, role: Role) -> bytes:
    opcode = draw(st.sampled_from([0, 0, 1, 1, 2, 2, 8, 9, 10, 3, 11, 15]))
    # Mostly as it should be, so that more than the first frame counts.
    first = draw(st.sampled_from([0x80] * 8 + [0x00] * 4 + [0xC0, 0xA0, 0x90, 0x40]))
    masked = (role == "server") is not draw(st.sampled_from([False] * 15 + [True]))
    payload = draw(close_payloads if opcode == 8 else payloads)
    return wire(role, opcode, payload, first=first, masked=masked)


@st.composite
def conversations(draw: st.DrawFn, role: Role) -> bytes:
    data = b"".join(draw(st.lists(frames(role), min_size=1, max_size=8)))
    if draw(st.booleans()):
        return data
    place = draw(st.integers(0, len(data) - 1))
    return data[:place] + draw(st.binary(max_size=3)) + data[place + 1 :]


def chopped(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


sizes = st.lists(st.integers(1, 200), max_size=6)
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
long = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run(role: Role, draw: Any, cuts: list[int]) -> None:
    check(role, chopped(draw.draw(conversations(role)), cuts))


@pytest.mark.parametrize("role", ROLES)
@given(draw=st.data(), cuts=sizes)
@quick
def test_the_same_bytes_have_the_same_outcome(role: Role, draw: Any, cuts: list[int]) -> None:
    run(role, draw, cuts)


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
@given(draw=st.data(), cuts=sizes)
@long
def test_for_longer(role: Role, draw: Any, cuts: list[int]) -> None:
    run(role, draw, cuts)


@pytest.mark.parametrize("role", ROLES)
@given(messages=st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=5))
@quick
def test_what_one_sends_the_other_takes(role: Role, messages: list[Message]) -> None:
    """Ours to theirs; the other way is what the tests above do, byte by byte."""
    protocol = Protocol(role)
    data = b"".join(b"".join(frame) for message in messages for frame in protocol.send(message))
    protocol.close(4001, "enough")
    data += protocol.take_close() or b""
    peer: Role = "client" if role == "server" else "server"
    assert theirs(peer, [data]) == (messages, 4001)
