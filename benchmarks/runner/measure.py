"""One measurement: a fresh server on its core, the generator on another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .peers import HERE, Peer
from .scenarios import Scenario

BUILD = HERE / "build"
LOGS = BUILD / "logs"
CERTIFICATE = (BUILD / "cert.pem", BUILD / "key.pem")
SKIPPED = 77  # the exit status of a server that can't run here and says why
START_SECONDS = 15
STOP_SECONDS = 3


class Failure(Exception):
    """A measurement without a result; the message goes into the report."""


class Skip(Exception):
    """A server that says itself that it can't run here."""


@dataclass(frozen=True)
class Timing:
    warmup: float
    seconds: float


@dataclass(frozen=True)
class Cores:
    server: int
    generator: int

    @classmethod
    def choose(cls) -> Cores:
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[0], allowed[-1])

    @property
    def shared(self) -> bool:
        return self.server == self.generator


@dataclass
class Sample:
    """What came of one measurement: a result, or why there is none."""

    peer: str
    scenario: str
    round: int
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    tracebacks: int = 0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Looked up, not tried out: a server would see a connection that says nothing."""
    local = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1].endswith(local) and columns[3] == "0A":
            return True
    return False


def last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "(nothing on stderr)"


def how_it_ended(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def wait_until_listening(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_listening(port):
        status = server.poll()
        if status == SKIPPED:
            raise Skip(last_line(log))
        if status is not None:
            raise Failure(f"did not start ({how_it_ended(status)}): {last_line(log)}")
        if time.monotonic() > deadline:
            raise Failure(f"not listening after {START_SECONDS} s: {last_line(log)}")
        time.sleep(0.01)


def stop(server: subprocess.Popen[bytes]) -> None:
    """The server leads a group of its own, which is all that is signalled."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)
            return


@contextlib.contextmanager
def running(
    peer: Peer, scenario: Scenario, cores: Cores
) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    port = free_port()
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{peer.name}-{scenario.key}.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            peer.command(port, CERTIFICATE if scenario.tls else None, deflate=scenario.deflate),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: os.sched_setaffinity(0, {cores.server}),
            start_new_session=True,
        )
    try:
        wait_until_listening(server, port, log)
        yield server, port, log
    finally:
        stop(server)


def generate(
    scenario: Scenario, port: int, pid: int, timing: Timing, cores: Cores, verify: bool
) -> dict[str, Any]:
    command = [
        str(BUILD / "load"),
        *scenario.arguments,
        *("--port", str(port), "--server-pid", str(pid)),
        *("--warmup", str(timing.warmup), "--seconds", str(timing.seconds)),
        *(("--verify",) if verify else ()),
    ]
    limit = timing.warmup + timing.seconds + 180  # each wait in the generator is shorter
    try:
        done = subprocess.run(
            command,
            check=False,  # its result says more than its status
            capture_output=True,
            timeout=limit,
            preexec_fn=lambda: os.sched_setaffinity(0, {cores.generator}),
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"the generator did not end within {limit:.0f} s") from None
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Failure(
            f"the generator ended ({how_it_ended(done.returncode)}) "
            f"without a result: {said[0] if said else '(nothing on stderr)'}"
        ) from None
    return result


def measure(
    peer: Peer, scenario: Scenario, round_: int, timing: Timing, cores: Cores, verify: bool
) -> Sample:
    """Never raises for what a server does; Skip passes through."""
    sample = Sample(peer.name, scenario.key, round_)
    try:
        with running(peer, scenario, cores) as (server, port, log):
            sample.result = generate(scenario, port, server.pid, timing, cores, verify)
            sample.error = sample.result["error"]
            # A reset may be seen just before the process that caused it is gone.
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = server.wait(0.5 if sample.error else 0.001)
                sample.error = f"the server died ({how_it_ended(status)}): {sample.error}"
            sample.tracebacks = log.read_text(errors="replace").count("Traceback (most recent")
    except Failure as failure:
        sample.error = str(failure)
    return sample
