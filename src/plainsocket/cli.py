"""The command line: `plainsocket`, or `python -m plainsocket`."""

from __future__ import annotations

import argparse
import errno
import logging
import platform
import sys
from collections.abc import Sequence

import gevent

from . import __version__, demo, run
from .frames import IS_COMPILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. Without a command, it is `demo`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help", "--version")):
        given.insert(0, "demo")
    options = _parser().parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    return _run(options, given) if options.command == "run" else _demo(options)


def _demo(options: argparse.Namespace) -> int:
    try:
        demo.run(options.host, options.port)
    except OSError as error:
        return _fail(_explain(error, options.host, options.port))
    return 0


def _run(options: argparse.Namespace, given: list[str]) -> int:
    try:
        return run.run(
            options.target,
            host=options.host,
            port=options.port,
            reload=options.reload,
            patch=options.patch,
            command=[sys.executable, "-m", "plainsocket", *given],
        )
    except run.TargetError as error:
        return _fail(str(error))
    except run.ListenError as error:
        return _fail(_explain(error.reason, options.host, options.port))


def _fail(message: str) -> int:
    print(f"plainsocket: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plainsocket", description="The plain WebSocket, on both ends."
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"plainsocket {__version__} ({'compiled' if IS_COMPILED else 'pure Python'}; "
        f"Python {platform.python_version()}, gevent {gevent.__version__})",
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    command = commands.add_parser(
        "demo",
        help="serve a page to try a WebSocket with (the default)",
        description="Serve a page to try a WebSocket with, and the echo that it talks to.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_address(command)
    command = commands.add_parser(
        "run",
        help="serve an application, and start it again when it changes",
        description="Serve a WSGI application, or a dict of paths and their WebSocket handlers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument(
        "target",
        metavar="MODULE[:NAME]",
        help="where it is; NAME is application or app if not said; NAME() calls a factory",
    )
    _add_address(command)
    command.add_argument(
        "--reload", action="store_true", help="start it again whenever a file of it changes"
    )
    command.add_argument(
        "--no-patch",
        action="store_false",
        dest="patch",
        help="leave the standard library without gevent.monkey.patch_all()",
    )
    return parser


def _add_address(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", default="127.0.0.1", help="address to listen on")
    command.add_argument("--port", default=8087, type=_port, help="port; 0 takes a free one")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use already; choose another one with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no right to listen on port {port}; choose one above 1023 with --port"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"
