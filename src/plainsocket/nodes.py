"""Nodes: how the processes that serve the same pages know each other (docs/deploy.md).

A process that takes part is a *node*. On one machine the nodes meet in a directory, where each has
a Unix socket; machines are in an address book. What they tell each other is in `handover`.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

_MAC_SIZE: Final = 16
_RANDOM_SIZE: Final = 24
_LONGEST_PATH: Final = 103  # bytes; some systems take no more
_LEAST_SECRET: Final = 16  # bytes
_LOCK_TIME: Final = 2.0  # seconds
_BACKLOG: Final = 1024


class Gone(OSError):
    """A node is surely not there any more, with all that it had."""


class Name(NamedTuple):
    """A node's name. Nobody can tell from it where the node is."""

    machine: bytes
    process: bytes

    def __bytes__(self) -> bytes:
        return self.machine + self.process


MACHINE_SIZE: Final = 4
"""Bytes of a name that are its machine's."""

_PROCESS_SIZE: Final = 6
_NAME_SIZE: Final = MACHINE_SIZE + _PROCESS_SIZE
TOKEN_SIZE: Final = _NAME_SIZE + _RANDOM_SIZE + _MAC_SIZE
"""Bytes of a session's token."""


class Nodes:
    """Where the nodes of one site are found; given to each by the option `nodes`.

    `directory` is where those of this machine meet; it is made, for this user alone. All that is
    needed for one machine::

        plainsocket.serve(echo, port=8087, reuse_port=True, nodes=Nodes("/run/chat/nodes"))

    For several, `machines` is the address book: a host and port for each machine's name, the same
    everywhere; `machine` is the name of this one. `secret` (bytes, 16 or more) is known to all of
    them, and proves to each that the other is one. Raises ValueError for what can't be meant.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        machine: str | None = None,
        machines: Mapping[str, tuple[str, int]] | None = None,
        secret: bytes | None = None,
    ) -> None:
        self.directory = Path(directory).absolute()
        longest = os.fsencode(self.directory / ("0" * 2 * _PROCESS_SIZE + ".new"))
        if len(longest) > _LONGEST_PATH:
            raise ValueError(f"too long for a Unix socket: {os.fsdecode(longest)}")
        if (machine is None) != (machines is None):
            raise ValueError("machine and machines belong together")
        if machines is not None:
            if machine not in machines:
                raise ValueError(f"the address book has no machine {machine!r}")
            if secret is None:
                raise ValueError("several machines need a secret")
        if secret is not None and len(secret) < _LEAST_SECRET:
            raise ValueError(f"a secret has at least {_LEAST_SECRET} bytes")
        self.machine = machine
        self.machines = dict(machines or {})
        self.secret = secret
        self._others_beside = False

    @classmethod
    def of_siblings(cls) -> Nodes:
        """Those of the processes that this one's parent has started, as gunicorn's workers are."""
        folder = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or tempfile.gettempdir()
        place = Path(f"plainsocket-{os.geteuid()}", _parent())
        try:
            nodes = cls(Path(folder, place))
        except ValueError:  # its name is too long
            nodes = cls(Path("/tmp", place))
        nodes._others_beside = True
        return nodes

    def join(self) -> Node:
        """Become one of them. Raises OSError."""
        if self._others_beside:
            _make_private(self.directory.parent)
            for other in self.directory.parent.iterdir():
                if other != self.directory:
                    _sweep(other)
        return Node(self)


class Node:
    """This process, as one of the nodes, and what it knows of the others."""

    def __init__(self, nodes: Nodes) -> None:
        self._directory = nodes.directory
        self._lock = _enter(self._directory)
        self.secret = nodes.secret or _secret_in(self._directory)
        """Known to all nodes, and to nobody else."""
        self._key = self._derive(b"token")
        self._machines = {
            self._machine_id(name): address for name, address in nodes.machines.items()
        }
        machine = bytes(MACHINE_SIZE) if nodes.machine is None else self._machine_id(nodes.machine)
        self.name = Name(machine, secrets.token_bytes(_PROCESS_SIZE))
        self.address = self._machines.pop(machine, None)
        """Where this machine is reached by the others: host and port."""
        self._path = self._path_of(self.name.process)
        self.listener = _listen_unix(self._path)
        self._pid = os.getpid()
        atexit.register(self.leave)

    def leave(self) -> None:
        """Be one no more."""
        atexit.unregister(self.leave)
        if self._lock < 0 or self._pid != os.getpid():
            return
        with contextlib.suppress(OSError):
            self._path.unlink()
        self.listener.close()
        os.close(self._lock)
        self._lock = -1
        _sweep(self._directory)

    def _derive(self, purpose: bytes) -> bytes:
        return hmac.digest(self.secret, b"plainsocket " + purpose, "sha256")

    def _machine_id(self, name: str) -> bytes:
        return self._derive(b"machine " + name.encode())[:MACHINE_SIZE]

    # -- tokens ----------------------------------------------------------------------------------

    def new_token(self) -> bytes:
        """A session's token: the node's name, random bytes, and the proof that a node made it."""
        data = bytes(self.name) + secrets.token_bytes(_RANDOM_SIZE)
        return data + hmac.digest(self._key, data, "sha256")[:_MAC_SIZE]

    def owner_of(self, token: bytes) -> Name | None:
        """The node that made a token; None if none did."""
        if len(token) != TOKEN_SIZE:
            return None
        data, proof = token[:-_MAC_SIZE], token[-_MAC_SIZE:]
        if not hmac.compare_digest(hmac.digest(self._key, data, "sha256")[:_MAC_SIZE], proof):
            return None
        return Name(data[:MACHINE_SIZE], data[MACHINE_SIZE:_NAME_SIZE])

    # -- the others ------------------------------------------------------------------------------

    def siblings(self) -> list[Name]:
        """The other nodes of this machine; some may be gone."""
        names = []
        with contextlib.suppress(OSError):
            for entry in os.listdir(self._directory):
                with contextlib.suppress(ValueError):
                    process = bytes.fromhex(entry)
                    if len(process) == _PROCESS_SIZE and process != self.name.process:
                        names.append(Name(self.name.machine, process))
        return names

    def machines(self) -> list[bytes]:
        """The other machines."""
        return list(self._machines)

    def path_of(self, process: bytes) -> str:
        """The Unix socket of a node of this machine."""
        return str(self._path_of(process))

    def address_of(self, machine: bytes) -> tuple[str, int]:
        """Where another machine is reached. Raises Gone if the address book has no such one."""
        try:
            return self._machines[machine]
        except KeyError:
            raise Gone("no such machine") from None

    def forget(self, process: bytes) -> None:
        """A node of this machine does not listen any more: clear up behind it."""
        with contextlib.suppress(OSError):
            self._path_of(process).unlink()

    def _path_of(self, process: bytes) -> Path:
        return self._directory / process.hex()


def _parent() -> str:
    """Something that is this process's parent's alone, as the name of a directory."""
    pid = os.getppid()
    parts = [str(pid)]
    with contextlib.suppress(OSError):  # a number may be used again, by another one
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
        parts.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _make_private(directory: Path) -> None:
    """Make a directory for this user alone. Raises OSError where it is not, or can't be."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"not a directory for this user alone (mode 0700): {directory}")


def _enter(directory: Path) -> int:
    """Make the directory, and hold a lock that keeps it; returns the lock. Raises OSError.

    systemd-tmpfiles respects it too, and so leaves what is older than others in /tmp.
    """
    deadline = time.monotonic() + _LOCK_TIME
    while True:
        _make_private(directory)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(directory)):
                return lock
        except OSError:  # somebody clears it away, just now
            if time.monotonic() > deadline:
                os.close(lock)
                raise
        os.close(lock)
        time.sleep(0.001)


def _sweep(directory: Path) -> None:
    """Clear a directory away that no node is in."""
    with contextlib.suppress(OSError):
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for entry in directory.iterdir():
                if entry.is_socket() or entry.name.startswith(_SECRET):
                    entry.unlink()
            directory.rmdir()
        finally:
            os.close(lock)


_SECRET: Final = "secret"


def _secret_in(directory: Path) -> bytes:
    """What all nodes of the directory know; the first one makes it up."""
    path = directory / _SECRET
    if not path.exists():
        mine = directory / f"{_SECRET}.{secrets.token_hex(6)}"
        handle = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)
        mine.unlink()
    return path.read_bytes()


def _listen_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    new = path.with_name(path.name + ".new")
    try:
        listener.bind(str(new))
        listener.listen(_BACKLOG)
        new.rename(path)  # who finds it can connect
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
