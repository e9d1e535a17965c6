"""frames.py: the bytes of frames (RFC 6455 section 5.2) and of close payloads (5.5.1, 7.4)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plainsocket.frames import (
    MAX_CONTROL_PAYLOAD,
    CloseCode,
    FrameError,
    Header,
    Opcode,
    apply_mask,
    close_payload,
    header,
    is_valid_close_code,
    read_close_payload,
    read_header,
)

KEY = bytes.fromhex("37fa213d")  # RFC 6455 section 5.7

# (bytes of the head, what they mean): every form of the length at its bounds.
HEADS = [
    ("8100", Header(Opcode.TEXT, True, 0, b"", 0, 2)),
    ("0100", Header(Opcode.TEXT, False, 0, b"", 0, 2)),
    ("8000", Header(Opcode.CONTINUATION, True, 0, b"", 0, 2)),
    ("827d", Header(Opcode.BINARY, True, 0, b"", 125, 2)),
    ("827e007e", Header(Opcode.BINARY, True, 0, b"", 126, 4)),
    ("827e0100", Header(Opcode.BINARY, True, 0, b"", 256, 4)),
    ("827effff", Header(Opcode.BINARY, True, 0, b"", 65535, 4)),
    ("827f0000000000010000", Header(Opcode.BINARY, True, 0, b"", 65536, 10)),
    ("827f7fffffffffffffff", Header(Opcode.BINARY, True, 0, b"", 2**63 - 1, 10)),
    ("8185" + KEY.hex(), Header(Opcode.TEXT, True, 0, KEY, 5, 6)),
    ("82fe007e" + KEY.hex(), Header(Opcode.BINARY, True, 0, KEY, 126, 8)),
    ("82ff0000000000010000" + KEY.hex(), Header(Opcode.BINARY, True, 0, KEY, 65536, 14)),
    ("887d", Header(Opcode.CLOSE, True, 0, b"", 125, 2)),
    ("8900", Header(Opcode.PING, True, 0, b"", 0, 2)),
    ("8a80" + KEY.hex(), Header(Opcode.PONG, True, 0, KEY, 0, 6)),
    ("c100", Header(Opcode.TEXT, True, 0x40, b"", 0, 2)),
    ("a100", Header(Opcode.TEXT, True, 0x20, b"", 0, 2)),
    ("9100", Header(Opcode.TEXT, True, 0x10, b"", 0, 2)),
    ("f97d", Header(Opcode.PING, True, 0x70, b"", 125, 2)),
]

BAD_HEADS = [
    *((f"{0x80 | opcode:02x}00", "reserved opcode") for opcode in (*range(3, 8), *range(11, 16))),
    ("0800", "fragmented"),
    ("0900", "fragmented"),
    ("0a80", "fragmented"),
    ("887e", "longer than 125"),
    ("897e007e", "longer than 125"),
    ("8aff", "longer than 125"),
    ("827e0000", "shortest"),
    ("827e007d", "shortest"),
    ("827f0000000000000000", "shortest"),
    ("827f000000000000007d", "shortest"),
    ("827f000000000000ffff", "shortest"),
    ("827f8000000000000000", "2\\*\\*63"),
    ("827fffffffffffffffff", "2\\*\\*63"),
]

VALID_CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize(("data", "expected"), HEADS)
def test_head_is_read(data: str, expected: Header) -> None:
    assert read_header(bytes.fromhex(data)) == expected
    assert read_header(bytes.fromhex(data) + b"payload") == expected
    assert read_header(b"before" + bytes.fromhex(data), 6) == expected


@pytest.mark.parametrize(("data", "expected"), HEADS)
def test_head_is_built(data: str, expected: Header) -> None:
    built = header(
        expected.opcode, expected.length, fin=expected.fin, rsv=expected.rsv, key=expected.key
    )
    assert built.hex() == data


@pytest.mark.parametrize("data", [data for data, _ in HEADS])
def test_part_of_a_head_is_not_read(data: str) -> None:
    head = bytes.fromhex(data)
    for size in range(len(head)):
        assert read_header(head[:size]) is None
        assert read_header(b"..." + head[:size], 3) is None


@pytest.mark.parametrize(("data", "reason"), BAD_HEADS)
def test_bad_head_is_a_protocol_error(data: str, reason: str) -> None:
    with pytest.raises(FrameError, match=reason) as caught:
        read_header(bytes.fromhex(data))
    assert caught.value.code == CloseCode.PROTOCOL_ERROR


@given(st.binary(max_size=16))
@settings(deadline=None)
def test_reading_a_head_is_the_same_however_many_bytes_follow(data: bytes) -> None:
    outcomes: list[Header | str] = []
    for size in range(len(data) + 1):
        try:
            outcome = read_header(data[:size])
        except FrameError as error:
            outcomes.append(error.reason)
        else:
            if outcome is not None:
                assert outcome.size <= size
                outcomes.append(outcome)
            else:
                assert not outcomes
    assert all(outcome == outcomes[0] for outcome in outcomes)


@given(
    opcode=st.sampled_from(Opcode),
    length=st.integers(0, 2**63 - 1) | st.sampled_from([0, 125, 126, 65535, 65536, 2**63 - 1]),
    fin=st.booleans(),
    rsv=st.integers(0, 7).map(lambda bits: bits << 4),
    key=st.just(b"") | st.binary(min_size=4, max_size=4),
)
@settings(deadline=None)
def test_what_is_built_is_what_is_read(
    opcode: Opcode, length: int, fin: bool, rsv: int, key: bytes
) -> None:
    if opcode >= Opcode.CLOSE:
        length, fin = length % (MAX_CONTROL_PAYLOAD + 1), True
    built = header(opcode, length, fin=fin, rsv=rsv, key=key)
    assert read_header(built) == Header(opcode, fin, rsv, key, length, len(built))


def test_masking_as_in_the_rfc() -> None:
    masked = bytes.fromhex("7f9f4d5158")  # RFC 6455 section 5.7
    assert apply_mask(b"Hello", KEY) == masked
    assert apply_mask(masked, KEY) == b"Hello"


@given(
    data=st.binary(max_size=300),
    key=st.binary(min_size=4, max_size=4),
    cut=st.integers(0, 300),
)
@settings(deadline=None)
def test_masking_in_two_pieces_is_masking_at_once(data: bytes, key: bytes, cut: int) -> None:
    expected = bytes(byte ^ key[index % 4] for index, byte in enumerate(data))
    assert apply_mask(data, key) == expected
    assert apply_mask(memoryview(data), key) == expected
    cut = min(cut, len(data))
    assert apply_mask(data[:cut], key) + apply_mask(data[cut:], key, cut) == expected


def test_masking_far_inside_a_payload() -> None:
    assert apply_mask(b"Hello", KEY, 4 * 2**40) == apply_mask(b"Hello", KEY)
    assert apply_mask(b"Hello", KEY, 4 * 2**40 + 3) == apply_mask(b"Hello", KEY, 3)


@pytest.mark.parametrize("code", VALID_CODES)
def test_valid_close_code(code: int) -> None:
    assert is_valid_close_code(code)
    payload = code.to_bytes(2, "big") + "grüß".encode()
    assert close_payload(code, "grüß") == payload
    assert read_close_payload(payload) == (code, "grüß")


@pytest.mark.parametrize("code", INVALID_CODES)
def test_invalid_close_code(code: int) -> None:
    assert not is_valid_close_code(code)
    with pytest.raises(ValueError, match=str(code)):
        close_payload(code)
    with pytest.raises(FrameError, match=str(code)) as caught:
        read_close_payload(code.to_bytes(2, "big"))
    assert caught.value.code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("code", [-1, 65536, 70000])
def test_close_code_beyond_two_bytes_is_a_value_error(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        close_payload(code)


def test_close_without_a_code() -> None:
    assert close_payload(None) == b""
    assert read_close_payload(b"") == (CloseCode.NO_STATUS_RECEIVED, "")


def test_close_payload_of_one_byte() -> None:
    with pytest.raises(FrameError, match="one byte") as caught:
        read_close_payload(b"\x03")
    assert caught.value.code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("reason", [b"\xff", b"ok \xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_close_reason_that_is_not_utf8(reason: bytes) -> None:
    with pytest.raises(FrameError, match="UTF-8") as caught:
        read_close_payload(b"\x03\xe8" + reason)
    assert caught.value.code == CloseCode.INVALID_DATA


@pytest.mark.parametrize("reason", ["x" * 123, "é" * 61 + "x", "😀" * 30 + "abc"])
def test_longest_close_reason(reason: str) -> None:
    payload = close_payload(1000, reason)
    assert len(payload) == MAX_CONTROL_PAYLOAD
    assert read_close_payload(payload) == (1000, reason)


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "😀" * 31])
def test_close_reason_is_measured_in_bytes(reason: str) -> None:
    with pytest.raises(ValueError, match="124 bytes"):
        close_payload(1000, reason)


def test_close_reason_that_is_not_text() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        close_payload(1000, "\ud800")


@given(st.binary(max_size=MAX_CONTROL_PAYLOAD))
@settings(deadline=None)
def test_any_close_payload_is_read_or_a_frame_error(payload: bytes) -> None:
    outcome: FrameError | tuple[int, str]
    try:
        outcome = read_close_payload(payload)
    except FrameError as error:
        outcome = error
    if isinstance(outcome, FrameError):
        assert outcome.code in (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA)
    else:
        code, reason = outcome
        assert close_payload(code if payload else None, reason) == payload
