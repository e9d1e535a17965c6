"""The command line: `plainsocket`, or `python -m plainsocket`."""

from __future__ import annotations

import argparse
import errno
import logging
import platform
import sys
from collections.abc import Sequence

import gevent

from . import __version__, console, demo, load
from .frames import IS_COMPILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. Without a command, it is `demo`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help", "--version")):
        given.insert(0, "demo")
    options = _parser().parse_args(given)
    code: int = options.run(options)
    return code


def _demo(options: argparse.Namespace) -> int:
    try:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        demo.run(options.host, options.port)
    except OSError as error:
        print(f"plainsocket: {_explain(error, options.host, options.port)}", file=sys.stderr)
        return 1
    return 0


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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = commands.add_parser(
        "demo",
        help="serve a page to try a WebSocket with (the default)",
        description="Serve a page to try a WebSocket with, and the echo that it talks to.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--host", default="127.0.0.1", help="address to listen on")
    command.add_argument("--port", default=8087, type=_port, help="port; 0 takes a free one")
    command.set_defaults(run=_demo)
    console.add_to(commands)
    load.add_to(commands)
    return parser


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
