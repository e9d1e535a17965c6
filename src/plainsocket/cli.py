"""The command line: `plainsocket`, or `python -m plainsocket`."""

from __future__ import annotations

import argparse
import errno
import logging
import platform
import signal
import sys
from collections.abc import Sequence

import gevent

from . import __version__, console, demo, load, run
from .frames import IS_COMPILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. Without a command, it is `demo`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help", "--version")):
        given.insert(0, "demo")
    options = _parser().parse_args(given)
    options.given = given
    code: int = options.run(options)
    return code


def _demo(options: argparse.Namespace) -> int:
    _log_to_terminal()
    try:
        demo.run(options.host, options.port)
    except OSError as error:
        return _fail(_explain(error, options))
    return 0


def _run(options: argparse.Namespace) -> int:
    _log_to_terminal()
    try:
        return run.run(
            options.target,
            host=options.host,
            port=options.port,
            reload=options.reload,
            patch=options.patch,
            command=[sys.executable, "-m", "plainsocket", *options.given],
        )
    except run.TargetError as error:
        return _fail(str(error))
    except run.ListenError as error:
        return _fail(_explain(error.reason, options))


def _policy(options: argparse.Namespace) -> int:
    from .flashpolicy import FlashPolicyServer  # only where it is used

    _log_to_terminal()
    server = FlashPolicyServer((options.host, options.port), policy=options.allow)
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, server.stop)
    try:
        server.start()
    except OSError as error:
        return _fail(error.strerror or str(error))
    print(f"plainsocket policy: port {server.server_port} (Ctrl-C stops)", flush=True)
    server.serve_forever()
    return 0


def _log_to_terminal() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = commands.add_parser(
        "demo",
        help="serve a page to try a WebSocket with (the default)",
        description="Serve a page to try a WebSocket with, and the echo that it talks to.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_address(command)
    command.set_defaults(run=_demo)
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
    command.set_defaults(run=_run)
    console.add_to(commands)
    load.add_to(commands)
    command = commands.add_parser(
        "policy",
        help="tell Flash programs which ports they may connect to",
        description="Answer Flash Player, which asks who may connect to which ports.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--host", default="", help="address to listen on; empty: all")
    command.add_argument("--port", default=843, type=_port, help="port; 0 takes a free one")
    command.add_argument(
        "--allow",
        metavar="DOMAIN:PORTS",
        action="append",
        required=True,
        type=_rule,
        default=argparse.SUPPRESS,
        help="who may connect to what: example.com:8087,9000 or *.example.com:8000-8010; "
        "several times if need be",
    )
    command.set_defaults(run=_policy)
    return parser


def _add_address(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", default="127.0.0.1", help="address to listen on")
    command.add_argument("--port", default=8087, type=_port, help="port; 0 takes a free one")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


def _rule(text: str) -> str:
    from .flashpolicy import FlashPolicy  # only where it is used

    try:
        FlashPolicy(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _explain(error: OSError, options: argparse.Namespace) -> str:
    host, port = options.host, options.port
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use already; choose another one with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no right to listen on port {port}; choose one above 1023 with --port"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"
