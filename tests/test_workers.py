"""The http carrier at several workers and machines, behind balancers that know of no sessions."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import needs
from browsers import Browser
from page import POLL, STREAM, Page, Reply, Socket, converse, post, replies
from processes import Program, running
from serving import PATIENCE, wait_until
from test_gunicorn import WORKER, each_kind, gunicorn
from test_liveness import inside, run_ip

pytestmark = pytest.mark.once  # nothing here depends on what is compiled

PAGES = 4


@pytest.fixture(autouse=True)
def _close_replies() -> Iterator[None]:
    yield
    while replies:
        replies.pop().close()


def in_parallel(function: Callable[[int], None], count: int = PAGES) -> None:
    """Call it for each number, in threads; raises what the first of them raised."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            function(number)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(6 * PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def talk(port: int, number: int, *, origin: str = "http://127.0.0.1") -> None:
    """A page with two WebSockets that open, echo and close."""
    with Page(port, mode=(STREAM, POLL)[number % 2], origin=origin) as page:
        sockets = [page.socket() for _ in range(2)]
        converse(sockets, 70_000)
        assert page.status is None


def echoes(ws: Socket, message: str) -> None:
    ws.send(message)
    assert ws.receive() == message


class Pages:
    """Pages that are open, and which worker has each."""

    def __init__(self, stack: contextlib.ExitStack, port: int) -> None:
        self.pages: list[Page] = []
        self.sockets: list[Socket] = []
        self.pids: list[int] = []
        self._stack = stack
        self._port = port

    def open(self) -> None:
        page = self._stack.enter_context(Page(self._port, path="/pid"))
        ws = page.socket()
        self.pages.append(page)
        self.sockets.append(ws)
        self.pids.append(int(ws.receive()))

    def open_until(self, is_enough: Callable[[set[int]], bool]) -> None:
        """Open more until the processes that have them are enough."""
        deadline = time.monotonic() + PATIENCE
        while not is_enough(set(self.pids)):
            assert time.monotonic() < deadline, f"only {set(self.pids)}"
            self.open()
            if len(self.pids) > 20:
                time.sleep(0.1)  # one of the workers may still be starting


@contextlib.contextmanager
def pages_at(port: int) -> Iterator[Pages]:
    with contextlib.ExitStack() as stack:
        yield Pages(stack, port)


# -- gunicorn ------------------------------------------------------------------------------------

works_with_gunicorn = pytest.mark.works_with("gunicorn")


@pytest.mark.slow
@works_with_gunicorn
@each_kind
def test_four_workers_without_affinity(tmp_path: Path, kind: str) -> None:
    with gunicorn(tmp_path, kind, "--workers", "4", "--graceful-timeout", "1") as at:
        in_parallel(lambda number: talk(at.port, number))


@pytest.mark.slow
@works_with_gunicorn
def test_workers_of_an_application_that_was_preloaded(tmp_path: Path) -> None:
    with gunicorn(tmp_path, WORKER, "--workers", "2", "--preload") as at:
        in_parallel(lambda number: talk(at.port, number), 2)


@pytest.mark.slow
@works_with_gunicorn
@pytest.mark.parametrize("kind", ["gevent", WORKER])
def test_worker_that_is_killed_takes_only_its_own(tmp_path: Path, kind: str) -> None:
    with gunicorn(tmp_path, kind, "--workers", "3", "--graceful-timeout", "1") as at:
        with pages_at(at.port) as all_pages:
            all_pages.open_until(lambda pids: len(pids) == 3)
            dead = all_pages.pids[0]
            os.kill(dead, signal.SIGKILL)
            for page, ws, pid in zip(
                all_pages.pages, all_pages.sockets, all_pages.pids, strict=True
            ):
                if pid == dead:
                    assert ws.closed.wait(PATIENCE)  # and not after 40 s
                    assert (ws.close_frame, page.status) == (None, 410)
                else:
                    echoes(ws, "still here")
        talk(at.port, 0)


@pytest.mark.slow
@works_with_gunicorn
def test_worker_that_stops_tells_its_own_pages(tmp_path: Path) -> None:
    with gunicorn(tmp_path, WORKER, "--workers", "3") as at, pages_at(at.port) as all_pages:
        all_pages.open_until(lambda pids: len(pids) == 3)
        leaving = all_pages.pids[0]
        os.kill(leaving, signal.SIGTERM)
        for ws, pid in zip(all_pages.sockets, all_pages.pids, strict=True):
            if pid == leaving:
                assert ws.closed.wait(PATIENCE)
                assert ws.close_frame == (1001, "server is stopping")
            else:
                echoes(ws, "still here")


@pytest.mark.slow
@works_with_gunicorn
def test_rolling_restart_under_load(tmp_path: Path) -> None:
    """Each page connects again when it is told 1001; none sees anything else, or loses an echo."""
    with gunicorn(tmp_path, WORKER, "--workers", "3") as at:
        enough = threading.Event()
        lives: list[set[int]] = [set() for _ in range(PAGES)]

        def go_on(number: int) -> None:
            while not enough.is_set() or len(lives[number]) < 2:
                with Page(at.port, path="/pid", request=patiently) as page:
                    ws = page.socket()
                    lives[number].add(int(ws.receive()))
                    count = 0
                    while not ws.closed.is_set() and not (
                        enough.is_set() and len(lives[number]) > 1
                    ):
                        echoes_or_ends(ws, f"{count}")
                        count += 1
                    if ws.closed.is_set():
                        assert ws.close_frame == (1001, "server is stopping"), page.status

        failures: list[BaseException] = []

        def run() -> None:
            try:
                in_parallel(go_on)
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)

        load = threading.Thread(target=run)
        load.start()
        try:
            wait_until(lambda: failures or all(lives))
            old = set().union(*lives)
            os.kill(at.pid, signal.SIGHUP)
            wait_until(lambda: failures or all(life - old for life in lives))
        finally:
            enough.set()
            load.join(6 * PATIENCE)
        assert not load.is_alive()
        if failures:
            raise failures[0]


def patiently(port: int, path: str, body: bytes, **headers: str | None) -> Reply:
    """Send a request once more, with its nonce, where it fell into the moment of the change: the
    old worker had accepted it, and no new one was there yet."""
    for _ in range(100):
        with contextlib.suppress(OSError, http.client.HTTPException):
            reply = post(port, path, body, **headers)
            if reply.status != 503:
                return reply
            reply.close()
        time.sleep(PATIENCE / 100)
    raise AssertionError("no worker takes it")


def echoes_or_ends(ws: Socket, message: str) -> None:
    ws.send(message)
    for _ in range(int(PATIENCE * 100)):
        if not ws.messages.empty():
            assert ws.receive() == message
            return
        if ws.closed.wait(0.01) and ws.messages.empty():
            return
    raise AssertionError("no echo, and no end")


@pytest.mark.browser
@works_with_gunicorn
@pytest.mark.parametrize("engine", ["chromium"], indirect=True)
def test_browser_at_four_workers(tmp_path: Path, browser: Browser) -> None:
    with gunicorn(tmp_path, "gevent", "--workers", "4", "--graceful-timeout", "1") as at:
        driver = browser.driver
        driver.get(f"http://127.0.0.1:{at.port}/")
        result = driver.execute_async_script(
            """
            const done = arguments[0], script = document.createElement("script");
            script.src = "/plainsocket.js?carrier=http";
            script.onload = () => {
              const sockets = [0, 1, 2].map(() => new WebSocket("/echo"));
              const got = sockets.map(() => []), codes = [];
              sockets.forEach((socket, i) => {
                socket.onopen = () => socket.send("0");
                socket.onmessage = ({ data }) => {
                  got[i].push(data);
                  got[i].length < 50 ? socket.send(String(got[i].length)) : socket.close(4000);
                };
                socket.onclose = ({ code }) => codes.push(code) == 3 && done([got, codes]);
              });
            };
            document.head.append(script);
            """
        )
        assert result == [[[str(number) for number in range(50)]] * 3, [4000] * 3]
        assert at.program.output.count("POST /echo") > 20


# -- serve() -------------------------------------------------------------------------------------

ONE_OF_MANY = """
import json
import os
import sys

import plainsocket
from plainsocket.nodes import Nodes


def echo(ws):
    for message in ws:
        ws.send(message)


def pid(ws):
    ws.send(str(os.getpid()))
    echo(ws)


nodes = json.loads(sys.argv[3])
if "machines" in nodes:
    nodes["machines"] = {name: tuple(at) for name, at in nodes["machines"].items()}
    nodes["secret"] = nodes["secret"].encode()
with plainsocket.Server(
    {"/echo": echo, "/pid": pid},
    host=sys.argv[1],
    port=int(sys.argv[2]),
    reuse_port=True,
    nodes=Nodes(**nodes),
    origins="*",
    stop_timeout=0.5,
) as server:
    print("listening at", server.address[1], flush=True)
    server.serve_forever()
"""


@contextlib.contextmanager
def served(
    folder: Path, host: str, port: int, nodes: dict[str, object], *, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[Program, int]]:
    """One process of several; its port."""
    (folder / "one_of_many.py").write_text(ONE_OF_MANY)
    command = (*prefix, sys.executable, str(folder / "one_of_many.py"), host, str(port))
    with running(*command, json.dumps(nodes)) as program:
        yield program, int(program.wait_for(r"listening at (\d+)")[1])
        assert "Traceback" not in program.output, program.output


@pytest.mark.slow
def test_processes_on_one_port(tmp_path: Path) -> None:
    nodes: dict[str, object] = {"directory": str(tmp_path / "nodes")}
    with contextlib.ExitStack() as stack:
        _, port = stack.enter_context(served(tmp_path, "127.0.0.1", 0, nodes))
        for _ in range(2):
            stack.enter_context(served(tmp_path, "127.0.0.1", port, nodes))
        with pages_at(port) as all_pages:
            all_pages.open_until(lambda pids: len(pids) == 3)
            for ws in all_pages.sockets:
                echoes(ws, "hello")
        in_parallel(lambda number: talk(port, number), 2)


# -- two machines --------------------------------------------------------------------------------

ADDRESSES = {"one": "10.201.1.2", "two": "10.201.2.2"}
MACHINES = {name: (address, 7087) for name, address in ADDRESSES.items()}

NGINX = """
daemon off;
user root;
pid nginx.pid;
error_log stderr;
worker_processes 1;
events {}
http {
    access_log off;
    upstream workers { server 10.201.1.2:8087; server 10.201.2.2:8087; }
    server {
        listen 8080;
        location / {
            proxy_pass http://workers;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
        }
    }
}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    option redispatch
    retries 3
frontend web
    bind :8080
    default_backend workers
backend workers
    balance roundrobin
    server one 10.201.1.2:8087
    server two 10.201.2.2:8087
"""


class Site:
    """Two machines, and a third one between them that has the proxy and the pages."""

    def __init__(self, ip: str, stack: contextlib.ExitStack) -> None:
        name = f"plainsocket-{os.getpid()}-{os.urandom(3).hex()}"
        self._ip = ip
        self.middle = f"{name}-middle"
        self.spaces = {machine: f"{name}-{machine}" for machine in ADDRESSES}
        for space in (self.middle, *self.spaces.values()):
            run_ip(ip, "netns", "add", space)
            stack.callback(run_ip, ip, "netns", "del", space)
            run_ip(ip, "-n", space, "link", "set", "lo", "up")
        with inside(self.middle), open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")
        for machine, space in self.spaces.items():
            address = ADDRESSES[machine]
            gateway = address[:-1] + "1"
            veth = ("type", "veth", "peer", "name", "eth0", "netns", space)
            run_ip(ip, "-n", self.middle, "link", "add", machine, *veth)
            run_ip(ip, "-n", self.middle, "address", "add", f"{gateway}/24", "dev", machine)
            run_ip(ip, "-n", self.middle, "link", "set", machine, "up")
            run_ip(ip, "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            run_ip(ip, "-n", space, "link", "set", "eth0", "up")
            run_ip(ip, "-n", space, "route", "add", "default", "via", gateway)

    def within(self, machine: str) -> tuple[str, ...]:
        """What runs a program there."""
        return (self._ip, "netns", "exec", self.spaces.get(machine, self.middle))


@pytest.fixture
def site() -> Iterator[Site]:
    ip = needs.program("ip", "iproute2")
    if os.geteuid() != 0:
        needs.unavailable("network namespaces need root")
    with contextlib.ExitStack() as stack:
        yield Site(ip, stack)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_two_machines_behind_a_balancer(site: Site, proxy: str, tmp_path: Path) -> None:
    path = needs.program(proxy, proxy)
    (tmp_path / "nginx.conf").write_text(NGINX)
    (tmp_path / "haproxy.cfg").write_text(HAPROXY)
    command = {
        "nginx": (path, "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"),
        "haproxy": (path, "-f", str(tmp_path / "haproxy.cfg")),
    }[proxy]
    with contextlib.ExitStack() as stack:
        machines: dict[str, list[Program]] = {}
        for machine in ADDRESSES:
            nodes: dict[str, object] = {
                "directory": str(tmp_path / machine),
                "machine": machine,
                "machines": MACHINES,
                "secret": "known to both machines",
            }
            at = site.within(machine)
            machines[machine] = [
                stack.enter_context(served(tmp_path, "", 8087, nodes, prefix=at))[0]
                for _ in range(2)
            ]
        stack.enter_context(running(*site.within("middle"), *command))
        stack.enter_context(inside(site.middle))
        wait_until(lambda: listens(8080))
        in_parallel(lambda number: inside_of(site.middle, talk, 8080, number), 2)
        all_pages = stack.enter_context(pages_at(8080))
        lost = [program.pid for program in machines["two"]]
        all_pages.open_until(lambda pids: len(pids) == 4)
        for program in machines["two"]:
            os.kill(program.pid, signal.SIGKILL)
        for page, ws, pid in zip(all_pages.pages, all_pages.sockets, all_pages.pids, strict=True):
            if pid in lost:
                assert ws.closed.wait(PATIENCE)
                assert (ws.close_frame, page.status) == (None, 410)
            else:
                echoes(ws, "still here")


def inside_of(space: str, function: Callable[..., None], *arguments: object) -> None:
    with inside(space):
        function(*arguments)
