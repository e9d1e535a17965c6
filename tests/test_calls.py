"""The system calls of the tcp carrier: the C functions and their twins in Python alike."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from types import ModuleType

import pytest

import plainsocket.carriers.calls
import plainsocket.carriers.tcp
import plainsocket.frames
import plainsocket.protocol
from needs import unavailable


@pytest.fixture(params=["compiled", "pure"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if request.param == "compiled":
        try:
            from plainsocket import _calls  # type: ignore[attr-defined]
        except ImportError:
            unavailable("plainsocket was installed without a compiler: _calls is missing")
        module: ModuleType = _calls
        return module
    monkeypatch.setenv("PLAINSOCKET_PURE", "1")
    path = plainsocket.carriers.calls.__file__
    spec = importlib.util.spec_from_file_location("plainsocket.carriers.pure_calls", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    one.setblocking(False)
    with one, other:
        yield one, other


Pair = tuple[socket.socket, socket.socket]


def test_read(calls: ModuleType, pair: Pair) -> None:
    one, other = pair
    assert calls.read(one.fileno()) is None
    other.sendall(b"some")
    assert calls.read(one.fileno()) == b"some"
    other.setblocking(False)
    sent = 0
    while (size := calls.write(other.fileno(), bytes(1 << 20))) > 0:
        sent += size
    received = 0
    while (data := calls.read(one.fileno())) is not None:
        assert len(data) <= 64 * 1024
        received += len(data)
    assert received == sent
    other.close()
    assert calls.read(one.fileno()) == b""


def test_write(calls: ModuleType, pair: Pair) -> None:
    one, other = pair
    assert calls.write(one.fileno(), b"bytes") == 5
    assert calls.write(one.fileno(), memoryview(b"a view")[2:]) == 4
    assert other.recv(100) == b"bytesview"
    while calls.write(one.fileno(), bytes(1 << 20)) >= 0:
        pass
    assert calls.write(one.fileno(), b"x") == -1
    assert calls.write_many(one.fileno(), [b"x", b"y"]) == -1


def test_write_many(calls: ModuleType, pair: Pair) -> None:
    one, other = pair
    assert calls.write_many(one.fileno(), [b"a", memoryview(b"bcd")[1:], b"", b"e"]) == 4
    assert calls.write_many(one.fileno(), [b"x"] * 64) == 64
    assert other.recv(100) == b"acde" + b"x" * 64


def test_errors(calls: ModuleType, pair: Pair) -> None:
    one, other = pair
    other.close()
    with pytest.raises(BrokenPipeError):
        calls.write(one.fileno(), b"x")
    with pytest.raises(BrokenPipeError):
        calls.write_many(one.fileno(), [b"x"])
    with pytest.raises((OSError, ValueError)):
        calls.read(-1)
    with pytest.raises((OSError, ValueError)):
        calls.write(-1, b"x")
    with pytest.raises(TypeError):
        calls.write(one.fileno(), "text")
    with pytest.raises(TypeError):
        calls.write_many(one.fileno(), [b"x", "text"])


def test_the_compiled_functions_are_in_use_unless_pure_ones_are_asked_for() -> None:
    try:
        from plainsocket import _calls, _mask  # type: ignore[attr-defined]
    except ImportError:
        unavailable("plainsocket was installed without a compiler")
    is_compiled = not os.environ.get("PLAINSOCKET_PURE")
    for name in ("read", "write", "write_many"):
        used = getattr(plainsocket.carriers.calls, name)
        assert (used is getattr(_calls, name)) is is_compiled
    for name in ("apply_mask", "unmask", "unmask_text"):
        used = getattr(plainsocket.frames, name)
        assert (used is getattr(_mask, name)) is is_compiled
    used = vars(plainsocket.protocol)["unmask_text"], vars(plainsocket.carriers.tcp)["read"]
    assert (used == (_mask.unmask_text, _calls.read)) is is_compiled
