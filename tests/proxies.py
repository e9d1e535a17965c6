"""nginx, HAProxy, Caddy, Apache and Squid, each run by its file in examples/deploy.

The file is run as it stands, but for its ports and the server's address (see `filled`), what a
test makes shorter, and limits that ask for more open files than a machine of tests may have. What
else a test's folder needs is given on the command line.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

import needs
from browsers import Browser, chromium
from ports import free_ports
from processes import ROOT, Program, running
from serving import wait_until

AUTHORITY = trustme.CA()
EXAMPLES = ROOT / "examples/deploy"

PORT, TLS_PORT, TCP_PORT = "8080", "8443", "8081"  # in the examples
SERVERS = ("127.0.0.1:8087", "127.0.0.1:8088")


@dataclass
class Proxy:
    """A running one."""

    name: str
    program: Program
    port: int
    tls_port: int | None = None
    is_http: bool = True  # reads the requests, instead of passing on bytes


def filled(example: str, ports: Mapping[str, int], server: str, changes: Mapping[str, str]) -> str:
    """An example's text with other ports, the server's address, and `changes` of what it says."""
    text = (EXAMPLES / example).read_text()
    for old, new in changes.items():
        assert old in text, f"{example}: {old}"
        text = text.replace(old, new)
    places = dict.fromkeys(SERVERS, server) | {old: str(new) for old, new in ports.items()}
    return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], text)


def write_certificates(folder: Path) -> None:
    certificate = AUTHORITY.issue_cert("localhost", "chat.example")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))


def wait_for_port(program: Program, port: int) -> None:
    def listens() -> bool:
        assert program.is_running, program.output
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens)


@contextmanager
def running_example(
    folder: Path,
    example: str,
    command: Sequence[str],
    server: str,
    changes: Mapping[str, str],
    *,
    without: str = "",
    waits_for: str = PORT,
) -> Iterator[tuple[Program, dict[str, int]]]:
    """Run `command` in `folder`, in which the file and the certificates are.

    `without` is a part to leave out. If somebody else has just taken one of the ports, others are
    tried.
    """
    write_certificates(folder)
    with contextlib.ExitStack() as stack:
        for attempt in range(5):
            ports = dict(zip((PORT, TLS_PORT, TCP_PORT), free_ports(3), strict=True))
            text = re.sub(without, "", filled(example, ports, server, changes))
            (folder / example).write_text(text)
            program = stack.enter_context(running(*command, cwd=folder))
            try:
                wait_for_port(program, ports[waits_for])
            except AssertionError:
                if attempt == 4 or "ddress already in use" not in program.output:
                    raise
                stack.close()
            else:
                break
        yield program, ports


@contextmanager
def nginx(folder: Path, server: str, **changes: str) -> Iterator[Proxy]:
    path = needs.program("nginx", "nginx")
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    here = "".join(f"{name}_temp_path {name};" for name in names) + "access_log off;"
    changes = {
        "worker_connections 20000;": "worker_connections 200;",
        "worker_rlimit_nofile 20100;": "",
        "http {": f"http {{ {here}",
        **changes,
    }
    own = "daemon off; pid nginx.pid; error_log stderr;"
    if os.geteuid() == 0:
        own += "user root;"  # or it could not reach a Unix socket in the test's folder
    command = [path, "-p", str(folder), "-e", "stderr", "-c", "nginx.conf", "-g", own]
    with running_example(folder, "nginx.conf", command, server, changes) as (program, ports):
        yield Proxy("nginx", program, ports[PORT], ports[TLS_PORT])


@contextmanager
def haproxy(folder: Path, server: str, *, tcp: bool = False, **changes: str) -> Iterator[Proxy]:
    path = needs.program("haproxy", "haproxy")
    # Each half of the file by itself: the checks of the other one would be in the way.
    with running_example(
        folder,
        "haproxy.cfg",
        [path, "-db", "-f", "haproxy.cfg"],
        server,
        {"maxconn 20000": "maxconn 200", **changes},
        without=r"(?ms)^frontend http$.*?(?=^# TCP)" if tcp else r"(?ms)^listen tcp$.*",
        waits_for=TCP_PORT if tcp else PORT,
    ) as (program, ports):
        if tcp:
            yield Proxy("HAProxy, PROXY protocol", program, ports[TCP_PORT], is_http=False)
        else:
            yield Proxy("HAProxy", program, ports[PORT], ports[TLS_PORT])


def haproxy_tcp(folder: Path, server: str, **changes: str) -> AbstractContextManager[Proxy]:
    return haproxy(folder, server, tcp=True, **changes)


@contextmanager
def caddy(folder: Path, server: str, **changes: str) -> Iterator[Proxy]:
    path = needs.program("caddy", "caddy")
    # One that others talk to has port 2019 for its administration, of which there is but one.
    changes = {"(plainsocket) {": "{\n\tadmin off\n}\n\n(plainsocket) {", **changes}
    command = [shutil.which("env") or "env", f"HOME={folder}", f"XDG_DATA_HOME={folder}"]
    command += [f"XDG_CONFIG_HOME={folder}", path, "run", "--config", "Caddyfile"]
    with running_example(folder, "Caddyfile", command, server, changes) as (program, ports):
        yield Proxy("Caddy", program, ports[PORT], ports[TLS_PORT])


@contextmanager
def apache(folder: Path, server: str, **changes: str) -> Iterator[Proxy]:
    path = shutil.which("httpd") or needs.program("apache2", "apache2-bin")
    changes = {
        "ServerLimit       16": "ServerLimit       1",
        "MaxRequestWorkers 1024": "MaxRequestWorkers 64",
        **changes,
    }
    command = [path, "-d", str(folder), "-f", "httpd.conf", "-DFOREGROUND"]
    for own in (f"DefaultRuntimeDir {folder}", "PidFile httpd.pid", "ErrorLog /dev/stderr"):
        command += ["-C", own]
    with running_example(folder, "httpd.conf", command, server, changes) as (program, ports):
        yield Proxy("Apache", program, ports[PORT], ports[TLS_PORT])


@contextmanager
def squid(folder: Path) -> Iterator[Proxy]:
    """The forward proxy."""
    path = needs.program("squid", "squid")
    changes = {
        "cache deny all": "cache deny all\npid_filename none\naccess_log none\n"
        "cache_log stdio:/dev/stderr\ncoredump_dir none\npinger_enable off\n"
        "shutdown_lifetime 0 seconds\n",
    }
    name = f"t{uuid.uuid4().hex[:24]}"  # of what it has in /dev/shm
    command = [path, "-N", "-d", "1", "-n", name, "-f", str(folder / "squid.conf")]
    with running_example(folder, "squid.conf", command, "", changes) as (program, ports):
        try:
            yield Proxy("Squid", program, ports[PORT])
        finally:
            program.interrupt()  # or it leaves them there


@contextmanager
def chromium_behind(proxy: Proxy) -> Iterator[Browser]:
    """One to which `proxy` is the way to everything, this machine too."""
    with chromium(
        Path(),
        f"--proxy-server=http://127.0.0.1:{proxy.port}",
        "--proxy-bypass-list=<-loopback>",
    ) as browser:
        browser.driver.set_script_timeout(30)
        yield browser


Through = Callable[..., AbstractContextManager[Proxy]]
REVERSE: dict[str, tuple[Through, dict[str, Any]]] = {
    "nginx": (nginx, {}),
    "HAProxy": (haproxy, {}),
    "HAProxy, PROXY protocol": (haproxy_tcp, {"proxy_protocol": True}),
    "Caddy": (caddy, {}),
    "Apache": (apache, {}),
}
"""Those that stand before a server, and what it needs for it beside `trusted_proxies`."""
