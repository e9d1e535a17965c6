"""`plainsocket connect`: piped, and typed at a terminal."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
import pytest
import trustme

import plainsocket
from peers import tls_server_context, websockets_server
from serving import PATIENCE, echo, serving

CONNECT = (sys.executable, "-m", "plainsocket", "connect")


def environment(**more: str) -> dict[str, str]:
    kept = {name: each for name, each in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, **more}


def pipe(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*CONNECT, *arguments],
        input=data,
        capture_output=True,
        timeout=20,
        check=False,
        env=environment(),
    )


# -- piped ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_lines_go_through_and_nothing_is_lost_at_the_end() -> None:
    text = "".join(f"line {number} ☺\n" for number in range(500)).encode()
    for server in (serving(), websockets_server()):
        with server as running:
            port = running if isinstance(running, int) else running.port
            result = pipe(f"127.0.0.1:{port}/echo", data=text + b"/ping\r\nlast")
        assert (result.returncode, result.stderr) == (0, b"")
        assert result.stdout == text + b"/ping\nlast\n"


@pytest.mark.slow
def test_exit_codes(tmp_path: Path) -> None:
    def close(ws: plainsocket.WebSocket) -> None:
        code = ws.path[1:]
        if code == "abort":
            ws.abort()
        else:
            ws.close(int(code), "so \x1b[31mit is")

    def guard(request: plainsocket.Request) -> None:
        if request.path == "/403":
            raise plainsocket.Refused(403, "Members only.")

    with serving(close, process_request=guard) as server:
        url = f"ws://127.0.0.1:{server.port}"
        codes = {
            "/1000": (0, b""),
            "/1001": (0, b""),
            "/4000": (4, b"closed with 4000: so \\x1b[31mit is"),
            "/abort": (4, b"closed with 1006: connection ended"),
            "/403": (3, b"refused with 403 Forbidden: Members only."),
        }
        for path, (code, text) in codes.items():
            result = pipe(url + path, "--wait", "inf")
            assert (result.returncode, path) == (code, path)
            assert text in result.stderr
            assert len(result.stderr.splitlines()) == (1 if code else 0)
        assert pipe(f"{url}/1000", data=b"\xff\n").returncode in (0, 2)
    context = tls_server_context(trustme.CA(), "localhost")
    with serving(ssl_context=context) as server:
        url = f"wss://localhost:{server.port}"
        result = pipe(url)
        assert (result.returncode, b"bad certificate: " in result.stderr) == (1, True)
        assert pipe(url, "--insecure", data=b"x").stdout == b"x\n"
        authority = tmp_path / "ca.pem"
        trustme.CA().cert_pem.write_to_path(str(authority))
        assert pipe(url, "--ca", str(authority)).returncode == 1
    assert pipe("ws://127.0.0.1:1").returncode == 1
    assert pipe("ws://127.0.0.1:1/#x").returncode == 2
    assert pipe("ws://127.0.0.1:1", "-H", "nonsense").returncode == 2


def test_headers_subprotocols_origin_and_binary() -> None:
    def tell(ws: plainsocket.WebSocket) -> None:
        ws.send(f"{ws.request.headers['x-a']} {ws.subprotocol} {ws.origin}")
        ws.send(b"\x00\xff")

    with serving(tell, subprotocols=["two"]) as server:
        url = f"127.0.0.1:{server.port}"
        origin = f"http://127.0.0.1:{server.port}"
        options = ["-H", "X-A: b: c", "-s", "one", "-s", "two", "-o", origin]
        result = pipe(url, *options, "--wait", "inf")
    assert result.stdout.decode() == f"b: c two {origin}\n00ff\n"


@contextmanager
def started(*arguments: str, **files: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*CONNECT, *arguments], env=environment(), **files)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_ends_with_the_connection_though_the_input_does_not() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with serving() as server, started(f"127.0.0.1:{server.port}", **pipes) as process:
        assert process.stdin is not None
        process.stdin.write(b"quit\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0


def test_nobody_reads_the_output_any_more() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with serving() as server, started(f"127.0.0.1:{server.port}", **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""


def test_ctrl_c_when_piped() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with serving() as server, started(f"127.0.0.1:{server.port}", **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"one\n"
        process.send_signal(2)
        assert process.wait(PATIENCE) == 130
        assert process.communicate()[1] == b""


# -- at a terminal -------------------------------------------------------------------------------


class Terminal:
    """A terminal of 70 columns and a program in it."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
        self.process = subprocess.Popen(
            [*CONNECT, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(**variables),
            # Its controlling terminal, so that Ctrl-C comes as a signal where it should.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._screen = pyte.Screen(70, 24)
        self._screen.write_process_input = self.type  # type: ignore[method-assign, assignment]
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def cursor(self) -> int:
        column: int = self._screen.cursor.x
        return column

    def wait_for(self, condition: Callable[[list[str]], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition(self.lines):
            assert time.monotonic() < deadline, self.lines
            self.read()

    def wait_for_prompt(self) -> None:
        """Wait until what is typed is read: Ctrl-C just before that would have to come twice."""
        self.wait_for_line("connected")
        self.wait_for(lambda lines: lines[-1:] == [">"])

    def wait_for_line(self, start: str) -> None:
        self.wait_for(lambda lines: any(line.startswith(start) for line in lines))

    def read(self) -> bool:
        if not select.select([self._master], [], [], 0.05)[0]:
            return False
        with contextlib.suppress(OSError):  # at the program's end
            data = os.read(self._master, 65536)
            self._stream.feed(self._decoder.decode(data))
            return bool(data)
        return False

    def leave(self) -> int:
        """Type Ctrl-D until it is seen: between two prompts the terminal swallows it."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(AssertionError, OSError):
                self.type("\x04")
                self.wait(0.5)
        return self.wait()

    def wait(self, patience: float = PATIENCE) -> int:
        deadline = time.monotonic() + patience
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.lines
            self.read()
        while self.read():
            pass
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


RICH, PLAIN = {"TERM": "xterm-256color"}, {"TERM": "dumb"}
both = pytest.mark.parametrize("variables", [RICH, PLAIN], ids=["prompt-toolkit", "readline"])


@contextmanager
def terminal(*arguments: str, **variables: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments, **variables)
    try:
        yield opened
    finally:
        opened.close()


@both
@pytest.mark.slow
def test_a_session(variables: dict[str, str], tmp_path: Path) -> None:
    variables = {**variables, "XDG_STATE_HOME": str(tmp_path)}
    with serving(echo) as server:
        url = f"127.0.0.1:{server.port}/echo"
        with terminal(url, **variables) as term:
            term.wait_for_prompt()
            for typed, shown in {
                "Zoë ☺": "< Zoë ☺",
                "/hex 00 ff": "< (2 B) 00 ff",
                "//slash": "< /slash",
                "/ping": "pong after ",
                "/nonsense": "there is no /nonsense; /help tells",
                "/close 99": "99 is not a close code",
                "/hex xyz": "non-hexadecimal",
                "/help": "Ctrl-D closes",
            }.items():
                term.type(typed + "\r")
                term.wait_for_line(shown)
            # What comes does not break the line being typed.
            term.wait_for(lambda lines: lines[-1:] == [">"])
            term.type("half a li")
            term.wait_for(lambda lines: lines[-1:] == ["> half a li"])
            (ws,) = server.server.connections
            server.call(lambda: ws.send("an interruption\nof two lines"))
            term.wait_for(lambda lines: "< an interruption" in lines)
            term.wait_for(lambda lines: lines[-2:] == ["  of two lines", "> half a li"])
            assert term.cursor == len("> half a li")
            term.type("ne\r")
            term.wait_for(lambda lines: "< half a line" in lines)
            term.type("/close 4001 bye\r")
            assert term.wait() == 4
            assert any("closed with 4001" in line for line in term.lines)
        # The lines typed are there the next time, and nobody else's.
        history = tmp_path / "plainsocket/history"
        assert history.stat().st_mode & 0o777 == 0o600
        with terminal(url, **variables) as term:
            term.wait_for_prompt()
            term.type("\x1b[A\x1b[A\r")
            term.wait_for(lambda lines: "< half a line" in lines)
            assert term.leave() == 0


@both
@pytest.mark.slow
def test_the_server_closes_while_one_types(variables: dict[str, str]) -> None:
    with serving() as server, terminal(server.url(), "--no-history", **variables) as term:
        term.wait_for_prompt()
        term.type("unsent")
        term.wait_for(lambda lines: lines[-1:] == ["> unsent"])
        (ws,) = server.server.connections
        server.call(lambda: ws.close(1001, "maintenance\x1b]0;title\x07"))
        assert term.wait() == 0
        assert any("closed with 1001: maintenance\\x1b]0;title\\x07" in line for line in term.lines)


@both
@pytest.mark.slow
def test_ctrl_c(variables: dict[str, str]) -> None:
    with serving() as server, terminal(server.url(), "--no-history", **variables) as term:
        term.wait_for_prompt()
        term.type("unsent")
        term.wait_for(lambda lines: lines[-1:] == ["> unsent"])
        term.type("\x03")
        with contextlib.suppress(AssertionError):
            term.wait(1.0)
        if term.process.poll() is None:
            term.type("\x03")  # readline can miss one that comes just before it waits
        assert term.wait() == 130
        assert "Traceback" not in "\n".join(term.lines)


def test_a_refusal_at_a_terminal() -> None:
    with terminal("127.0.0.1:1", **PLAIN) as term:
        assert term.wait() == 1
        (line,) = term.lines
        assert line == "plainsocket: can't connect to 127.0.0.1:1: Connection refused"
