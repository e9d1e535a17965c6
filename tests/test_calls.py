"""The system calls in Python. (Their C twins are what every other test runs on.)"""

from __future__ import annotations

import gc
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import greenlet
import pytest

from plainsocket.carriers import calls
from plainsocket.carriers.descriptor import Descriptor
from serving import PATIENCE, wait_until


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    one.setblocking(False)
    with one, other:
        yield one, other


Pair = tuple[socket.socket, socket.socket]


def test_accept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        assert calls.accept(listener.fileno()) == -1
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as client:
            wait_until(lambda: select.select([listener], [], [], 0)[0])
            accepted = calls.accept(listener.fileno())
            with socket.socket(fileno=accepted) as sock:
                assert calls.ipv4_address(calls.peer()) == client.getsockname()
                assert not os.get_blocking(sock.fileno())
                assert not os.get_inheritable(sock.fileno())
        other = listener.dup()
        other.shutdown(socket.SHUT_RD)
    with other, pytest.raises(OSError, match="Invalid argument"):
        calls.accept(other.fileno())


def test_a_descriptor_is_a_socket_as_far_as_a_carrier_needs(pair: Pair) -> None:
    one, other = pair
    one = Descriptor(one.detach(), one.family, one.type, one.proto)  # type: ignore[assignment]
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.shutdown(socket.SHUT_WR)
    assert other.recv(1) == b""
    other.sendall(b"x")
    fd = one.fileno()
    assert calls.read(fd) == b"x"
    assert one.detach() == fd
    assert one.fileno() == -1
    one.close()
    os.fstat(fd)  # is open
    Descriptor(fd, one.family, one.type, one.proto).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    del one
    dropped, kept = socket.socketpair()
    Descriptor(dropped.detach(), kept.family, kept.type, kept.proto)
    gc.collect()
    kept.settimeout(PATIENCE)
    with kept:
        assert kept.recv(1) == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        Descriptor(-1, kept.family, kept.type, kept.proto).shutdown(socket.SHUT_WR)


def test_read(pair: Pair) -> None:
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


def test_write(pair: Pair) -> None:
    one, other = pair
    assert calls.write(one.fileno(), b"bytes") == 5
    assert calls.write(one.fileno(), memoryview(b"a view")[2:]) == 4
    assert other.recv(100) == b"bytesview"
    while calls.write(one.fileno(), bytes(1 << 20)) >= 0:
        pass
    assert calls.write(one.fileno(), b"x") == -1
    assert calls.write_many(one.fileno(), [b"x", b"y"]) == -1


def test_write_many(pair: Pair) -> None:
    one, other = pair
    assert calls.write_many(one.fileno(), [b"a", memoryview(b"bcd")[1:], b"", b"e"]) == 4
    assert calls.write_many(one.fileno(), [b"x"] * 64) == 64
    assert other.recv(100) == b"acde" + b"x" * 64


def test_errors(pair: Pair) -> None:
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
        calls.write(one.fileno(), "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        calls.write_many(one.fileno(), [b"x", "text"])  # type: ignore[list-item]


def test_switch_and_clock_and_thread() -> None:
    here = greenlet.getcurrent()
    other = greenlet.greenlet(lambda: here.switch("answer"))
    assert calls.switch(other) == "answer"
    assert abs(calls.monotonic() - time.monotonic()) < 60
    assert calls.this_thread() == threading.get_ident()
