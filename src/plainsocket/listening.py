"""Listening sockets: from an address, a path, systemd, or whoever made one already.

All are the standard library's and non-blocking. Programs that this one starts do not get them,
unless who made the socket wanted that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from typing import Any, Final

_SYSTEMD_FIRST: Final = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_LOCK_TIMEOUT: Final = 2.0  # seconds


def listen(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    unix: str | os.PathLike[str] | None = None,
    unix_mode: int | None = None,
    reuse_port: bool = False,
    backlog: int = 4096,
) -> socket.socket:
    """Return a new listening socket.

    `host` is an address of this machine, a name of one (IPv4 if it has both), or "" for every
    address, IPv4 and IPv6; "::" is every IPv6 address only. `port` 0 takes a free one: `address_of`
    tells which. With `reuse_port` several processes may listen on one port, and the kernel spreads
    the connections over them.

    `unix` is the path of a Unix socket instead of host and port; on Linux a name that begins with
    "\\0" is abstract, without a file. A socket file that nobody listens on is replaced.
    `unix_mode`, such as 0o660, says who may connect; None leaves that to the umask. The file stays
    when the socket is closed.

    `backlog`: how many connections may wait to be accepted; the kernel lowers it to its limit.

    Raises OSError, with the usual errno and a text that says what to do, where the address can't
    be had, and ValueError for values that mean nothing.
    """
    if unix is not None:
        if reuse_port:
            raise ValueError("reuse_port is for ports: a Unix socket has one listener")
        return _listen_unix(os.fspath(unix), unix_mode, backlog)
    if unix_mode is not None:
        raise ValueError("unix_mode is the mode of a Unix socket: give its path by unix=")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be a number from 0 to 65535, not {port!r}")
    if host == "":
        return _listen_everywhere(port, reuse_port, backlog)
    family, address = _resolve(host, port)
    return _listen_tcp(family, address, reuse_port, backlog)


# -- TCP -----------------------------------------------------------------------------------------


def _listen_everywhere(port: int, reuse_port: bool, backlog: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return _listen_tcp(
                socket.AF_INET6, ("::", port), reuse_port, backlog, is_dual_stack=True
            )
        except OSError as error:
            # A kernel that knows IPv6 but has it switched off.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _listen_tcp(socket.AF_INET, ("0.0.0.0", port), reuse_port, backlog)


def _listen_tcp(
    family: int, address: Any, reuse_port: bool, backlog: int, *, is_dual_stack: bool = False
) -> socket.socket:
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        with _closed_on_error(listener):
            # Connections of the server before this one may linger for a minute.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:  # either way: the default is the system's choice
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual_stack)
            listener.bind(address)
            listener.listen(backlog)
            return adopt(listener)
    except OSError as error:
        raise _explained(error, *address[:2]) from error


def _resolve(host: str, port: int) -> tuple[int, Any]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(
            errno.EADDRNOTAVAIL,
            f"{host!r} is neither an IP address nor a name that resolves: choose an address of "
            'this machine, or "" for all of them',
        ) from error
    found.sort(key=lambda each: each[0] != socket.AF_INET)  # stable
    return found[0][0], found[0][4]


def _explained(error: OSError, host: str, port: int) -> OSError:
    """The same error, with a text that says what to do."""
    where = f"port {port} of {host}"
    if error.errno == errno.EADDRINUSE:
        text = f"{where} is in use: stop the program that listens there, or choose another port"
    elif error.errno == errno.EACCES:
        text = (
            f"{where} may not be used: below 1024 a port takes a privilege; choose a higher one, "
            "or let systemd open it"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        text = f'{host} is no address of this machine: choose one that is, or "" for all of them'
    else:
        text = f"can't listen on {where}: {error.strerror or error}"
    return OSError(error.errno, text)


# -- Unix sockets --------------------------------------------------------------------------------


def _listen_unix(path: str, mode: int | None, backlog: int) -> socket.socket:
    if not path:
        raise ValueError("unix must be a path, not empty")
    is_abstract = path.startswith("\0")
    if is_abstract and mode is not None:
        raise ValueError("an abstract Unix socket has no file, and so no unix_mode")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closed_on_error(listener):
        try:
            if is_abstract:
                listener.bind(path)
                listener.listen(backlog)
            else:
                with _directory_locked(path):
                    _remove_stale(path)
                    listener.bind(path)
                    if mode is not None:
                        os.chmod(path, mode)
                    # Not before the mode is right: until here nobody can connect.
                    listener.listen(backlog)
        except OSError as error:
            raise _explained_unix(error, path) from error
        return adopt(listener)


def _remove_stale(path: str) -> None:
    """Remove the file of a socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # with a full backlog it would wait
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    # In every other case somebody listens, or may do: bind says so.


@contextlib.contextmanager
def _directory_locked(path: str) -> Iterator[None]:
    """Keep out other servers that start now: from its bind to its listen a new socket looks stale.

    Without the lock where it can't be had: it is against an unlikely coincidence only.
    """
    directory = None
    with contextlib.suppress(OSError):
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while directory is not None and time.monotonic() < deadline:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        if directory is not None:
            os.close(directory)


def _explained_unix(error: OSError, path: str) -> OSError:
    """The same error, with a text that says what to do."""
    code = error.errno
    if code == errno.EADDRINUSE:
        text = f"{path!r} is in use: stop the program that listens there, or choose another path"
    elif code == errno.EEXIST:
        text = f"{path!r} is there and no socket: remove it yourself, or choose another path"
    elif code in (errno.ENOENT, errno.ENOTDIR):
        text = f"{path!r} is in a directory that does not exist: create it, or choose another path"
    elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
        text = f"{path!r} can't be created: {os.strerror(code)}: choose a directory of your own"
    elif code is None:  # how Python says it
        code = errno.ENAMETOOLONG
        text = f"{path!r} is too long for a Unix socket: the limit is 107 bytes"
    else:
        text = f"can't listen on {path!r}: {error.strerror}"
    return OSError(code, text)


# -- sockets made by others ----------------------------------------------------------------------


def adopt(sock: socket.socket) -> socket.socket:
    """Check that `sock` listens, give it the settings of `listen`'s, and return it.

    Raises TypeError for what is no plain socket and ValueError for one that does not listen.
    """
    if hasattr(sock, "do_handshake"):
        raise TypeError("hand in the listening socket without TLS, and the ssl_context by itself")
    if not hasattr(sock, "getsockopt"):
        raise TypeError(f"a listening socket is needed, not {type(sock).__name__}")
    if sock.fileno() < 0:
        raise ValueError("the socket is closed")
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        raise ValueError("the socket is no stream socket: create it with SOCK_STREAM")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError("the socket does not listen: call its listen() first")
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # Accepted sockets inherit it: pywsgi writes head and body of a response one by one.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def systemd_listeners(name: str | None = None) -> list[socket.socket]:
    """Return the listening sockets that systemd has opened for this process, in its order.

    See sd_listen_fds(3) and systemd.socket(5). `name` takes only those of that FileDescriptorName=
    (by default the socket unit's name). Each is returned once: a second call returns what the ones
    before left. The variables LISTEN_… are removed, so that programs which this one starts do not
    take its sockets for theirs. Empty if systemd has passed none, or to another process.

    Raises ValueError for variables that mean nothing and for a descriptor that does not listen.
    """
    pid, count, names = (
        os.environ.pop(variable, "") for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid == str(os.getpid()):
        _inherited.extend(_take_from_systemd(count, names.split(":")))
    taken = [entry for entry in _inherited if name in (None, entry[0])]
    _inherited[:] = [entry for entry in _inherited if entry not in taken]
    return [sock for _, sock in taken]


_inherited: Final[list[tuple[str, socket.socket]]] = []  # by name, not yet asked for


def _take_from_systemd(count: str, names: list[str]) -> list[tuple[str, socket.socket]]:
    if not (count.isascii() and count.isdigit()):
        raise ValueError(f"LISTEN_FDS must be a number, not {count!r}")
    taken: list[tuple[str, socket.socket]] = []
    for index in range(int(count)):
        descriptor = _SYSTEMD_FIRST + index
        name = names[index] if index < len(names) else ""
        try:
            os.set_inheritable(descriptor, False)
            sock = socket.socket(fileno=descriptor)
            with _closed_on_error(sock):
                taken.append((name, adopt(sock)))
        except (OSError, ValueError) as error:
            for _, sock in taken:
                sock.close()
            raise ValueError(
                f"descriptor {descriptor} from systemd ({name!r}) is no listening socket: {error}; "
                "its unit needs ListenStream= and Accept=no"
            ) from error
    return taken


# -- addresses -----------------------------------------------------------------------------------


def address_of(sock: socket.socket) -> tuple[str, int] | str:
    """Return the host and port that `sock` listens on, or the path of a Unix socket."""
    address = sock.getsockname()
    if isinstance(address, tuple):
        return address[0], address[1]
    return os.fsdecode(address)  # an abstract name comes as bytes


def url_host(host: str) -> str:
    """Return `host` as it stands in a URL on this machine.

    IPv6 addresses are put in brackets (RFC 3986 section 3.2.2). The address that stands for all
    addresses becomes "localhost", because one can't connect to it everywhere.
    """
    if host in ("", "0.0.0.0", "::"):
        return "localhost"
    if ":" in host:
        return f"[{host.replace('%', '%25')}]"  # a zone: RFC 6874
    return host


@contextlib.contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise
