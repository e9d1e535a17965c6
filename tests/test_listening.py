"""listening.py: where a server may listen, and what it is told where it may not."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from plainsocket import listening
from plainsocket.listening import address_of, adopt, listen, systemd_listeners, url_host

PACKAGE_DIRECTORY = Path(listening.__file__).parent.parent

needs_ipv6 = pytest.mark.skipif(
    not socket.has_dualstack_ipv6(), reason="this machine has no dual-stack IPv6"
)


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, the current one, so that the paths of sockets are short enough."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def connect(listener: socket.socket, host: str | None = None) -> tuple[socket.socket, Any]:
    """A connection to `listener`: both ends."""
    address = address_of(listener)
    if isinstance(address, tuple):
        address = (host or address[0], address[1])
    ours = socket.socket(socket.AF_INET if host == "127.0.0.1" else listener.family)
    try:
        ours.settimeout(10)
        ours.connect(address)
        listener.settimeout(10)
        theirs, _ = listener.accept()
    except BaseException:
        ours.close()
        raise
    return ours, theirs


def carries_bytes(listener: socket.socket, host: str | None = None) -> bool:
    ours, theirs = connect(listener, host)
    with ours, theirs:
        ours.sendall(b"hello")
        return bool(theirs.recv(10) == b"hello")


def refusal(**arguments: Any) -> OSError:
    with pytest.raises(OSError, match=r".") as caught:
        listen(**arguments).close()
    assert caught.value.__cause__ is not None
    return caught.value


def socket_whose_bind_fails(code: int, *, family: int | None = None) -> type[socket.socket]:
    """For what this machine's kernel or root does not refuse."""

    class Socket(socket.socket):
        def bind(self, address: Any) -> None:
            if family in (None, self.family):
                raise OSError(code, os.strerror(code))
            super().bind(address)

    return Socket


# -- TCP -----------------------------------------------------------------------------------------


def test_listens() -> None:
    with listen(host="127.0.0.1", port=0) as listener:
        port = listener.getsockname()[1]
        assert port > 0
        assert address_of(listener) == ("127.0.0.1", port)
        assert carries_bytes(listener)


def test_socket_is_set_up() -> None:
    with listen(host="127.0.0.1", port=0) as listener:
        assert listener.gettimeout() == 0
        assert not listener.get_inheritable()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        ours, theirs = connect(listener)
        with ours, theirs:
            assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_port_can_be_used_again_at_once() -> None:
    with listen() as listener:
        port = listener.getsockname()[1]
        ours, theirs = connect(listener)
        theirs.close()  # first, so that this end stays in TIME_WAIT
        ours.close()
    with listen(port=port) as listener:
        assert carries_bytes(listener)


@needs_ipv6
def test_ipv6_address() -> None:
    with listen(host="::1", port=0) as listener:
        assert address_of(listener)[0] == "::1"
        assert carries_bytes(listener)


@needs_ipv6
def test_every_address_is_ipv4_and_ipv6() -> None:
    with listen(host="", port=0) as listener:
        assert carries_bytes(listener, "127.0.0.1")
        assert carries_bytes(listener, "::1")


@needs_ipv6
def test_every_ipv6_address_leaves_ipv4_free() -> None:
    with listen(host="::", port=0) as listener:
        assert carries_bytes(listener, "::1")
        with listen(host="0.0.0.0", port=listener.getsockname()[1]) as other:
            assert carries_bytes(other, "127.0.0.1")


def test_every_address_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen(host="", port=0) as listener:
        assert address_of(listener)[0] == "0.0.0.0"
        assert carries_bytes(listener, "127.0.0.1")


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_every_address_with_ipv6_switched_off(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
    failing = socket_whose_bind_fails(code, family=socket.AF_INET6)
    monkeypatch.setattr(socket, "socket", failing)
    with listen(host="", port=0) as listener:
        assert address_of(listener)[0] == "0.0.0.0"


def test_name() -> None:
    with listen(host="localhost", port=0) as listener:
        assert address_of(listener)[0] == "127.0.0.1"


IPV4: Any = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
IPV6: Any = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))


@pytest.mark.parametrize(
    ("found", "host"),
    [([IPV6, IPV4], "127.0.0.1"), pytest.param([IPV6], "::1", marks=needs_ipv6)],
)
def test_name_is_ipv4_if_it_has_that(
    found: list[Any], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)
    with listen(host="name.example", port=0) as listener:
        assert address_of(listener)[0] == host


def test_several_may_share_a_port() -> None:
    with listen(reuse_port=True) as one:
        port = one.getsockname()[1]
        with listen(port=port, reuse_port=True) as other:
            assert address_of(other) == address_of(one)
        assert refusal(port=port).errno == errno.EADDRINUSE


def test_port_in_use() -> None:
    with listen() as listener:
        port = listener.getsockname()[1]
        error = refusal(port=port)
        assert error.errno == errno.EADDRINUSE
        assert f"port {port} of 127.0.0.1 is in use" in str(error)
        assert carries_bytes(listener)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_address_of_another_machine(host: str) -> None:
    error = refusal(host=host)
    assert error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
    assert host in str(error)


def test_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_args: Any, **_options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)  # without asking a real DNS
    error = refusal(host="no-such-host.invalid")
    assert error.errno == errno.EADDRNOTAVAIL
    assert "'no-such-host.invalid' is neither" in str(error)


def test_name_that_no_dns_can_have() -> None:
    assert refusal(host="a" * 70).errno == errno.EADDRNOTAVAIL


def test_privileged_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", socket_whose_bind_fails(errno.EACCES))
    error = refusal(port=80)
    assert isinstance(error, PermissionError)
    assert "below 1024" in str(error)


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_that_is_none(port: int) -> None:
    with pytest.raises(ValueError, match=f"not {port}"):
        listen(port=port)


def test_failure_leaves_no_socket_open() -> None:
    with listen() as listener:
        port = listener.getsockname()[1]
        before = len(os.listdir("/proc/self/fd"))
        refusal(port=port)
        assert len(os.listdir("/proc/self/fd")) == before


# -- Unix sockets --------------------------------------------------------------------------------


def test_unix_socket(directory: Path) -> None:
    with listen(unix="socket") as listener:
        assert address_of(listener) == "socket"
        assert listener.gettimeout() == 0
        assert not listener.get_inheritable()
        assert carries_bytes(listener)
    with listen(unix=directory / "other") as listener:
        assert address_of(listener) == str(directory / "other")


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
def test_mode_is_what_was_asked_for_whatever_the_umask(directory: Path, mode: int) -> None:
    for umask in (0o000, 0o022, 0o777):
        previous = os.umask(umask)
        try:
            with listen(unix="socket", unix_mode=mode):
                assert stat.S_IMODE(os.stat("socket").st_mode) == mode
        finally:
            os.umask(previous)


def test_mode_is_otherwise_the_umask_s(directory: Path) -> None:
    previous = os.umask(0o027)
    try:
        with listen(unix="socket"):
            assert stat.S_IMODE(os.stat("socket").st_mode) == 0o750
    finally:
        os.umask(previous)


def test_nobody_can_connect_before_the_mode_is_right(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    chmod = os.chmod

    def watched(path: str, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            tried.append(client.connect_ex(path))
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", watched)
    with listen(unix="socket", unix_mode=0o600):
        assert tried == [errno.ECONNREFUSED]


def test_stale_socket_is_replaced(directory: Path) -> None:
    listen(unix="socket").close()
    assert os.path.exists("socket")
    with listen(unix="socket") as listener:
        assert carries_bytes(listener)


def test_socket_in_use_is_left_alone(directory: Path) -> None:
    with listen(unix="socket") as listener:
        error = refusal(unix="socket")
        assert error.errno == errno.EADDRINUSE
        assert "'socket' is in use" in str(error)
        listener.settimeout(10)
        listener.accept()[0].close()  # the look whether somebody listens
        assert carries_bytes(listener)


def test_socket_with_a_full_backlog_is_in_use(directory: Path) -> None:
    with listen(unix="socket", backlog=0), socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect("socket")
        assert refusal(unix="socket").errno == errno.EADDRINUSE


def test_socket_of_another_kind_is_in_use(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind("socket")
        assert refusal(unix="socket").errno == errno.EADDRINUSE
    assert os.path.exists("socket")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Path("thing").write_text("dear"),
        lambda: os.mkdir("thing"),
        lambda: os.mkfifo("thing"),
        lambda: os.symlink("stale", "thing"),
        lambda: os.symlink("nowhere", "thing"),
    ],
    ids=["file", "directory", "pipe", "link to a stale socket", "dangling link"],
)
def test_what_is_no_socket_is_never_removed(directory: Path, make: Callable[[], object]) -> None:
    listen(unix="stale").close()
    make()
    before = os.lstat("thing")
    error = refusal(unix="thing")
    assert error.errno == errno.EEXIST
    assert "no socket" in str(error)
    assert os.path.samestat(os.lstat("thing"), before)
    assert os.path.exists("stale")


@pytest.mark.parametrize("path", ["no/socket", "file/socket"])
def test_directory_that_is_not_there(directory: Path, path: str) -> None:
    (directory / "file").touch()
    error = refusal(unix=path)
    assert error.errno in {errno.ENOENT, errno.ENOTDIR}
    assert "create it" in str(error)


def test_directory_of_somebody_else(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", socket_whose_bind_fails(errno.EACCES))
    error = refusal(unix="socket")
    assert isinstance(error, PermissionError)
    assert "directory of your own" in str(error)


def test_path_that_is_too_long(directory: Path) -> None:
    error = refusal(unix="a" * 108)
    assert error.errno == errno.ENAMETOOLONG
    assert "107 bytes" in str(error)
    listen(unix="a" * 107).close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract names are Linux's")
def test_abstract_name(directory: Path) -> None:
    name = f"\0plainsocket-test-{os.getpid()}"
    with listen(unix=name) as listener:
        assert address_of(listener) == name
        assert carries_bytes(listener)
        assert refusal(unix=name).errno == errno.EADDRINUSE
    listen(unix=name).close()
    assert os.listdir(directory) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"unix": ""},
        {"unix": "socket", "reuse_port": True},
        {"unix": "\0name", "unix_mode": 0o600},
        {"unix_mode": 0o600},
    ],
)
def test_arguments_that_do_not_go_together(directory: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(?i)unix"):
        listen(**arguments)
    assert os.listdir(directory) == []


def test_of_many_that_start_at_once_one_wins(directory: Path) -> None:
    """Each finds the same stale file; none may take it from one that listens already."""
    for _ in range(20):
        listen(unix="socket").close()
        won: list[socket.socket] = []
        lost: list[int | None] = []
        together = threading.Barrier(8)

        def start(
            won: list[socket.socket] = won,
            lost: list[int | None] = lost,
            together: threading.Barrier = together,
        ) -> None:
            together.wait()
            try:
                won.append(listen(unix="socket"))
            except OSError as error:
                lost.append(error.errno)

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with closing(won[0]):
            assert (len(won), lost) == (1, [errno.EADDRINUSE] * 7)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect("socket")


def test_lock_of_somebody_else_is_not_waited_for_long(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_LOCK_TIMEOUT", 0.1)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with listen(unix=directory / "socket") as listener:
            assert carries_bytes(listener)
    finally:
        os.close(descriptor)


# -- sockets made by others ----------------------------------------------------------------------


def test_adopt() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert adopt(sock) is sock
        assert sock.gettimeout() == 0
        ours, theirs = connect(sock)
        with ours, theirs:
            assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_adopt_unix(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")
        sock.listen()
        assert carries_bytes(adopt(sock))


def test_adopt_refuses_what_does_not_listen() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ValueError, match="does not listen"):
            adopt(sock)
    with pytest.raises(ValueError, match="closed"):
        adopt(sock)
    with listen() as listener:
        ours, theirs = connect(listener)
        with ours, theirs, pytest.raises(ValueError, match="does not listen"):
            adopt(theirs)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_adopt_refuses_what_is_no_stream(kind: socket.SocketKind) -> None:
    with (
        socket.socket(socket.AF_UNIX, kind) as sock,
        pytest.raises(ValueError, match="SOCK_STREAM"),
    ):
        adopt(sock)


def test_adopt_refuses_tls() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with (
        listen() as listener,
        context.wrap_socket(listener, server_side=True) as sock,
        pytest.raises(TypeError, match="ssl_context"),
    ):
        adopt(sock)


@pytest.mark.parametrize("thing", [3, "127.0.0.1:80", ("", 80), None])
def test_adopt_refuses_what_is_no_socket(thing: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(thing).__name__}"):
        adopt(thing)


# -- systemd -------------------------------------------------------------------------------------

CHILD = """
import os, sys

passed, offset, calls = map(eval, sys.argv[1:])
for target, descriptor in enumerate(passed, 3):  # what systemd does
    os.dup2(descriptor, target, inheritable=True)
    os.close(descriptor)
os.environ["LISTEN_PID"] = str(os.getpid() + offset)

from plainsocket.listening import address_of, systemd_listeners

try:
    for name in calls:
        for sock in systemd_listeners(name):
            assert sock.gettimeout() == 0 and not sock.get_inheritable()
            print("got", name, sock.fileno(), address_of(sock), flush=True)
            sock.settimeout(20)
            accepted = sock.accept()[0]
            accepted.sendall(b"hello")
            accepted.close()
            sock.close()
        print("end of", name)
except ValueError as error:
    print("error", error)
print("left", [name for name in os.environ if name.startswith("LISTEN_")])
"""


def run_child(
    sockets: list[socket.socket],
    *,
    calls: Sequence[str | None] = (None,),
    names: str | None = None,
    count: str | None = None,
    offset: int = 0,
) -> subprocess.Popen[str]:
    """Start a program as systemd would, with these sockets as descriptors from 3 on."""
    environ = dict(os.environ, PYTHONPATH=str(PACKAGE_DIRECTORY))
    environ["LISTEN_FDS"] = str(len(sockets)) if count is None else count
    if names is not None:
        environ["LISTEN_FDNAMES"] = names

    # Far from where the child puts them, so that none overwrites another.
    passed = [fcntl.fcntl(sock, fcntl.F_DUPFD, 100) for sock in sockets]
    try:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, repr(passed), repr(offset), repr(calls)],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=passed,
        )
    finally:
        for descriptor in passed:
            os.close(descriptor)


def output_of(child: subprocess.Popen[str]) -> list[str]:
    with child:
        try:
            output, _ = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0
    return output.splitlines()


@pytest.fixture
def sockets(directory: Path) -> Iterator[list[socket.socket]]:
    """What systemd has opened: a TCP port and a Unix socket, both blocking."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(directory / "socket"))
        unix.listen()
        yield [tcp, unix]


def greeting(listener: socket.socket) -> bytes:
    with socket.socket(listener.family) as client:
        client.settimeout(20)
        client.connect(listener.getsockname())
        return client.recv(10)


def test_sockets_from_systemd(sockets: list[socket.socket]) -> None:
    child = run_child(sockets, calls=[None, None])
    assert [greeting(sock) for sock in sockets] == [b"hello", b"hello"]
    assert output_of(child) == [
        f"got None 3 {sockets[0].getsockname()}",
        f"got None 4 {sockets[1].getsockname()}",
        "end of None",
        "end of None",
        "left []",
    ]


def test_sockets_from_systemd_by_name(sockets: list[socket.socket]) -> None:
    child = run_child(sockets, names="web:policy", calls=["policy", "none", None])
    assert [greeting(sock) for sock in sockets[::-1]] == [b"hello", b"hello"]
    got = [line.partition(" (")[0].partition(" /")[0] for line in output_of(child)]
    assert got[:5] == ["got policy 4", "end of policy", "end of none", "got None 3", "end of None"]


@pytest.mark.parametrize(("offset", "count"), [(1, None), (0, "0")])
def test_sockets_that_are_not_for_this_process(
    sockets: list[socket.socket], offset: int, count: str | None
) -> None:
    lines = output_of(run_child(sockets, offset=offset, count=count))
    assert lines[:2] == ["end of None", "left []"]


@pytest.mark.parametrize("count", ["", "two", "-1", "2.0", "\u0662"])
def test_count_that_is_none(sockets: list[socket.socket], count: str) -> None:
    lines = output_of(run_child(sockets, count=count))
    assert lines[0] == f"error LISTEN_FDS must be a number, not {count!r}"
    assert lines[1] == "left []"


def test_descriptor_that_is_not_there(sockets: list[socket.socket]) -> None:
    lines = output_of(run_child(sockets, count="3", names="a:b:c"))
    assert re.match(r"error descriptor 5 from systemd \('c'\) is no listening socket", lines[0])


def test_descriptor_that_does_not_listen(sockets: list[socket.socket]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lines = output_of(run_child([sockets[0], theirs]))
    assert re.match(r"error descriptor 4 .* does not listen.*Accept=no", lines[0])


def test_no_systemd() -> None:
    assert systemd_listeners() == []


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("a.example", "a.example"),
        ("::1", "[::1]"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("fe80::1%eth0", "[fe80::1%25eth0]"),
        ("", "localhost"),
        ("0.0.0.0", "localhost"),
        ("::", "localhost"),
    ],
)
def test_url_host(host: str, expected: str) -> None:
    assert url_host(host) == expected
