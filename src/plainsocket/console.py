"""`plainsocket connect`: type to a WebSocket server, or pipe lines through it."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import gevent
from gevent.util import wrap_errors

from . import client_arguments
from .client import connect
from .client_arguments import (
    CLOSED_NORMALLY,
    INTERRUPTED,
    exit_code,
    explain,
    interrupted_by_ctrl_c,
    printable_text,
)
from .errors import ConnectionClosed
from .protocol import Message
from .websocket import WebSocket

PROMPT: Final = "> "
_MOST_SHOWN: Final = 4096  # bytes of a binary message that a terminal shows
_HISTORY_LENGTH: Final = 1000  # lines

_HELP: Final = """\
A line is sent as a text message. Lines that begin with a slash are commands:
  /ping                 measure a round trip
  /hex 00 ff 7f         send a binary message
  /close [CODE [TEXT]]  close, with 1000 by default
  /help                 show this
  //text                send "/text"
Ctrl-D closes, Ctrl-C interrupts."""


def add_to(commands: Any) -> None:
    """Add the command to argparse's."""
    command = commands.add_parser(
        "connect",
        help="talk to a WebSocket server, line by line",
        description="Talk to a WebSocket server. At a terminal each line typed is a message, and "
        "/help tells more. Otherwise each line of standard input is sent as a text message, "
        "messages are printed to standard output, binary ones in hexadecimal, and at the end of "
        "the input the connection is closed.",
        epilog=client_arguments.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    client_arguments.add_to(command)
    command.add_argument(
        "-w",
        "--wait",
        type=float,
        default=0.5,
        metavar="S",
        help="at the end of the input stay until nothing has come for S seconds (0.5); inf: until "
        "the server closes",
    )
    command.add_argument(
        "--no-history", action="store_true", help="do not keep the lines typed for the next time"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    try:
        url, arguments = client_arguments.for_connect(options)
        if sys.stdin.isatty() and sys.stdout.isatty():
            return _talk(url, arguments, None if options.no_history else _history_file())
        with interrupted_by_ctrl_c():
            return _pipe(url, arguments, options.wait)
    except (ValueError, TypeError, ImportError, OSError) as error:
        code, text = explain(error)
        print(f"plainsocket: {text}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED


# -- lines through a pipe ------------------------------------------------------------------------


def _pipe(url: str, arguments: dict[str, Any], wait: float) -> int:
    with connect(url, **arguments) as ws:
        receiver: Any = gevent.spawn(wrap_errors((Exception,), _print_messages), ws)
        sender: Any = gevent.spawn(wrap_errors((Exception,), _send_lines), ws)
        try:
            gevent.joinall([sender, receiver], count=1)
            if sender.ready():
                _raise_error_of(sender)
                _wait_for_silence(ws, receiver, wait)
                ws.close()
            receiver.join()
            _raise_error_of(receiver)
        except BrokenPipeError:  # nobody reads any more, as behind `head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_NORMALLY
        finally:
            sender.kill(block=False)
            receiver.kill(block=False)
    if exit_code(ws.close_code):
        print(f"plainsocket: {_end_of(ws)}", file=sys.stderr)
    return exit_code(ws.close_code)


def _wait_for_silence(ws: WebSocket, receiver: Any, wait: float) -> None:
    """Stay until nothing has come for that long: not every server answers all that came before a
    close once it has got that."""
    received = -1
    while received != ws.messages_received and not receiver.ready():
        received = ws.messages_received
        receiver.join(None if wait == float("inf") else wait)


def _raise_error_of(greenlet: Any) -> None:
    if isinstance(greenlet.value, Exception):
        raise greenlet.value


def _send_lines(ws: WebSocket) -> None:
    with contextlib.suppress(ConnectionClosed):  # the receiver tells
        for line in _lines_of_stdin():
            try:
                ws.send(line.decode())
            except UnicodeDecodeError:
                raise ValueError("the input is not UTF-8 text") from None


def _lines_of_stdin() -> Iterator[bytes]:
    """The lines; other greenlets run while none is there."""
    # By a thread, because a file can't be waited for otherwise, and below sys.stdin, whose lock
    # that thread would hold when the program ends.
    pool, fd = gevent.get_hub().threadpool, sys.stdin.fileno()
    rest: list[bytes] = []
    while data := pool.apply(os.read, (fd, 65536)):
        *lines, last = data.split(b"\n")
        for line in lines:
            yield b"".join([*rest, line]).removesuffix(b"\r")
            rest.clear()
        rest.append(last)
    if last := b"".join(rest):
        yield last


def _print_messages(ws: WebSocket) -> None:
    for message in ws:
        print(message if isinstance(message, str) else message.hex(), flush=True)


# -- at a terminal -------------------------------------------------------------------------------


class Terminal(Protocol):
    """Where a person types. `show` and `end` may be called in any thread."""

    def read(self) -> str:
        """The next line. Raises EOFError at the end, KeyboardInterrupt."""

    def show(self, text: str) -> None:
        """Print above the line being typed."""

    def end(self) -> None:
        """Let `read` raise EOFError."""


def _talk(url: str, arguments: dict[str, Any], history: Path | None) -> int:
    network = _Network(url, arguments)
    network.start()
    try:
        network.opened.wait()
        if network.error is not None:
            raise network.error
        with _terminal(history) as terminal:
            network.attach(terminal)
            with contextlib.suppress(EOFError):
                while True:
                    line = terminal.read()
                    if line:
                        network.do(line)
            network.do("/close")
            network.join()
    except KeyboardInterrupt:
        network.do("/close")
        network.join(2.0)
        return INTERRUPTED
    return exit_code(network.close_code)


class _Network(threading.Thread):
    """The thread that the WebSocket lives in; the main one belongs to the terminal."""

    def __init__(self, url: str, arguments: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._url, self._arguments = url, arguments
        self._websocket: WebSocket | None = None
        self._loop: Any = None
        self._terminal: Terminal | None = None
        self._attached = threading.Event()
        self.opened = threading.Event()
        self.error: Exception | None = None
        self.close_code: int | None = None

    def run(self) -> None:
        hub = gevent.get_hub()
        self._loop = hub.loop
        try:
            ws = self._websocket = connect(self._url, **self._arguments)
        except Exception as error:  # noqa: BLE001 - raised in the main thread
            self.error = error
            return
        finally:
            self.opened.set()
        try:
            self._attached.wait()
            self._receive(ws)
        finally:
            self._websocket = None
            hub.destroy()

    def _receive(self, ws: WebSocket) -> None:
        assert self._terminal is not None
        with ws:
            chosen = f", subprotocol {ws.subprotocol}" if ws.subprotocol else ""
            self._terminal.show(_dim(f"connected{chosen}; /help tells what to type"))
            for message in ws:
                self._terminal.show(_shown(message))
        self.close_code = ws.close_code
        self._terminal.show(_dim(_end_of(ws)))
        self._terminal.end()

    def attach(self, terminal: Terminal) -> None:
        """Begin to show messages."""
        self._terminal = terminal
        self._attached.set()

    def do(self, line: str) -> None:
        """Send a line, or carry out a command."""
        ws = self._websocket
        if ws is not None:
            with contextlib.suppress(ValueError):  # the loop has just been closed
                self._loop.run_callback_threadsafe(gevent.spawn_raw, self._do, ws, line)

    def _do(self, ws: WebSocket, line: str) -> None:
        try:
            answer = _carry_out(ws, line)
        except ConnectionClosed:
            return  # as it is shown anyhow
        except (ValueError, OSError) as error:
            answer = str(error)
        if answer and self._terminal is not None:
            self._terminal.show(_dim(answer))


def _carry_out(ws: WebSocket, line: str) -> str | None:
    """Do what a line says; return what there is to tell. Raises ValueError, OSError."""
    if not line.startswith("/") or line.startswith("//"):
        ws.send(line.removeprefix("/") if line.startswith("//") else line)
        return None
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    if command == "/ping":
        return f"pong after {ws.ping() * 1000:.3g} ms"
    if command == "/hex":
        ws.send(bytes.fromhex(rest.replace("0x", "")))
        return None
    if command == "/close":
        code, _, reason = rest.partition(" ")
        if code and not code.isdigit():
            raise ValueError("/close takes a code, a number, and then a text")
        ws.close(int(code or 1000), reason.strip())
        return None
    if command == "/help":
        return _HELP
    raise ValueError(f"there is no {command}; /help tells what there is")


def _shown(message: Message) -> str:
    if isinstance(message, str):
        return "\x1b[32m<\x1b[0m " + printable_text(message).replace("\n", "\n  ")
    size, shown = len(message), message[:_MOST_SHOWN].hex(" ")
    more = " …" if size > _MOST_SHOWN else ""
    return f"\x1b[32m<\x1b[0m \x1b[2m({size} B)\x1b[0m {shown}{more}"


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m"


def _end_of(ws: WebSocket) -> str:
    reason = printable_text(ws.close_reason)
    return f"closed with {ws.close_code}{f': {reason}' if reason else ''}"


# -- terminals -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _terminal(history: Path | None) -> Iterator[Terminal]:
    """The terminal, by prompt-toolkit (the extra `plainsocket[cli]`) or, without, by readline."""
    make = _readline_terminal
    if os.environ.get("TERM", "dumb") != "dumb":
        with contextlib.suppress(ImportError):
            import prompt_toolkit  # noqa: F401 - whether it is there

            make = _rich_terminal
    with make(history) as terminal:
        yield terminal


@contextlib.contextmanager
def _rich_terminal(history: Path | None) -> Iterator[Terminal]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.patch_stdout import patch_stdout

    commands = WordCompleter(["/ping", "/hex", "/close", "/help"], pattern=re.compile(r"^/\w*"))
    session: PromptSession[str] = PromptSession(
        PROMPT,
        history=FileHistory(str(history)) if history else InMemoryHistory(),
        auto_suggest=AutoSuggestFromHistory(),
        completer=commands,
        complete_while_typing=False,
    )
    is_over = threading.Event()

    def exit_app() -> None:
        if session.app.is_running and session.app.future and not session.app.future.done():
            session.app.exit(exception=EOFError)

    class Rich:
        def read(self) -> str:
            try:
                return session.prompt()
            except EOFError:
                is_over.set()
                raise

        def show(self, text: str) -> None:
            print(text, flush=True)

        def end(self) -> None:
            # It may just be between two prompts, with nothing to exit from: so not just once.
            while not is_over.wait(0.02):
                if session.app.is_running and (loop := session.app.loop) is not None:
                    with contextlib.suppress(RuntimeError):  # the loop has just been closed
                        loop.call_soon_threadsafe(exit_app)

    with patch_stdout(raw=True):
        try:
            yield Rich()
        finally:
            is_over.set()


@contextlib.contextmanager
def _readline_terminal(history: Path | None) -> Iterator[Terminal]:
    import readline

    if history is not None:
        with contextlib.suppress(OSError):
            readline.read_history_file(history)
    readline.set_history_length(_HISTORY_LENGTH)
    # Between the prompt and the typing, what is to be shown waits: it would wipe the prompt.
    state = "idle"
    waiting: list[str] = []
    lock = threading.Lock()
    is_over = threading.Event()
    main = threading.get_ident()

    def begin_reading() -> None:
        nonlocal state
        with lock:
            state = "reading"
            for text in waiting:
                write(text)
            waiting.clear()

    def write(text: str) -> None:
        typed = PROMPT + readline.get_line_buffer() if state == "reading" else ""
        sys.stdout.write(f"\r\x1b[K{text}\n{typed}")
        sys.stdout.flush()

    def interrupt(_number: int, _frame: Any) -> None:
        if state == "reading":
            raise EOFError

    class Plain:
        def read(self) -> str:
            nonlocal state
            with lock:
                state = "prompting"
            try:
                return input(PROMPT)
            except EOFError:
                is_over.set()
                raise
            finally:
                state = "idle"

        def show(self, text: str) -> None:
            with lock:
                if state == "prompting":
                    waiting.append(text)
                else:
                    write(text)

        def end(self) -> None:
            # A signal wakes input(), if it has come as far as to wait: so not just one of them.
            while not is_over.wait(0.02):
                if state == "reading":
                    signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    readline.set_pre_input_hook(begin_reading)
    try:
        yield Plain()
    finally:
        is_over.set()
        for text in waiting:
            write(text)
        signal.signal(signal.SIGUSR1, before)
        readline.set_pre_input_hook()
        if history is not None:
            with contextlib.suppress(OSError):
                readline.write_history_file(history)


def _history_file() -> Path | None:
    """Where the lines typed are kept, readable by their owner only; None where they can't be."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    path = Path(state) / "plainsocket/history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return None
    return path
