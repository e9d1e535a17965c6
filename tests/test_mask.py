"""_mask.c does what its twins in frames.py do."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needs import unavailable

PURE = "import os; os.environ['PLAINSOCKET_PURE'] = '1'; import plainsocket.frames as frames; "


@pytest.fixture(scope="module")
def compiled() -> ModuleType:
    try:
        from plainsocket import _mask  # type: ignore[attr-defined]
    except ImportError:
        unavailable("plainsocket was installed without a compiler: _mask is missing")
    module: ModuleType = _mask
    return module


def twin(data: bytes, key: bytes, offset: int = 0) -> bytes:
    return bytes(byte ^ key[(index + offset) & 3] for index, byte in enumerate(data))


keys = st.binary(min_size=4, max_size=4)


@given(data=st.binary(max_size=300), key=keys, offset=st.integers(0, 1 << 40))
def test_apply_mask(compiled: ModuleType, data: bytes, key: bytes, offset: int) -> None:
    assert compiled.apply_mask(data, key, offset) == twin(data, key, offset)
    assert compiled.apply_mask(memoryview(data), key) == twin(data, key)


@given(before=st.binary(max_size=20), key=keys, data=st.binary(max_size=300), after=st.binary())
def test_unmask(compiled: ModuleType, before: bytes, key: bytes, data: bytes, after: bytes) -> None:
    start = len(before) + 4
    frame = before + key + data + after
    assert compiled.unmask(frame, start, start + len(data)) == twin(data, key)


@given(key=keys, text=st.text(max_size=200), repeat=st.sampled_from([1, 50]))
def test_unmask_text(compiled: ModuleType, key: bytes, text: str, repeat: int) -> None:
    data = (text * repeat).encode()
    assert compiled.unmask_text(key + twin(data, key), 4, 4 + len(data)) == text * repeat


def test_text_that_is_not_utf8(compiled: ModuleType) -> None:
    key = b"abcd"
    for data in (b"\xff", b"x" * 5000 + b"\xed\xa0\x80"):
        with pytest.raises(UnicodeDecodeError):
            compiled.unmask_text(key + twin(data, key), 4, 4 + len(data))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((b"abcdx", 3, 5), IndexError),
        ((b"abcdx", 4, 6), IndexError),
        ((b"abcdx", 5, 4), IndexError),
        ((b"abcdx", -1, 5), IndexError),
        ((b"abcdx", 4, 1 << 70), OverflowError),
        ((b"abcdx", 4), TypeError),
        ((bytearray(b"abcdx"), 4, 5), TypeError),
        (("abcdx", 4, 5), TypeError),
        ((b"abcdx", "4", 5), TypeError),
    ],
)
def test_bad_arguments_read_nothing_foreign(
    compiled: ModuleType, arguments: tuple[object, ...], error: type[Exception]
) -> None:
    for function in (compiled.unmask, compiled.unmask_text):
        with pytest.raises(error):
            function(*arguments)


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde", "abcd"])
def test_a_key_is_four_bytes(compiled: ModuleType, key: object) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        compiled.apply_mask(b"x", key)


def test_pure_python_is_taken_where_asked_for() -> None:
    program = PURE + (
        "assert not frames.IS_COMPILED; "
        "masked = frames.apply_mask(b'text', b'abcd'); "
        "assert frames.unmask(b'..abcd' + masked, 6, 10) == b'text'; "
        "assert frames.unmask_text(b'..abcd' + masked, 6, 10) == 'text'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
