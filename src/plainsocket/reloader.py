"""Start a server again whenever a file of its program changes: for development.

Two processes. One holds the listening socket, so that a browser that comes meanwhile waits for a
moment and is not refused. The other one serves; where a file has changed, it ends with `RELOAD`
and the first starts it anew.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, Final

import gevent

from .server import Server

RELOAD: Final = 3
"""The exit code that asks to be started again."""

logger: Final = logging.getLogger("plainsocket")

_VARIABLE: Final = "PLAINSOCKET_RELOADER"  # in the environment of the process that serves
_INTERVAL: Final = 0.5  # seconds between two looks at the files
_STOP: Final = 1.0  # seconds that handlers have to end before a new start


# -- the process that holds the socket -----------------------------------------------------------


def supervise(listener: socket.socket, command: Sequence[str]) -> int:
    """Run `command`, and again whenever it asks for that; return its exit code.

    It finds the socket by `handed_listener`.
    """
    environment = {**os.environ, _VARIABLE: str(listener.fileno())}
    interrupted_at = [0.0]
    children: list[subprocess.Popen[bytes]] = []

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        interrupted_at[0] = time.monotonic()

    def terminate(_number: int, _frame: FrameType | None) -> None:
        children[-1].terminate()

    signal.signal(signal.SIGINT, interrupt)
    while True:
        child = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()])
        children[:] = [child]
        signal.signal(signal.SIGTERM, terminate)
        code = _wait(child, interrupted_at)
        if code != RELOAD:
            return code if code >= 0 else 128 - code


def _wait(child: subprocess.Popen[bytes], interrupted_at: list[float]) -> int:
    while True:
        try:
            return child.wait(0.2)
        except subprocess.TimeoutExpired:
            # A terminal's Ctrl-C goes to both; another one's SIGINT may have come to this only.
            if interrupted_at[0] and time.monotonic() > interrupted_at[0] + _STOP:
                interrupted_at[0] = 0.0
                child.send_signal(signal.SIGINT)


# -- the process that serves ---------------------------------------------------------------------


def handed_listener() -> socket.socket | None:
    """The socket that `supervise` has handed to this process, or None."""
    descriptor = os.environ.pop(_VARIABLE, None)  # not for what this process starts
    return None if descriptor is None else socket.socket(fileno=int(descriptor))


def serve_until_changed(make_server: Callable[[], Server]) -> int:
    """Serve until a signal comes or a file changes; return the exit code.

    Where `make_server` raises, it prints that and waits for a change.
    """
    files = _Files()
    try:
        server = make_server()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the program
        traceback.print_exception(error)
        files.look(_files_of(error))
        print("Waiting for a change of the program.", file=sys.stderr, flush=True)
        return RELOAD if files.wait_for_change() else 1
    files.look()
    codes = [0]

    def watch() -> None:
        if path := files.wait_for_change():
            logger.info("%s has changed: starting again", path)
            codes.append(RELOAD)
        server.stop(_STOP)

    watching = gevent.spawn(watch)
    server.serve_forever()
    if codes[-1] == RELOAD:
        watching.join()  # it is still stopping the server
    return codes[-1]


class _Files:
    """The files of the program's modules, and when each was last changed."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._parent = os.getppid()

    def look(self, more: Sequence[str] = ()) -> str | None:
        """Return a file that has changed since the look before, if there is one."""
        changed = None
        for path in [*_files_of_modules(), *more, *self._times]:
            try:
                modified = os.stat(path).st_mtime_ns
            except OSError:  # in the middle of being replaced, or inside an archive
                continue
            if self._times.setdefault(path, modified) != modified:
                changed = path
        return changed

    def wait_for_change(self) -> str | None:
        """Return the file; None if the process that would start this one again is gone."""
        while os.getppid() == self._parent:
            gevent.sleep(_INTERVAL)
            if path := self.look():
                return path
        return None


def _files_of_modules() -> Iterator[str]:
    for module in list(sys.modules.values()):
        path = getattr(module, "__dict__", {}).get("__file__")  # or a lazy module would load
        if isinstance(path, str):
            yield path


def _files_of(error: BaseException) -> list[str]:
    """The files that an error has come through: the modules of some were not even loaded."""
    paths = [error.filename] if isinstance(error, SyntaxError) and error.filename else []
    step: TracebackType | Any = error.__traceback__
    while step is not None:
        paths.append(step.tb_frame.f_code.co_filename)
        step = step.tb_next
    return paths
