"""What `plainsocket connect` and `plainsocket bench` have in common: how to reach a server."""

from __future__ import annotations

import argparse
import contextlib
import signal
import ssl
from collections.abc import Iterator
from typing import Any, Final

import gevent

from .errors import HandshakeError, HandshakeRefused
from .frames import CloseCode

CLOSED_NORMALLY: Final = 0
NOT_CONNECTED: Final = 1  # the network, a name, TLS, a proxy, a deadline
WRONG_USAGE: Final = 2  # argparse's own
REFUSED: Final = 3  # by an HTTP status, or by an answer that is no WebSocket's
FAILED: Final = 4  # closed with another code than 1000 or 1001, or cut
INTERRUPTED: Final = 130  # by Ctrl-C, as shells have it

EXIT_CODES: Final = """exit codes:
  0    the connection was closed normally (1000, 1001, or without a code)
  1    there was no connection: the network, the name, TLS, a proxy, a timeout
  2    wrong usage
  3    the server refused, or does not speak WebSocket
  4    the connection was closed with another code, or was cut (1006)
  130  interrupted (Ctrl-C)
"""


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("url", help="ws://, wss://, ws+unix:/socket:/path; ws:// may be left out")
    command.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        type=_header,
        help="send a header; may be repeated",
    )
    command.add_argument(
        "-s",
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="offer a subprotocol; may be repeated, the preferred one first",
    )
    command.add_argument("-o", "--origin", help="send an Origin, as a page's browser would")
    command.add_argument("-k", "--insecure", action="store_true", help="take any certificate (wss)")
    command.add_argument("--ca", metavar="FILE", help="trust the authorities in FILE only (wss)")
    command.add_argument(
        "-x", "--proxy", metavar="URL", help="go through this proxy, not the environment's"
    )
    command.add_argument("--no-proxy", action="store_true", help="go through no proxy")
    command.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="seconds to connect in (10)"
    )


def for_connect(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the arguments of `connect`. Raises ValueError and OSError (of --ca)."""
    url = options.url
    if "://" not in url and not url.lower().startswith(("ws+unix:", "wss+unix:")):
        url = f"ws://{url}"
    context = None
    if options.insecure or options.ca:
        context = ssl.create_default_context(cafile=options.ca)
        if options.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    if not url.lower().startswith(("wss", "https")):
        context = None
    return url, {
        "headers": options.header,
        "subprotocols": options.subprotocol,
        "origin": options.origin,
        "ssl_context": context,
        "proxy": None if options.no_proxy else options.proxy or True,
        "open_timeout": options.timeout,
    }


def explain(error: Exception) -> tuple[int, str]:
    """The exit code and the text for what `connect` has raised."""
    if isinstance(error, (ValueError, TypeError, ImportError)) and not isinstance(error, OSError):
        return WRONG_USAGE, str(error)
    if isinstance(error, HandshakeRefused):
        return REFUSED, printable_text(": ".join([str(error), *_details(error)]))
    if isinstance(error, HandshakeError):
        return REFUSED, printable_text(str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return NOT_CONNECTED, f"bad certificate: {error.verify_message}"
    return NOT_CONNECTED, str(error.args[-1] if error.args else error)


def _details(refused: HandshakeRefused) -> list[str]:
    """Where a redirect leads to, and the body, where that is for a person to read."""
    fields = {name.lower(): value for name, value in refused.headers}
    details = [f"to {fields['location']}"] if "location" in fields else []
    if fields.get("content-type", "text/plain").lower().startswith("text/plain"):
        details.append(refused.body.decode(errors="replace")[:1000].strip())
    return [detail for detail in details if detail]


@contextlib.contextmanager
def interrupted_by_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block's greenlet; else the hub would print it first."""
    me, loop = gevent.getcurrent(), gevent.get_hub().loop
    watcher = gevent.signal_handler(
        signal.SIGINT, lambda: loop.run_callback(me.throw, KeyboardInterrupt())
    )
    try:
        yield
    finally:
        watcher.cancel()


def exit_code(close_code: int | None) -> int:
    """The exit code for a close code."""
    normal = (
        CloseCode.NORMAL_CLOSURE,
        CloseCode.GOING_AWAY,
        CloseCode.NO_STATUS_RECEIVED,
    )
    return CLOSED_NORMALLY if close_code in normal else FAILED


def printable_text(text: str) -> str:
    """What a server sent, without what would make a terminal do something."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("a header is 'NAME: VALUE'")
    return name.strip(), value.strip()
