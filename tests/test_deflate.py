"""permessage-deflate (RFC 7692) without I/O: deflate.py, and what protocol.py does with it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import sys
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as PeerFrame
from websockets.frames import Opcode as PeerOpcode

from plainsocket.deflate import (
    Agreement,
    Deflater,
    ExtensionError,
    Inflater,
    SharedCompressors,
    accept_offer,
    check_answer,
    halves,
    offer,
)
from plainsocket.frames import FrameError
from plainsocket.options import Options
from plainsocket.protocol import FRAGMENT_SIZE, Message, Protocol, Role, SharedMessage, State
from test_protocol import CONTINUATION, PING, TEXT, chop, frame, join, other, receive

RSV1: Final = 0x40
ON: Final = Options(compression=True)
CONTEXT: Final = Options(compression=True, compression_context=True)
ROLES: Final[tuple[Role, Role]] = ("server", "client")
LIMIT: Final = 10_000


@pytest.fixture(params=["zlib", "isal"])
def compressor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both that the shared one may be."""
    name = str(request.param)
    if name == "zlib":
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)  # as if it were not installed
    return name


both_compressors = pytest.mark.usefixtures("compressor")
both_roles = pytest.mark.parametrize("role", ROLES)
either_context = pytest.mark.parametrize("options", [ON, CONTEXT], ids=["alone", "context"])


# -- negotiation: the server ---------------------------------------------------------------------

ALONE = "; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("offered", "alone", "context"),
    [
        ("", ALONE, ""),
        ("; client_max_window_bits", ALONE, "; client_max_window_bits=12"),
        ("; client_max_window_bits=10", ALONE, "; client_max_window_bits=10"),
        ("; client_max_window_bits=15", ALONE, "; client_max_window_bits=12"),
        (
            "; server_max_window_bits=10",
            f"{ALONE}; server_max_window_bits=10",
            "; server_max_window_bits=10",
        ),
        (
            '; server_max_window_bits="8"',
            f"{ALONE}; server_max_window_bits=8",
            "; server_max_window_bits=8",
        ),
        (
            "; server_max_window_bits=15",
            f"{ALONE}; server_max_window_bits=15",
            "; server_max_window_bits=15",
        ),
        ("; server_no_context_takeover", ALONE, "; server_no_context_takeover"),
        (";client_no_context_takeover ", ALONE, "; client_no_context_takeover"),
        (
            " ;\tserver_no_context_takeover ; client_max_window_bits = 9",
            ALONE,
            "; server_no_context_takeover; client_max_window_bits=9",
        ),
    ],
)
def test_server_answers_an_offer(offered: str, alone: str, context: str) -> None:
    for options, parameters in ((ON, alone), (CONTEXT, context)):
        answer = accept_offer(f"permessage-deflate{offered}", options)
        assert str(answer) == f"permessage-deflate{parameters}"


BAD_PARAMETERS = [
    "unknown",
    "server_max_window_bits",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=08",
    "server_max_window_bits=+9",
    "client_max_window_bits=7",
    "client_max_window_bits=x",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "server_no_context_takeover; server_no_context_takeover",
    "client_max_window_bits; client_max_window_bits=9",
]


@pytest.mark.parametrize("bad", BAD_PARAMETERS)
def test_server_declines_an_offer_that_it_cannot_take_and_looks_at_the_next(bad: str) -> None:
    assert accept_offer(f"permessage-deflate; {bad}", CONTEXT) is None
    several = (
        f"permessage-deflate; {bad}, x-other; y=1, permessage-deflate, permessage-deflate; {bad}"
    )
    assert accept_offer(several, CONTEXT) == Agreement()


def test_server_takes_the_first_good_offer() -> None:
    several = "permessage-deflate; server_max_window_bits=9,permessage-deflate"
    assert accept_offer(several, CONTEXT) == Agreement(server_max_window_bits=9)


@pytest.mark.parametrize(
    "header", [None, "", "x-webkit-deflate-frame", ", ,", "x; permessage-deflate", "deflate; a=1"]
)
def test_server_goes_without_where_nothing_is_offered(header: str | None) -> None:
    assert accept_offer(header, ON) is None


def test_server_goes_without_where_compression_is_off() -> None:
    assert accept_offer("permessage-deflate", Options()) is None


MALFORMED = [
    "permessage-deflate;",
    "permessage-deflate; =1",
    "permessage-deflate; a=",
    'permessage-deflate; a="',
    'permessage-deflate; a="b c"',
    "permessage-deflate; a=b=c",
    "permessage deflate",
    "permessage-deflate=1",
    ";",
    "a, b/c",
    "a\x00",
    "ä",
]


@pytest.mark.parametrize("header", MALFORMED)
def test_malformed_header_is_refused(header: str) -> None:
    with pytest.raises(ExtensionError, match="malformed"):
        accept_offer(header, ON)
    with pytest.raises(ExtensionError):
        check_answer(header, ON)


def test_a_long_header_is_read_in_linear_time() -> None:
    for header in ("a" * 16_000, "a;" * 8_000 + "b", "," * 16_000, "a" + " " * 16_000 + "/"):
        for _ in range(20):
            with contextlib.suppress(ExtensionError):
                accept_offer(header, ON)


# -- negotiation: the client ---------------------------------------------------------------------


def test_client_offers() -> None:
    assert offer(Options()) is None
    assert offer(CONTEXT) == "permessage-deflate; client_max_window_bits"
    assert offer(ON) == f"permessage-deflate{ALONE}; client_max_window_bits"


@either_context
def test_a_client_of_ours_takes_what_a_server_of_ours_answers(options: Options) -> None:
    for server in (ON, CONTEXT):
        answer = accept_offer(offer(options), server)
        assert answer is not None
        assert check_answer(str(answer), options) == answer


@pytest.mark.parametrize(
    ("answer", "agreement"),
    [
        (None, None),
        ("permessage-deflate", Agreement()),
        ("permessage-deflate; server_no_context_takeover", Agreement(True)),
        ("permessage-deflate; client_no_context_takeover", Agreement(False, True)),
        ('permessage-deflate; server_max_window_bits="9"', Agreement(False, False, 9)),
        (
            "permessage-deflate; client_max_window_bits=8; server_max_window_bits=15",
            Agreement(False, False, 15, 8),
        ),
    ],
)
def test_client_takes_an_answer(answer: str | None, agreement: Agreement | None) -> None:
    assert check_answer(answer, CONTEXT) == agreement


@pytest.mark.parametrize(
    "answer",
    [
        *(f"permessage-deflate; {bad}" for bad in BAD_PARAMETERS),
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate, permessage-deflate",
        "x-other",
        "permessage-deflate, x-other",
        "",
    ],
)
def test_client_refuses_an_answer_that_does_not_fit(answer: str) -> None:
    with pytest.raises(ExtensionError):
        check_answer(answer, CONTEXT)


def test_client_refuses_an_answer_to_what_it_did_not_ask() -> None:
    with pytest.raises(ExtensionError, match="not offered"):
        check_answer("permessage-deflate", Options())
    with pytest.raises(ExtensionError, match="ignored server_no_context_takeover"):
        check_answer("permessage-deflate; client_no_context_takeover", ON)


# -- the protocol: what is sent ------------------------------------------------------------------


def agreed(
    role: Role, options: Options, answer: Agreement | None = None, **limits: Any
) -> Protocol:
    if answer is None:
        answer = accept_offer(offer(options), options)
        assert answer is not None
    deflater, inflater = halves(answer, role, options)
    return Protocol(role, deflater=deflater, inflater=inflater, **limits)


def deflated(payload: bytes, bits: int = 15) -> bytes:
    """By itself, as RFC 7692 section 7.2.1 has it."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def is_compressed(frames: list[Any]) -> bool:
    return bool(frames[0][0][0] & RSV1)


TEXTS: Final = ["", "short", "ä" * 200, "long " * 5000, "x" * 3 * FRAGMENT_SIZE]


@both_compressors
@both_roles
@either_context
def test_messages_arrive_as_they_were(role: Role, options: Options) -> None:
    sender = agreed(role, options)
    receiver = agreed(other(role), options, max_message_size=3 * FRAGMENT_SIZE)
    noise = random.Random(1).randbytes(3 * FRAGMENT_SIZE)
    messages: list[Message] = [*TEXTS, b"", noise[:300], noise, noise[:999] * 300, *TEXTS]
    for message in messages:
        assert receive(receiver, join(sender.send(message))) == [message]


@either_context
def test_small_messages_go_as_they_are(options: Options) -> None:
    protocol = agreed("server", options)
    assert not is_compressed(protocol.send("a" * 255))
    assert is_compressed(protocol.send("a" * 256))
    assert len(join(protocol.send("a" * 256))) < 20
    assert is_compressed(protocol.send("é" * 128))  # bytes count, not characters


@both_compressors
def test_what_does_not_shrink_goes_as_it_is() -> None:
    noise = os.urandom(100_000)
    for options in (ON, CONTEXT):
        assert not is_compressed(agreed("server", options).send(noise))
    assert not is_compressed(agreed("server", ON).send(noise[:1000]))
    assert is_compressed(agreed("server", CONTEXT).send(noise[:1000]))  # its context remembers it


@either_context
def test_a_threshold_of_0_compresses_everything(options: Options) -> None:
    everything = dataclasses.replace(options, compression_threshold=0)
    sender, receiver = agreed("server", everything), agreed("client", everything)
    for message in ("", "a", b"", os.urandom(20), os.urandom(10_000)):
        for frames in (sender.send(message), sender.send_shared(SharedMessage(message))):
            assert is_compressed(frames)
            assert receive(receiver, join(frames)) == [message]


def test_a_stored_beginning_does_not_hide_what_shrinks() -> None:
    message = os.urandom(2000) + bytes(100_000)
    frames = agreed("server", ON).send(message)
    assert is_compressed(frames)
    assert len(join(frames)) < 3000


@both_compressors
def test_context_makes_repetition_small_and_its_absence_does_not_leak() -> None:
    text = "".join(random.Random(2).choices("abcdefghijklmnopqrstuvwxyz", k=1000))
    with_context, alone = agreed("server", CONTEXT), agreed("server", ON)
    assert len(join(with_context.send(text))) > 500
    assert len(join(with_context.send(text))) < 50
    assert len(join(alone.send(text))) > 500
    assert len(join(alone.send(text))) > 500


@both_compressors
def test_connections_share_a_compressor_and_not_what_it_saw() -> None:
    shared = SharedCompressors()
    text = b"".join(random.Random(3).choices([b"secret", b"public", b"x", b"yz"], k=500))
    first = Deflater(15, keeps_context=False, shared=shared).compress(text)
    second = Deflater(15, keeps_context=False, shared=shared).compress(text)
    assert first is not None
    assert first == second
    assert zlib.decompressobj(-15).decompress(second + b"\0\0\xff\xff") == text


def test_which_compressor_is_shared(compressor: str) -> None:
    shared = SharedCompressors()
    shared.compress(b"some", 1, 15)
    module = {"zlib": "zlib", "isal": "isal_zlib"}[compressor]
    assert type(shared._compressors[1, 15]).__module__ == module
    shared.compress(b"some", 6, 15)
    assert type(shared._compressors[6, 15]).__module__ == "zlib"


def test_an_error_in_a_shared_compressor_leaves_nothing_of_the_message_behind() -> None:
    shared = SharedCompressors()
    assert shared.compress(b"fine", 1, 15)
    with pytest.raises(TypeError):
        shared.compress("no bytes", 1, 15)  # type: ignore[arg-type]
    assert not shared._compressors


@both_compressors
@pytest.mark.parametrize("keeps_context", [False, True])
@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("bits", range(8, 16))
def test_the_window_is_kept(bits: int, level: int, keeps_context: bool) -> None:
    """A peer that has only the agreed window can inflate it: 8 bits too, which zlib can't do."""
    deflater = Deflater(bits, keeps_context=keeps_context, level=level)
    peer = zlib.decompressobj(-bits)
    choose = random.Random(bits)
    words = [choose.randbytes(choose.choice((2, 5, 20))) for _ in range(60)]
    for size in (1, 20, 400, 3000):
        message = b"".join(choose.choices(words, k=size))
        compressed = deflater.compress(message)
        if compressed is not None:
            assert peer.decompress(compressed + b"\0\0\xff\xff") == message


@both_roles
def test_each_end_keeps_the_window_asked_of_it(role: Role) -> None:
    answer = Agreement(server_max_window_bits=9, client_max_window_bits=9)
    deflater, _ = halves(answer, role, CONTEXT)
    assert deflater.bits == 9
    other_way = (
        Agreement(client_max_window_bits=9)
        if role == "server"
        else Agreement(server_max_window_bits=9)
    )
    assert halves(other_way, role, CONTEXT)[0].bits == 12  # of compression_window_bits
    wide = Options(compression=True, compression_context=True, compression_window_bits=15)
    assert halves(other_way, role, wide)[0].bits == 15


def test_memory_only_once_used_and_given_back_when_idle() -> None:
    wide = Options(compression=True, compression_context=True, compression_window_bits=15)
    tracemalloc.start()  # sees zlib's own memory: Python lends it its allocator
    try:
        protocol = agreed("server", wide)
        assert tracemalloc.get_traced_memory()[0] < 20_000
        protocol.send("long " * 1000)
        in_use = tracemalloc.get_traced_memory()[0]
        assert in_use > 200_000
        protocol.release_if_idle()  # it was used since the last look, if there was one
        protocol.send("long " * 1000)
        protocol.release_if_idle()
        assert tracemalloc.get_traced_memory()[0] > 200_000
        protocol.release_if_idle()
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


def test_a_released_compressor_is_followed_by_the_peer() -> None:
    sender, receiver = agreed("server", CONTEXT), agreed("client", CONTEXT)
    for _ in range(3):
        for message in ("once more " * 100, "and again " * 100):
            assert receive(receiver, join(sender.send(message))) == [message]
        sender.release_if_idle()
        sender.release_if_idle()


# -- one message for many ------------------------------------------------------------------------


@both_compressors
def test_a_shared_message_is_compressed_once_for_each_way() -> None:
    message = SharedMessage("to all " * 200)
    narrow = Agreement(True, True, server_max_window_bits=9)
    protocols = [
        Protocol("server"),
        *(agreed("server", ON) for _ in range(3)),
        *(agreed("server", CONTEXT) for _ in range(3)),
        *(agreed("server", ON, narrow) for _ in range(2)),
    ]
    sent = [protocol.send_shared(message) for protocol in protocols]
    assert len({id(frames) for frames in sent}) == 4
    assert [is_compressed(frames) for frames in sent] == [False] + [True] * 8


@either_context
def test_shared_messages_between_others_of_their_connection(options: Options) -> None:
    sender, receiver = agreed("server", options), agreed("client", options)
    for number in range(4):
        for message in (f"{number} mine " * 100, "to all " * 200, b"to all " * 200, "small", ""):
            sent = (
                sender.send(message)
                if str(number) in str(message)
                else sender.send_shared(SharedMessage(message))
            )
            assert receive(receiver, join(sent)) == [message]


def test_a_client_masks_each_for_itself() -> None:
    message = SharedMessage(b"shared" * 100)
    client, server = agreed("client", ON), agreed("server", ON)
    first, second = (join(client.send_shared(message)) for _ in range(2))
    assert first != second
    assert receive(server, first + second) == [message.message] * 2


def test_noise_is_shared_as_it_is() -> None:
    message = SharedMessage(os.urandom(10_000))
    assert not is_compressed(agreed("server", CONTEXT).send_shared(message))


def test_what_is_no_message_is_not_shared() -> None:
    with pytest.raises(TypeError, match="not int"):
        SharedMessage(1)  # type: ignore[arg-type]


# -- the protocol: what is received --------------------------------------------------------------


def wire(role: Role, payload: bytes, opcode: int = TEXT, *, pieces: int = 1) -> bytes:
    """A compressed message to `role`, in so many frames."""
    size = -(-len(payload) // pieces)
    frames = []
    for number in range(pieces):
        first, last = number == 0, number == pieces - 1
        frames.append(
            frame(
                role,
                opcode if first else CONTINUATION,
                payload[number * size : (number + 1) * size],
                fin=last,
                rsv=RSV1 if first else 0,
            )
        )
    return b"".join(frames)


@both_roles
@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_the_rfcs_own_examples(role: Role, pieces: int) -> None:
    """RFC 7692 section 7.2.3: shared window, no compression, BFINAL, two blocks, empty."""
    hello = bytes.fromhex("f248cdc9c90700")
    for payload in (
        hello,
        bytes.fromhex("000500faff48656c6c6f00"),
        bytes.fromhex("f348cdc9c9070000"),
        bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")),
    ):
        protocol = agreed(role, CONTEXT)
        assert receive(protocol, wire(role, payload, pieces=pieces)) == ["Hello"]
    protocol = agreed(role, CONTEXT)
    assert receive(protocol, wire(role, hello)) == ["Hello"]
    assert receive(protocol, wire(role, bytes.fromhex("f200110000"), pieces=pieces)) == ["Hello"]
    assert receive(protocol, wire(role, b"\x00")) == [""]


@both_roles
def test_a_window_that_was_not_agreed_on_is_not_there(role: Role) -> None:
    protocol = agreed(role, ON)
    assert receive(protocol, wire(role, bytes.fromhex("f248cdc9c90700"))) == ["Hello"]
    assert receive(protocol, wire(role, bytes.fromhex("f200110000"))) == []
    assert protocol.close_code == 1007


@both_roles
def test_after_a_final_block_the_next_message_starts_afresh(role: Role) -> None:
    for payload in ("f348cdc9c9070000", "f348cdc9c90700"):  # with padding for the tail, and without
        protocol = agreed(role, CONTEXT)
        for _ in range(3):
            assert receive(protocol, wire(role, bytes.fromhex(payload))) == ["Hello"]
        assert receive(protocol, wire(role, bytes.fromhex("f248cdc9c90700"))) == ["Hello"]


def final_blocks(count: int) -> bytes:
    one = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (one.compress(b"block") + one.flush(zlib.Z_FINISH)) * count


@both_roles
@pytest.mark.parametrize("pieces", [1, 3])
def test_several_final_blocks_in_a_message(role: Role, pieces: int) -> None:
    protocol = agreed(role, CONTEXT)
    payload = final_blocks(50) + b"\x00"
    assert receive(protocol, wire(role, payload, pieces=pieces)) == ["block" * 50]
    assert receive(protocol, wire(role, final_blocks(1000))) == []
    assert protocol.close_code == 1007


@both_roles
def test_compressed_and_other_messages_mix(role: Role) -> None:
    protocol = agreed(role, CONTEXT)
    data = frame(role, TEXT, b"plain") + wire(role, deflated(b"compressed")) + frame(role, PING)
    assert receive(protocol, data * 3) == ["plain", "compressed"] * 3
    assert len(protocol.take_pongs()) == 3


@both_roles
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"opcode": PING, "rsv": RSV1}, "compressed control frame"),
        ({"opcode": 8, "rsv": RSV1}, "compressed control frame"),
        ({"opcode": TEXT, "rsv": 0x20}, "reserved bit"),
        ({"opcode": TEXT, "rsv": 0x10}, "reserved bit"),
        ({"opcode": TEXT, "rsv": 0x60}, "reserved bit"),
    ],
)
def test_reserved_bits_in_wrong_places(role: Role, wrong: dict[str, int], reason: str) -> None:
    protocol = agreed(role, ON)
    receive(protocol, frame(role, wrong["opcode"], b"", rsv=wrong["rsv"]))
    assert protocol.close_code == 1002
    assert reason in protocol.close_reason


@both_roles
@pytest.mark.parametrize("first", [0, RSV1])
def test_rsv1_in_a_continuation_frame(role: Role, first: int) -> None:
    protocol = agreed(role, ON)
    receive(protocol, frame(role, TEXT, fin=False, rsv=first))
    receive(protocol, frame(role, CONTINUATION, rsv=RSV1))
    assert (protocol.close_code, protocol.close_reason) == (1002, "RSV1 in a continuation frame")


@both_roles
def test_rsv1_where_nothing_was_agreed_on(role: Role) -> None:
    protocol = Protocol(role)
    receive(protocol, wire(role, deflated(b"compressed")))
    assert protocol.close_code == 1002


@both_roles
@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("payload", [b"\xff" * 20, b"\x07" * 8, b"\x00\x05\x00\x00\x00hello"])
def test_what_is_not_deflate_is_1007(role: Role, payload: bytes, pieces: int) -> None:
    protocol = agreed(role, CONTEXT)
    assert receive(protocol, wire(role, payload, pieces=pieces)) == []
    assert (protocol.close_code, protocol.failed) == (1007, True)
    assert protocol.close_reason == "message can't be inflated"


@both_roles
def test_text_is_checked_as_it_is_inflated(role: Role) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = compressor.compress(b"good \xff bad") + compressor.flush(zlib.Z_SYNC_FLUSH)
    for data in (
        frame(role, TEXT, begin, fin=False, rsv=RSV1),  # at once, though there is more to come
        wire(role, begin[:-4]),
        wire(role, deflated("é".encode()[:1])),
        wire(role, deflated("é".encode()[:1]), pieces=2),
    ):
        protocol = agreed(role, ON)
        assert receive(protocol, data) == []
        assert protocol.close_code == 1007
    protocol = agreed(role, ON)
    assert receive(protocol, wire(role, deflated(b"\xff"), opcode=2)) == [b"\xff"]


# -- limits --------------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("pieces", [1, 3])
def test_the_limit_is_of_what_comes_out(role: Role, pieces: int) -> None:
    for payload in (bytes(LIMIT), os.urandom(LIMIT), b"a" * LIMIT):
        protocol = agreed(role, ON, max_message_size=LIMIT)
        data = wire(role, deflated(payload), opcode=2, pieces=pieces)
        assert receive(protocol, data) == [payload]
        protocol = agreed(role, ON, max_message_size=LIMIT - 1)
        assert receive(protocol, data) == []
        assert (protocol.close_code, protocol.failed) == (1009, True)
        assert f"over {LIMIT - 1} bytes" in protocol.close_reason


@both_roles
def test_a_head_alone_tells_what_is_far_too_long(role: Role) -> None:
    protocol = agreed(role, ON, max_message_size=LIMIT)
    receive(protocol, frame(role, TEXT, b"", rsv=RSV1, announced=3 * LIMIT))
    assert protocol.close_code == 1009
    assert protocol.to_skip == 3 * LIMIT


@both_roles
@pytest.mark.parametrize("split", [False, True])
def test_a_bomb_is_stopped_while_it_is_inflated(role: Role, split: bool) -> None:
    bomb = deflated(bytes(50_000_000))
    data = wire(role, bomb, opcode=2)
    assert len(data) < 100_000
    protocol = agreed(role, ON, max_message_size=1_000_000)
    tracemalloc.start()
    try:
        if split:
            for piece in chop(data, [5000]):
                receive(protocol, piece)
        else:
            receive(protocol, data)
        assert protocol.close_code == 1009
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    if split:
        assert protocol.to_skip == 0  # the peer has finished sending


def test_what_is_still_to_come_of_a_bomb_is_known() -> None:
    protocol = agreed("server", ON, max_message_size=1000)
    data = wire("server", deflated(bytes(10_000_000)), opcode=2)
    receive(protocol, data[:1000])
    assert protocol.close_code == 1009
    assert protocol.to_skip == len(data) - 1000


def test_empty_blocks_without_end_meet_the_limit() -> None:
    protocol = agreed("server", ON, max_message_size=1000)
    receive(protocol, frame("server", TEXT, fin=False, rsv=RSV1))
    for _ in range(1000):
        receive(protocol, frame("server", CONTINUATION, b"\0\0\0\xff\xff" * 20, fin=False))
        if protocol.state is State.CLOSED:
            break
    assert protocol.close_code == 1009


# -- beside another implementation ---------------------------------------------------------------

messages = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.binary(max_size=30),
        st.builds(lambda text, n: text * n, st.text(max_size=20), st.integers(1, 400)),
        st.builds(lambda data, n: data * n, st.binary(max_size=20), st.integers(1, 400)),
    ),
    max_size=8,
)
agreements = st.builds(
    Agreement,
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 9, 10, 15]),
    st.sampled_from([None, 9, 12, 15]),
)
all_options = st.builds(
    Options,
    compression=st.just(True),
    compression_threshold=st.sampled_from([0, 1, 100]),
    compression_level=st.sampled_from([1, 6]),
    compression_window_bits=st.sampled_from([9, 12, 15]),
)


def peer_of(agreement: Agreement, role: Role) -> PerMessageDeflate:
    """The `websockets` package's own, as the other end of `role`."""
    server = (agreement.server_no_context_takeover, agreement.server_max_window_bits or 15)
    client = (agreement.client_no_context_takeover, agreement.client_max_window_bits or 15)
    local, remote = (client, server) if role == "server" else (server, client)
    return PerMessageDeflate(remote[0], local[0], remote[1], local[1])


def as_frames(message: Message, cuts: Iterable[int]) -> Iterator[PeerFrame]:
    payload = message.encode() if isinstance(message, str) else message
    places = sorted({0, *(cut % (len(payload) + 1) for cut in cuts)})
    for number, (start, end) in enumerate(zip(places, [*places[1:], len(payload)], strict=True)):
        opcode = PeerOpcode.TEXT if isinstance(message, str) else PeerOpcode.BINARY
        yield PeerFrame(
            opcode if number == 0 else PeerOpcode.CONT,
            payload[start:end],
            fin=number == len(places) - 1,
        )


@given(messages, agreements, all_options, st.sampled_from(ROLES), st.data())
@settings(max_examples=150, deadline=None)
def test_we_read_what_websockets_compresses(
    said: list[Message], agreement: Agreement, options: Options, role: Role, data: st.DataObject
) -> None:
    ours, peer = agreed(role, options, agreement), peer_of(agreement, role)
    stream = b""
    for message in said:
        for one in as_frames(message, data.draw(st.lists(st.integers(0, 999), max_size=3))):
            sent = peer.encode(one)
            stream += frame(
                role,
                int(sent.opcode),
                bytes(sent.data),
                fin=sent.fin,
                rsv=RSV1 if sent.rsv1 else 0,
            )
    received: list[Message] = []
    for piece in chop(stream, data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=5))):
        received += ours.receive(piece)
    assert received == said
    assert ours.state is State.OPEN


@given(messages, agreements, all_options, st.sampled_from(ROLES))
@settings(max_examples=150, deadline=None)
def test_websockets_reads_what_we_compress(
    said: list[Message], agreement: Agreement, options: Options, role: Role
) -> None:
    ours, peer = agreed(role, options, agreement), peer_of(agreement, role)
    reader = Protocol(other(role))
    for number, message in enumerate(said):
        if number % 3 == 2:
            ours.release_if_idle()
        sent = ours.send_shared(SharedMessage(message)) if number % 2 else ours.send(message)
        wire_bytes = bytearray(join(sent))
        rsv1 = bool(wire_bytes[0] & RSV1)
        wire_bytes[0] &= ~RSV1  # so that another Protocol gives the payload as it is
        wire_bytes[0] = wire_bytes[0] & 0xF0 | 2
        [payload] = receive(reader, bytes(wire_bytes))
        assert isinstance(payload, bytes)
        opcode = PeerOpcode.TEXT if isinstance(message, str) else PeerOpcode.BINARY
        got = peer.decode(PeerFrame(opcode, payload, True, rsv1), max_size=1 << 20)
        assert bytes(got.data) == (message.encode() if isinstance(message, str) else message)


@given(st.binary(max_size=300), st.integers(1, 50), st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_an_inflater_gives_the_same_however_it_is_fed_and_asked(
    data: bytes, limit: int, is_deflate: bool, keeps_context: bool
) -> None:
    compressed = deflated(data) if is_deflate else data

    def inflate(pieces: list[bytes], limit: int) -> bytes | None:
        inflater = Inflater(15, keeps_context=keeps_context)
        output = b""
        try:
            for number, piece in enumerate(pieces):
                is_last = number == len(pieces) - 1
                part = inflater.inflate(piece, limit, is_last=is_last)
                assert len(part) <= limit
                output += part
                while inflater.has_more:
                    part = inflater.inflate(b"", limit, is_last=is_last)
                    assert len(part) <= limit
                    output += part
        except FrameError:
            return None
        return output

    whole = inflate([compressed], 1 << 20)
    assert whole == data or not is_deflate
    assert inflate(list(chop(compressed, [limit])) or [b""], 1 << 20) == whole
    assert inflate([compressed], limit) == whole


# -- in pieces -----------------------------------------------------------------------------------


@both_roles
def test_a_stream_asked_for_when_the_end_is_due_is_none(role: Role) -> None:
    """The receiver of the last message asks before the protocol has come to its end."""
    protocol = Protocol(role)
    good = frame(role, TEXT, b"good")
    assert protocol.receive(good + frame(role, TEXT, b"\xff", fin=False)) == ["good"]
    assert protocol.end_is_due
    protocol.start_stream(None)
    protocol.receive(b"")
    assert (protocol.close_code, protocol.take_pieces()) == (1007, [])
