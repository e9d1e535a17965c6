"""A new server takes the listening socket over under load, and no attempt to connect fails."""

from __future__ import annotations

import collections
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from plainsocket.frames import Opcode
from ports import free_port
from processes import START, Program, running
from rawclient import RawClient
from serving import PATIENCE, wait_until
from test_tutorial import DEPLOY, Folder, blocks_of, wait_for_port

pytestmark = pytest.mark.slow

CLIENTS = 8
CHANGES = 4


class Load:
    """Clients that connect, have one message echoed, and close, again and again."""

    def __init__(self, port: int, pause: float) -> None:
        self._port = port
        self._pause = pause
        self._stop = threading.Event()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.outcomes[self._attempt()] += 1

    def _attempt(self) -> str:
        stage = "connecting"
        try:
            with RawClient(self._port) as client:
                stage = "handshake"
                time.sleep(self._pause)  # what a network takes for a round trip
                client.open()
                stage = "after the 101"
                client.send_frame(Opcode.TEXT, b"x")
                head, payload = client.receive_frame()
                if head.opcode == Opcode.CLOSE:
                    # It was accepted by a server that stops, as an open WebSocket of its.
                    return f"closed with {int.from_bytes(payload[:2], 'big')}"
                client.send_frame(Opcode.CLOSE, b"\x03\xe8")
                code, _ = client.receive_close()
                return "done" if code in (1000, 1001) else f"closed with {code} at the end"
        except (OSError, AssertionError) as error:
            return f"{stage}: {type(error).__name__}: {error}"

    def wait_for_more(self) -> None:
        """Wait until a good many more attempts have succeeded."""
        enough = self.outcomes["done"] + 100
        wait_until(lambda: self.outcomes["done"] >= enough)


@contextmanager
def launched(folder: Folder) -> Iterator[Program]:
    with running(sys.executable, "-u", "launch.py", cwd=folder.path) as program:
        wait_for_port(program, folder.port)
        yield program
        program._process.send_signal(signal.SIGTERM)
        assert program.wait() == 0, program.output
        assert "Traceback" not in program.output, program.output


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The document's two programs; the server also prints when it is ready."""
    folder = Folder(tmp_path, free_port(), free_port())
    for block in blocks_of(DEPLOY):
        if block.name in ("launch.py", "server.py"):
            folder.add(block)
    program = tmp_path / "server.py"
    text, count = re.subn(
        r"^    os\.kill\(",
        "    print('ready', os.getpid(), flush=True)\n    os.kill(",
        program.read_text(),
        flags=re.MULTILINE,
    )
    assert count == 1
    program.write_text(text)
    return folder


def pids(program: Program) -> list[int]:
    return [int(pid) for pid in re.findall(r"^ready (\d+)$", program.output, re.MULTILINE)]


def wait_for_pids(program: Program, count: int) -> None:
    """What has been printed is not read in the same moment."""
    wait_until(lambda: len(pids(program)) >= count)
    assert len(pids(program)) == count


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("pause", [0.0, 0.01], ids=["at once", "after a round trip"])
def test_no_attempt_fails(folder: Folder, pause: float) -> None:
    with launched(folder) as program, Load(folder.port, pause) as load:
        for number in range(1, CHANGES + 1):
            load.wait_for_more()
            with RawClient(folder.port) as client:
                client.open()
                program._process.send_signal(signal.SIGHUP)
                assert client.receive_close() == (1001, "server is stopping")
                client.send_frame(Opcode.CLOSE, b"\x03\xe9")
                assert client.receive_rest() == b""
            wait_for_pids(program, number + 1)
        load.wait_for_more()
        *old, newest = pids(program)
        deadline = time.monotonic() + START
        while any(map(is_running, old)):
            assert time.monotonic() < deadline, "an old server does not end"
            time.sleep(0.05)
        assert is_running(newest)
    outcomes = dict(load.outcomes)
    assert outcomes.pop("done") > 100 * CHANGES
    # Not refused, not reset, and not without an answer.
    assert set(outcomes) <= {"closed with 1001"}, outcomes


def test_who_comes_while_there_is_no_server_waits(folder: Folder) -> None:
    """As with a socket of systemd's: the new one is started when the old one has ended."""
    program_file = folder.path / "server.py"
    program_file.write_text("import time\ntime.sleep(1.0)\n" + program_file.read_text())
    with launched(folder) as program, RawClient(folder.port) as early:
        early.open()
        wait_for_pids(program, 1)


def test_a_new_server_that_does_not_start_leaves_the_old_one_alone(folder: Folder) -> None:
    program_file = folder.path / "server.py"
    good = program_file.read_text()
    with launched(folder) as program, RawClient(folder.port) as client:
        client.open()
        wait_until(lambda: pids(program))
        program_file.write_text("print('bad', flush=True)\nraise SystemExit(1)\n")
        program._process.send_signal(signal.SIGHUP)
        program.wait_for("^bad$")
        time.sleep(0.2)
        client.send_frame(Opcode.TEXT, b"x")
        assert client.receive_frame()[1] == b"x"
        program_file.write_text(good)
        program._process.send_signal(signal.SIGHUP)
        assert client.receive_close()[0] == 1001
        with RawClient(folder.port) as next_client:
            next_client.open()
            next_client.send_frame(Opcode.TEXT, b"x")
            assert next_client.receive_frame()[1] == b"x"
