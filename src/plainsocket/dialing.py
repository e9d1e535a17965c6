"""From a host's name, or a path, to a connected socket: every address is tried, none for long.

The sockets are gevent's: while one waits, other greenlets run, patched or not.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, zip_longest
from typing import Any, Final

from gevent import get_hub, socket
from gevent.queue import Empty, Queue
from gevent.ssl import SSLSocket

from .urls import host_and_port

_HEAD_START: Final = 0.25  # seconds that an address has before the next one (RFC 8305 section 5)
_WRITE: Final = 2  # libev's event bit
_PENDING: Final = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)


def dial(host: str, port: int) -> Any:
    """Return a socket connected to `host`, whose addresses are tried as in RFC 8305.

    Waits for as long as the caller lets it. Raises OSError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"no address for {host}: {error.strerror}") from error
    except UnicodeError as error:  # a label that is too long
        raise socket.gaierror(socket.EAI_NONAME, f"no address for {host}: {error}") from error
    return _race(_by_turns(found), host_and_port(host, port))


def dial_unix(path: str) -> Any:
    """The same for a Unix socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(None)
    with closed_on_error(sock):
        try:
            sock.connect(path)
        except OSError as error:
            raise OSError(
                error.errno, f"can't connect to {path!r}: {error.strerror or error}"
            ) from error
    return sock


def secure(sock: Any, context: ssl.SSLContext, host: str) -> Any:
    """Do the client's TLS handshake on `sock`; return the TLS socket.

    `host` is sent (RFC 6066 section 3), and the certificate checked against it, where `context`
    does such checks. Raises ssl.SSLError and other OSErrors.
    """
    name = host.partition("%")[0].rstrip(".")
    tls = SSLSocket(
        sock=sock, server_hostname=name, do_handshake_on_connect=False, _context=context
    )
    with closed_on_error(tls):
        tls.do_handshake()
    return tls


@functools.cache
def default_context() -> ssl.SSLContext:
    """The context of who brings none: made once, because reading the authorities takes long."""
    return ssl.create_default_context()


@contextlib.contextmanager
def closed_on_error(closeable: Any) -> Iterator[None]:
    """Close `closeable` if the block does not end well."""
    try:
        yield
    except BaseException:
        closeable.close()
        raise


def _by_turns(found: list[Any]) -> list[Any]:
    """Families alternate, beginning with the one that the resolver prefers."""
    first = [each for each in found if each[0] == found[0][0]]
    others = [each for each in found if each[0] != found[0][0]]
    pairs = chain.from_iterable(zip_longest(first, others))
    return [each for each in pairs if each is not None]


class _Attempt:
    """One address that is being connected to."""

    def __init__(self, address: Any, when_ready: Callable[[_Attempt], object]) -> None:
        """`when_ready` is called in the hub once `result` can tell."""
        family, kind, protocol, _, where = address
        self.socket = socket.socket(family, kind, protocol)
        self._watcher: Any = None
        with closed_on_error(self):
            self.socket.setblocking(False)
            error = self.socket.connect_ex(where)
            if error not in (0, *_PENDING):
                raise OSError(error, os.strerror(error))
            self._watcher = get_hub().loop.io(self.socket.fileno(), _WRITE)
            self._watcher.start(when_ready, self)

    def result(self) -> Any:
        """The connected socket. Raises OSError."""
        self._stop()
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.close()
            raise OSError(error, os.strerror(error))
        self.socket.settimeout(None)
        return self.socket

    def _stop(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()

    def close(self) -> None:
        self._stop()
        self.socket.close()


def _race(addresses: list[Any], where: str) -> Any:
    waiting = deque(addresses)
    running: set[_Attempt] = set()
    ready: Queue[_Attempt] = Queue()
    errors: list[OSError] = []
    try:
        while waiting or running:
            try:
                if waiting:
                    running.add(_Attempt(waiting.popleft(), ready.put_nowait))
                with contextlib.suppress(Empty):
                    attempt = ready.get(timeout=_HEAD_START if waiting else None)
                    running.discard(attempt)
                    return attempt.result()
            except OSError as error:
                errors.append(error)  # and the next one has its turn at once
        raise _combined(errors, where)
    finally:
        for attempt in running:
            attempt.close()


def _combined(errors: list[OSError], where: str) -> OSError:
    """The error to raise where no address was good: of the kind that the first one was."""
    texts = dict.fromkeys(error.strerror or str(error) for error in errors)
    return OSError(errors[0].errno, f"can't connect to {where}: {', '.join(texts)}")
