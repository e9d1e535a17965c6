"""Programs run as a user runs them: as child processes, stopped by Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

START = 20.0  # seconds a program has to say that it is ready
STOP = 20.0  # seconds a program has to end after Ctrl-C


class Program:
    """A child process whose output, stdout and stderr in one, is collected as it comes."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path | None = None) -> None:
        self.arguments = list(arguments)
        self._process = subprocess.Popen(
            self.arguments,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C at the test run's terminal is not also the child's,
            # and what the child leaves behind can be killed with it.
            start_new_session=True,
        )
        self._output = bytearray()
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            while data := os.read(stdout.fileno(), 65536):
                with self._changed:
                    self._output += data
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        """Also the number of its process group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """All that the program has printed so far."""
        with self._changed:
            return self._output.decode(errors="replace")

    def wait_for(self, pattern: str, timeout: float = START) -> re.Match[str]:
        """Wait until `pattern` is found in the output; ^ and $ are the ends of a line."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (match := re.search(pattern, self.output, re.MULTILINE)):
                if self._ended or not self._changed.wait(deadline - time.monotonic()):
                    ended = "ended" if self._ended else f"waited {timeout:g} s"
                    raise AssertionError(
                        f"{ended} without printing {pattern!r}: {self.arguments}\n{self.output}"
                    )
        return match

    def wait(self, timeout: float = STOP) -> int:
        """Wait until the program has ended by itself and return its exit code."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def interrupt(self, timeout: float = STOP) -> int:
        """Do what Ctrl-C does, wait for the end, and return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.wait(timeout)

    def kill(self) -> None:
        """Leave nothing of it behind, whatever state it is in."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.wait()


@contextmanager
def running(*arguments: str, cwd: Path | None = None) -> Iterator[Program]:
    """Run a program for as long as the block lasts."""
    program = Program(arguments, cwd=cwd)
    try:
        yield program
    finally:
        program.kill()


@contextmanager
def demo_server() -> Iterator[tuple[Program, str]]:
    """`plainsocket demo` on a free port; yields the program and the address it prints."""
    with running(sys.executable, "-m", "plainsocket", "demo", "--port", "0") as program:
        address = program.wait_for(r"http://127\.0\.0\.1:\d+/")
        yield program, address.group()
