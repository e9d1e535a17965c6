"""The http carrier's streams and requests without I/O: whatever comes, and however it is cut."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from page import data_records, down_body, open_body, record, up_body
from plainsocket.carriers import posts, records
from plainsocket.carriers.records import Kind, Outbox, Record, RecordError, RecordReader, Source

channels = st.integers(1, 4)
offsets = st.integers(0, 2**53 - 1)


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


good_records = st.one_of(
    st.builds(Record, st.just(Kind.DATA), channels, st.binary(min_size=1, max_size=200)),
    st.builds(Record, st.just(Kind.CREDIT), channels, st.integers(1, 2**31 - 1).map(u32)),
    st.builds(Record, st.just(Kind.OPENED), channels, st.binary(min_size=7, max_size=60)),
    st.builds(Record, st.just(Kind.END), st.integers(0, 4), st.just(b"")),
    st.builds(Record, st.just(Kind.ACK), st.just(0), offsets.map(lambda n: n.to_bytes(8, "big"))),
    st.builds(Record, st.just(Kind.PING), st.just(0), st.just(b"")),
)


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def joined(parts: list[Record]) -> list[Record]:
    """Neighbours of one channel's DATA in one."""
    out: list[Record] = []
    for part in parts:
        if part.kind == Kind.DATA and out and out[-1][:2] == part[:2]:
            out[-1] = Record(Kind.DATA, part.channel, out[-1].payload + part.payload)
        else:
            out.append(part)
    return out


@given(st.lists(good_records, max_size=20), st.lists(st.integers(0, 2**16), max_size=20))
def test_however_a_stream_is_cut_its_records_are_the_same(
    parts: list[Record], cuts: list[int]
) -> None:
    data = b"".join(record(*part) for part in parts)
    reader = RecordReader()
    read = [part for piece in in_pieces(data, cuts) for part in reader.feed(piece)]
    assert joined(read) == joined(parts)


def test_data_is_given_as_it_comes_and_other_records_whole() -> None:
    reader = RecordReader()
    data = record(Kind.DATA, 1, b"abcd") + record(Kind.CREDIT, 1, u32(7))
    assert reader.feed(data[:10]) == [(Kind.DATA, 1, b"ab")]
    assert reader.feed(data[10:22]) == [(Kind.DATA, 1, b"cd")]
    assert reader.feed(data[22:]) == [(Kind.CREDIT, 1, u32(7))]


@given(st.lists(good_records, max_size=5), st.binary(max_size=100), st.lists(st.integers(0, 999)))
def test_garbage_ends_a_stream_and_nothing_else(
    parts: list[Record], garbage: bytes, cuts: list[int]
) -> None:
    reader = RecordReader(records.UP)
    for piece in in_pieces(b"".join(record(*part) for part in parts) + garbage, cuts):
        try:
            reader.feed(piece)
        except RecordError:
            break


@pytest.mark.parametrize(
    "bad",
    [
        record(6),
        record(255, 1, b"x"),
        b"\0\1" + record(0, 1, b"x")[2:],
        record(0, 0, b"x"),
        record(0, 1),
        b"\x01\0\0\5\0\0\0\1",  # 5 bytes, known before they come
        record(0, 2**31, b"x"),
        record(1, 1, b"\0\0\0\0"),
        record(1, 1, b"\x80\0\0\0"),
        record(1, 1, b"\0\0\1"),
        record(1, 0, b"\0\0\0\1"),
        record(2, 1, b"\0\0\0\1\0\0"),
        record(3, 1, b"x"),
        record(4, 1, bytes(8)),
        record(4, 0, bytes(7)),
        record(4, 0, b"\0\x20" + bytes(6)),
        record(5, 1),
        record(5, 0, b"x"),
    ],
)
def test_bad_record(bad: bytes) -> None:
    with pytest.raises(RecordError):
        RecordReader().feed(bad)


@pytest.mark.parametrize("kind", [Kind.OPENED, Kind.PING])
def test_client_sends_no_record_of_the_servers(kind: Kind) -> None:
    with pytest.raises(RecordError):
        RecordReader(records.UP).feed(record(kind, 0 if kind == Kind.PING else 1, b""))


# -- sending -------------------------------------------------------------------------------------


def source(outbox: Outbox, channel: int, credit: int = 1 << 20) -> Source:
    return Source(outbox, channel, credit, lambda: None)


def write(to: Source, *data: bytes) -> None:
    to.write(data)
    to.wake()


@settings(max_examples=60)
@given(st.data())
def test_each_channels_bytes_arrive_in_order_and_once(data: Any) -> None:
    """Random writes, credit, acknowledgements and replays; a receiver that loses its place."""
    window = data.draw(st.sampled_from([100, 5000, 100_000]), "window")
    outbox = Outbox(window)
    sources = {number: source(outbox, number, credit=0) for number in (1, 2, 3)}
    written = dict.fromkeys(sources, b"")
    given_credit = dict.fromkeys(sources, 0)
    arrived = dict.fromkeys(sources, b"")
    stream = b""
    reader = RecordReader()

    def take(made: bytes) -> None:
        for part in reader.feed(made):
            if part.kind != Kind.PING:
                arrived[part.channel] += part.payload

    for _ in range(data.draw(st.integers(1, 40), "steps")):
        number = data.draw(st.sampled_from(sorted(sources)))
        match data.draw(st.sampled_from(["write", "credit", "make", "acknowledge", "replay"])):
            case "write":
                pieces = data.draw(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
                write(sources[number], *pieces)
                written[number] += b"".join(pieces)
            case "credit":
                amount = data.draw(st.integers(1, 1000))
                sources[number].credit += amount
                given_credit[number] += amount
                sources[number].wake()
            case "make":
                made = outbox.make(data.draw(st.integers(1, 3000)))
                stream += made
                assert outbox.end == len(stream)
                assert outbox.end - outbox.acknowledged < window + 16400
                take(made)
            case "acknowledge":
                outbox.acknowledge(data.draw(st.integers(0, outbox.end)))
            case "replay":
                start = data.draw(st.integers(outbox.acknowledged, outbox.end))
                assert b"".join(outbox.since(start)) == stream[start:]
        for number, what in arrived.items():
            assert written[number].startswith(what)
            assert len(what) <= given_credit[number]
    for each in sources.values():
        each.credit += 1 << 20
        each.wake()
    outbox.acknowledge(outbox.end)
    while made := outbox.make(1000):
        take(made)
        outbox.acknowledge(outbox.end)
    assert arrived == written
    assert [each.unacknowledged() for each in sources.values()] == [0, 0, 0]


def heads(stream: bytes) -> list[tuple[int, int, int]]:
    """Each record's kind, channel and length."""
    out = []
    while stream:
        length = int.from_bytes(stream[2:4], "big")
        out.append((stream[0], int.from_bytes(stream[4:8], "big"), length))
        stream = stream[8 + length :]
    return out


def kinds_and_channels(stream: bytes) -> list[tuple[int, int]]:
    return [head[:2] for head in heads(stream)]


def lengths(stream: bytes) -> list[int]:
    return [length for _, _, length in heads(stream)]


def test_channels_take_turns() -> None:
    outbox = Outbox(1 << 20)
    flood, quick = source(outbox, 1), source(outbox, 2)
    write(flood, bytes(100_000))
    outbox.make(20_000)
    write(quick, b"hello")
    assert (Kind.DATA, 2) in kinds_and_channels(outbox.make(40_000))[:2]


def test_records_are_long_only_where_nobody_else_waits() -> None:
    outbox = Outbox(1 << 20)
    one, two = source(outbox, 1), source(outbox, 2)
    write(one, bytes(200_000))
    assert lengths(outbox.make(150_000)) == [65_535, 65_535, 150_000 - 2 * 65_543]
    write(two, bytes(200_000))
    assert set(lengths(outbox.make(60_000))) == {16_384}


def test_records_of_the_session_go_first() -> None:
    outbox = Outbox(1 << 20)
    write(source(outbox, 1), b"data")
    outbox.put(records.credit(7, 1))
    assert kinds_and_channels(outbox.make(1000)) == [(Kind.CREDIT, 7), (Kind.DATA, 1)]


def test_only_the_latest_acknowledgement_waits() -> None:
    outbox = Outbox(1000)
    for offset in range(10_000):
        outbox.tell(offset)
    assert RecordReader().feed(outbox.make(1000)) == [Record(Kind.ACK, 0, bytes(6) + b"\x27\x0f")]
    assert outbox.make(1000) == b""
    outbox.acknowledge(outbox.end)
    for _ in range(1000):  # nor more of them than the window takes
        outbox.tell(1)
        outbox.make(1000)
    assert outbox.end - outbox.acknowledged < 1000 + 32


def test_control_frame_goes_before_frames_but_not_into_one() -> None:
    outbox = Outbox(1 << 20)
    one = source(outbox, 1, credit=3)
    write(one, b"he", b"ad")
    write(one, b"next")
    assert outbox.make(1000)[8:] == b"hea"
    one.write_control(b"PING")
    one.credit = 100
    one.wake()
    assert outbox.make(1000)[8:] == b"dPINGnext"


def test_end_stands_behind_everything() -> None:
    outbox = Outbox(1 << 20)
    one = source(outbox, 1, credit=2)
    write(one, b"data")
    one.end()
    assert kinds_and_channels(outbox.make(1000)) == [(Kind.DATA, 1)]
    assert not outbox.has_more
    one.credit = 100
    one.wake()
    assert kinds_and_channels(outbox.make(1000)) == [(Kind.DATA, 1), (Kind.END, 1)]
    one.wake()
    assert not outbox.has_more


def test_window_stops_the_stream() -> None:
    outbox = Outbox(10_000)
    write(source(outbox, 1), bytes(100_000))
    made = 0
    while data := outbox.make(4000):
        made += len(data)
    assert 10_000 <= made < 30_000
    outbox.acknowledge(made)
    assert outbox.make(4000)


def test_an_acknowledgement_is_asked_for_when_half_of_the_window_waits_for_it() -> None:
    outbox = Outbox(10_000)
    one = source(outbox, 1)
    asked = []
    for _ in range(40):
        write(one, bytes(992))
        asked.append((Kind.PING, 0) in kinds_and_channels(outbox.make(4000)))
        if sum(asked) == 2:
            outbox.acknowledge(outbox.end)
            break
    assert [at for at, ping in enumerate(asked) if ping] == [4, 9]
    write(one, bytes(992))
    assert kinds_and_channels(outbox.make(4000)) == [(Kind.DATA, 1)]


def test_what_was_acknowledged_is_forgotten() -> None:
    outbox = Outbox(1 << 20)
    one = source(outbox, 1)
    for _ in range(100):
        write(one, b"hello")
        outbox.make(1000)
    outbox.acknowledge(700)
    assert len(b"".join(outbox.since(700))) == outbox.end - 700
    with pytest.raises(RecordError):
        list(outbox.since(699))
    with pytest.raises(RecordError):
        list(outbox.since(outbox.end + 1))
    with pytest.raises(RecordError):
        outbox.acknowledge(outbox.end + 1)
    assert not outbox.acknowledge(3)  # late


# -- requests ------------------------------------------------------------------------------------

tokens = st.binary(min_size=1, max_size=255)


@given(tokens, offsets, offsets, st.binary(max_size=50))
def test_up_request(token: bytes, offset: int, received: int, data: bytes) -> None:
    body = up_body(token, offset, data, received)
    assert posts.read_up(body) == (token, received, offset, data)
    for end in range(len(body) - len(data)):
        try:
            assert posts.read_up(body[:end]) is None
        except posts.PostError:
            assert end < 3


@given(tokens, offsets, st.integers(1, 2**32 - 1), st.booleans(), st.integers(0, 255))
def test_down_request(token: bytes, offset: int, number: int, poll: bool, seconds: int) -> None:
    body = down_body(token, offset, number, mode=int(poll), seconds=seconds)
    assert posts.read_down(body) == (token, offset, number, poll, seconds)


def test_open_request() -> None:
    body = open_body(
        7, token=b"token", nonce=bytes(16), mode=1, seconds=9, credit=5, subprotocols="a, b"
    )
    assert posts.read_open(body) == (b"token", bytes(16), 7, True, 9, 5, "a, b", "")


GOOD = [
    open_body(1, subprotocols="chat", extensions="x"),
    up_body(b"token", 5, b"data"),
    down_body(b"token", 5, 1),
]
READERS: list[Any] = [posts.read_open, posts.read_up, posts.read_down]


@given(
    st.sampled_from(READERS), st.one_of(st.binary(max_size=80), st.sampled_from(GOOD)), st.data()
)
def test_malformed_requests_are_told(reader: Any, body: bytes, data: Any) -> None:
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(0, 3))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(changed)))
    with contextlib.suppress(posts.PostError):
        reader(bytes(changed[:end]))


@pytest.mark.parametrize(
    "body",
    [
        open_body(0, nonce=bytes(16)),
        open_body(2**31, nonce=bytes(16)),
        open_body(1, nonce=bytes(16), credit=2**31),
        open_body(1, nonce=bytes(16), mode=2),
        open_body(1, nonce=bytes(16)) + b"x",
        open_body(1, nonce=bytes(16))[:-1],
        open_body(1, nonce=bytes(16), subprotocols="a\r\nx"),
        b"\1",
        b"\1\5abc",
    ],
)
def test_malformed_open(body: bytes) -> None:
    with pytest.raises(posts.PostError):
        posts.read_open(body)


@pytest.mark.parametrize(
    ("content_type", "version"),
    [
        ("text/plain; plainsocket=1", 1),
        ("text/plain;plainsocket=1", 1),
        ("Text/Plain; PlainSocket=27", 27),
        ("text/plain", None),
        ("text/plain; plainsocket=", None),
        ("text/plain; plainsocket=x", None),
        ("application/json; plainsocket=1", None),
        ("text/plain; plainsocket=1; x=y", None),
    ],
)
def test_content_type(content_type: str, version: int | None) -> None:
    assert posts.version_of(content_type) == version


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=3))
def test_page_of_these_tests_cuts_as_the_document_says(pieces: list[bytes]) -> None:
    reader = RecordReader()
    stream = b"".join(data_records(1, piece) for piece in pieces)
    assert b"".join(part.payload for part in reader.feed(stream)) == b"".join(pieces)
