"""Masking and whole frames: the C twins, as compiled code meets them, and those in Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plainsocket import frames, wire
from plainsocket.protocol import Protocol

KEY = b"\x01\x82\xfe\x7f"
SIZES = [
    0,
    1,
    2,
    7,
    8,
    9,
    125,
    126,
    127,
    135,
    136,
    4095,
    4096,
    4097,
    16_383,
    16_384,
    32_767,
    32_768,
    60_000,
]


def twin(data: bytes, key: bytes, offset: int = 0) -> bytes:
    return bytes(byte ^ key[(index + offset) & 3] for index, byte in enumerate(data))


keys = st.binary(min_size=4, max_size=4)


@given(data=st.binary(max_size=300), key=keys, offset=st.integers(0, 1 << 40))
def test_apply_mask(data: bytes, key: bytes, offset: int) -> None:
    for apply_mask in (frames.apply_mask, wire.apply_mask):
        assert apply_mask(data, key, offset) == twin(data, key, offset)
        assert apply_mask(memoryview(data), key) == twin(data, key)


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])
def test_a_key_is_four_bytes(key: bytes) -> None:
    for apply_mask in (frames.apply_mask, wire.apply_mask):
        with pytest.raises(ValueError, match="4 bytes"):
            apply_mask(b"x", key)


@given(before=st.binary(max_size=20), key=keys, data=st.binary(max_size=300), after=st.binary())
def test_unmask(before: bytes, key: bytes, data: bytes, after: bytes) -> None:
    start = len(before) + 4
    frame = before + key + data + after
    assert wire.unmask(frame, start, start + len(data)) == twin(data, key)


@pytest.mark.parametrize(("start", "end"), [(3, 5), (4, 6), (5, 4), (-1, 5)])
def test_nothing_outside_is_read(start: int, end: int) -> None:
    for function in (wire.unmask, wire.unmask_text):
        with pytest.raises(IndexError):
            function(b"abcdx", start, end)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("letter", ["x", "ä", "€", "\U0001f600"])
def test_messages_of_each_size(size: int, letter: str) -> None:
    text = letter * (size // len(letter.encode())) + "x" * (size % len(letter.encode()))
    for message, opcode in ((text, frames.Opcode.TEXT), (text.encode(), frames.Opcode.BINARY)):
        payload = text.encode()
        whole = Protocol().send_whole(message)
        assert whole == wire.whole_frame(message)
        of_client = Protocol("client").send_whole(message)
        assert (of_client is None) == (whole is None)
        if of_client is not None:
            assert Protocol().receive(of_client) == [message]
            assert of_client[0] == opcode | 0x80
            assert Protocol("client").receive((whole or b"") * 2) == [message, message]
        if len(message) < wire.WHOLE_BELOW:
            assert whole == frames.header(opcode, size) + payload
        else:
            assert whole is None
        masked = frames.header(opcode, size, key=KEY) + twin(payload, KEY)
        assert Protocol().receive(masked + masked) == [message, message]
        assert wire.unmask_text(masked, len(masked) - size, len(masked)) == text


def pieces(size: int, cuts: list[int]) -> Iterator[tuple[int, int]]:
    """Where each piece begins and ends of so many bytes that are cut at those places."""
    return pairwise([0, *sorted(min(cut, size) for cut in cuts), size])


@given(data=st.binary(max_size=70), cuts=st.lists(st.integers(0, 70)), key=keys | st.just(b""))
def test_a_payload_in_pieces(data: bytes, cuts: list[int], key: bytes) -> None:
    masked = twin(data, key) if key else data
    blank = wire.blank(len(data))
    for start, end in pieces(len(data), cuts):
        wire.fill(blank, start, b"??" + masked + b"?", 2 + start, 2 + end, key)
    assert wire.filled(blank) == data


@given(data=st.binary(max_size=70), cuts=st.lists(st.integers(0, 70)), key=keys | st.just(b""))
def test_a_payload_written_in_place(data: bytes, cuts: list[int], key: bytes) -> None:
    masked = twin(data, key) if key else data
    blank = wire.blank(len(data))
    for start, end in pieces(len(data), cuts):
        with wire.room(blank, start, len(data) - start) as room:
            assert len(room) == len(data) - start
            room[: end - start] = masked[start:end]
        wire.placed(blank, start, end - start, key)
    assert wire.filled(blank) == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", [b"", KEY])
def test_frames_put_one_behind_the_other(size: int, key: bytes) -> None:
    frame = wire.whole_frame(b"x" * size, key)
    room = bytearray(b"?" * (2 * len(frame or b"") + 9))
    place = 3
    for _ in range(2):
        put = wire.put_frame(room, place, b"x" * size, key)
        assert put == len(frame or b"")
        place += put
    assert room == b"???" + 2 * (frame or b"") + b"?" * (len(room) - place)
    if frame is not None and len(frame) > 6:
        assert wire.put_frame(room, place, b"x" * size, key) == 0  # no room
    for message in (1, bytearray(b"x"), None):
        assert wire.put_frame(room, 0, message, key) == 0
    with pytest.raises(UnicodeEncodeError):
        wire.put_frame(room, 0, "\ud800", key)


@pytest.mark.parametrize("is_placed", [False, True])
@pytest.mark.parametrize("size", [32_767, 32_768, 70_000, 600_000])
@pytest.mark.parametrize("chop", [1000, 32_768, 65_536, 1 << 20])
def test_a_large_message_in_pieces(size: int, chop: int, is_placed: bool) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for role, key in (("server", KEY), ("client", b"")):
        protocol = Protocol(role)  # type: ignore[arg-type]
        ping = frames.header(frames.Opcode.PING, 0, key=key)
        head = frames.header(frames.Opcode.BINARY, size, key=key)
        stream = (head + (twin(data, key) if key else data) + ping) * 2
        messages: list[str | bytes] = []
        while stream:
            room = protocol.room() if is_placed else None
            if room is None:
                messages += protocol.receive(stream[:chop])
                stream = stream[chop:]
            else:
                with room:
                    count = min(len(room), len(stream), chop)
                    room[:count] = stream[:count]
                messages += protocol.receive_placed(count)
                stream = stream[count:]
            has_begun = protocol.message_begun
        assert messages == [data, data]
        assert not has_begun
        assert protocol.pings_due == [b"", b""]


def test_what_is_not_a_whole_frame() -> None:
    for message in (bytearray(b"x"), memoryview(b"x"), 1, None):
        assert Protocol().send_whole(message) is None  # type: ignore[arg-type]
        assert wire.whole_frame(message) is None
    for whole_frame in (Protocol().send_whole, wire.whole_frame):
        with pytest.raises(UnicodeEncodeError):
            whole_frame("\ud800")


@pytest.mark.parametrize("before", [0, 5000])
def test_text_that_is_not_utf8(before: int) -> None:
    data = b"x" * before + b"\xed\xa0\x80"
    protocol = Protocol()
    protocol.receive(frames.header(frames.Opcode.TEXT, len(data), key=KEY) + twin(data, KEY))
    assert protocol.close_code == 1007
    with pytest.raises(UnicodeDecodeError):
        wire.unmask_text(KEY + twin(data, KEY), 4, 4 + len(data))


def test_pure_python_is_taken_where_asked_for() -> None:
    program = "import plainsocket.websocket as w, plainsocket.frames as f; print(f.IS_COMPILED, w)"
    told = in_pure_python(program)
    assert told.startswith("False ")
    assert told.rstrip().endswith("websocket.py'>")


def test_tools_see_what_is_imported_in_pure_python() -> None:
    """A fuzzer that wants to see the code's branches, for one."""
    program = """
import sys

class Tool:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "plainsocket.frames":
            print("seen")

sys.meta_path.insert(0, Tool)
import plainsocket"""
    assert in_pure_python(program) == "seen\n"


def in_pure_python(program: str) -> str:
    """What the program prints."""
    environ = {**os.environ, "PLAINSOCKET_PURE": "1"}
    return subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=20
    ).stdout


# -- UTF-8 -----------------------------------------------------------------------------------------

SHORT = 64  # bytes or characters: below, CPython's codec does the work in utf8.h, too
BYTES = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xDF]
BYTES += [0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF7, 0xF8, 0xFF]
"""Where the rules of UTF-8 change, and beside it."""


def received(data: bytes) -> str | None:
    """What a server makes of a text message; None: it is no text."""
    protocol = Protocol()
    head = frames.header(frames.Opcode.TEXT, len(data), key=KEY)
    messages = protocol.receive(head + twin_fast(data))
    if not messages:
        assert protocol.close_code == 1007
        return None
    assert Protocol("client").receive(frames.header(frames.Opcode.TEXT, len(data)) + data) == (
        messages
    )
    (message,) = messages
    assert isinstance(message, str)
    assert message.isascii() == all(byte < 0x80 for byte in data)  # not in a wider form
    return message


def twin_fast(data: bytes) -> bytes:
    return wire.apply_mask(data, KEY)


def decoded(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def in_every_form(data: bytes) -> list[bytes]:
    """The same at several places of texts that are decoded in blocks, to each width."""
    around = ["x" * SHORT, "é" * SHORT, "ж" * SHORT, "字" * SHORT, "xжé字" * SHORT]
    encoded = [text.encode() for text in around]
    return [before + data + after for before in encoded for after in (b"", *encoded)]


def test_every_sequence_at_the_edges_of_the_rules() -> None:
    pad = "ж字".encode() * 20
    many = [bytes((first, second)) for first in range(0x80, 0x100) for second in BYTES]
    many += [bytes((a, b, c)) for a in BYTES[2:] for b in BYTES for c in (0x7F, 0x80, 0xBF, 0xC2)]
    four = [0x7F, 0x80, 0xBF, 0xC2]
    many += [bytes((a, b, c, d)) for a in BYTES[20:] for b in BYTES for c in four for d in four]
    for data in many:
        for whole in (pad + data, pad + data + pad):
            assert received(whole) == decoded(whole), whole


@pytest.mark.parametrize(
    "data",
    [
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xc0\xaf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xc2",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xc2\x80\x80",
        b"\x80" * 200,
        b"\xc2\x80" * 50 + b"\x80" * 100,
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbf",
        "\U00010000\U0010ffff".encode(),
    ],
)
def test_text_at_every_place(data: bytes) -> None:
    for whole in in_every_form(data):
        assert received(whole) == decoded(whole)
    for place in range(40):
        whole = b"x" * place + data + "ж".encode() * 40
        assert received(whole) == decoded(whole)


characters = st.sampled_from("x\x7f\x80\xff\u0100\u07ff\u0800\ud7ff\ue000\uffff\U00010000😀")
texts = st.builds("".join, st.lists(characters | st.characters(codec="utf-8"), max_size=80))


@given(text=texts, copies=st.integers(1, 20), at=st.integers(0), byte=st.sampled_from(BYTES))
def test_any_text(text: str, copies: int, at: int, byte: int) -> None:
    text *= copies
    data = text.encode()
    assert received(data) == text
    assert Protocol().send_whole(text) == wire.whole_frame(text)
    assert b"".join(map(bytes, Protocol().send(text)[0])) == frames.header(1, len(data)) + data
    if data:  # spoilt, perhaps
        at %= len(data)
        spoilt = data[:at] + bytes((byte,)) + data[at + 1 :]
        assert received(spoilt) == decoded(spoilt)


@pytest.mark.parametrize("letter", ["x", "é", "ж", "字", "😀"])
@pytest.mark.parametrize("surrogate", [chr(0xD800), chr(0xDFFF)])
def test_what_has_no_utf8(letter: str, surrogate: str) -> None:
    for place in range(0, 100, 9):
        text = letter * place + surrogate + letter * (100 - place)
        for send in (Protocol().send_whole, Protocol().send, Protocol("client").send_whole):
            with pytest.raises(UnicodeEncodeError):
                send(text)


def test_a_kind_of_str() -> None:
    class Name(str):
        __slots__ = ()

    for text in ("x" * 100, "ж" * 100):
        assert Protocol().send_whole(Name(text)) == Protocol().send_whole(text)
        assert Protocol().send(Name(text)) == Protocol().send(text)
