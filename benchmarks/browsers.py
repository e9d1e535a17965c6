"""The http carrier beside the engine's own WebSocket, in real browsers.

Each browser is bare: the page runs its jobs by itself, on both carriers in turns, and posts what it
has measured. Markdown tables on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from round_trips import HOST, SERVERS, delay, listen, running

BUILD = Path(__file__).parent / "build"
DELAY = 0.010  # seconds each way
PATIENCE = 120  # seconds for one browser
BURSTS = 8  # times as many rounds of what is over in 20 to 150 ms
PREFERENCES = {  # of Firefox: no connections but the page's own
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.aboutwelcome.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}

Measured = dict[str, Any]


def chromium(url: str, profile: Path) -> list[str]:
    arguments = (
        "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic "
        "--no-first-run --disable-background-networking --disable-component-update --disable-sync"
    )
    # The certificate of nginx's is nobody's.
    return [
        *("chromium", *arguments.split(), "--ignore-certificate-errors"),
        *(f"--user-data-dir={profile}", url),
    ]


def firefox(url: str, profile: Path) -> list[str]:
    lines = [
        f"user_pref({json.dumps(name)}, {json.dumps(PREFERENCES[name])});" for name in PREFERENCES
    ]
    (profile / "user.js").write_text("\n".join(lines))
    return ["firefox-esr", "-headless", "-no-remote", "-profile", str(profile), url]


ENGINES = {"chromium": chromium, "firefox": firefox}


class Server:
    """plainsocket in a process of its own, which passes on what pages have measured."""

    def __init__(self) -> None:
        with listen() as listener:
            self.port: int = listener.getsockname()[1]
        command = [sys.executable, str(SERVERS / "plainsocket_page.py"), "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._lines: IO[str] = self._process.stdout
        self._line(30)  # it says when it listens

    def measure(self, engine: str, url: str, page: str = "", **job: object) -> Measured:
        """Have a browser run a job; return what it has measured."""
        query = urllib.parse.urlencode(job)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = ENGINES[engine](f"{url}/{page}?{query}", Path(profile))
            with subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ) as browser:
                try:
                    line = self._line(PATIENCE)
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(browser.pid, 9)
        outcome: Measured = json.loads(line or '{"error": "no answer"}')
        if outcome.get("error"):
            raise SystemExit(f"{engine}, {query}: {outcome['error']}")
        return outcome

    def _line(self, seconds: float) -> str:
        """The next line; empty if none comes in time."""
        return self._lines.readline() if select.select([self._lines], [], [], seconds)[0] else ""

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def http2(port: int) -> Iterator[str]:
    """nginx with TLS and HTTP/2 before `port`; its address."""
    with listen() as listener:
        own = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(
            f"""
            daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
            events {{}}
            http {{
              access_log off; client_max_body_size 8m;
              client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
              fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
              map $http_upgrade $connection_of {{ default upgrade; '' ''; }}
              upstream server {{ server {HOST}:{port}; keepalive 16; }}
              server {{
                listen {HOST}:{own} ssl http2;
                ssl_certificate {BUILD}/cert.pem; ssl_certificate_key {BUILD}/key.pem;
                location / {{
                  proxy_pass http://server; proxy_http_version 1.1;
                  proxy_set_header Host $http_host;
                  proxy_set_header Upgrade $http_upgrade;
                  proxy_set_header Connection $connection_of;
                  proxy_request_buffering off;
                }}
              }}
            }}"""
        )
        process = subprocess.Popen(
            [shutil.which("nginx") or "/usr/sbin/nginx", "-c", configuration]
        )
        try:
            yield f"https://localhost:{own}"
        finally:
            process.terminate()
            process.wait()


# -- figures -------------------------------------------------------------------------------------


def quantile(samples: list[float], percent: int) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def delays(measured: Measured) -> list[str]:
    """The columns of round trips, or of delays."""
    samples = measured["measured"]
    sides = [samples[name] for name in ("native", "http", "post") if name in samples]
    return [f"{quantile(side, 50):.2f} / {quantile(side, 99):.2f}" for side in sides]


def rates(measured: Measured) -> list[str]:
    """The columns of rates: the median of the rounds."""
    return [f"{statistics.median(measured['measured'][side]):,.0f}" for side in ("native", "http")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=400, help="round trips a round (400)")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--jobs", default="echo,delayed,h2,many,large,ticks,beside")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or browsers would stay behind
    wanted = arguments.jobs.split(",")
    rounds = {"rounds": arguments.rounds}
    bursts = {"rounds": arguments.rounds * BURSTS}
    with contextlib.ExitStack() as stack:
        server = Server()
        stack.callback(server.stop)
        near = f"http://{HOST}:{server.port}"
        far = f"http://{HOST}:{stack.enter_context(running(delay, server.port, DELAY))}"
        print("| | native | http | a POST |\n| --- | ---: | ---: | ---: |", flush=True)

        def row(text: str, columns: list[str]) -> None:
            columns = [*columns, ""][:3]
            print(f"| {text} | {' | '.join(columns)} |", flush=True)

        for engine in arguments.engines.split(","):
            name = engine.capitalize()
            echo = {"job": "echo", "count": arguments.count, **rounds}
            if "echo" in wanted:
                row(f"{name}: echo, p50 / p99, ms", delays(server.measure(engine, near, **echo)))
            if "delayed" in wanted:
                few = {**echo, "count": arguments.count // 4}
                row(f"{name}: with 20 ms added", delays(server.measure(engine, far, **few)))
            if "h2" in wanted and engine == "chromium":
                with http2(server.port) as address:
                    columns = delays(server.measure(engine, address, **echo))
                row(f"{name}: through nginx, TLS and HTTP/2", columns)
            if "many" in wanted:
                columns = rates(server.measure(engine, near, job="many", **bursts))
                row(f"{name}: 2,000 messages at once, a second", columns)
            if "large" in wanted:
                columns = rates(server.measure(engine, near, job="large", **bursts))
                row(f"{name}: 20 × 1 MiB at once, MB/s", columns)
            if "ticks" in wanted:
                outcome = server.measure(engine, near, job="ticks", **rounds)
                row(f"{name}: 1,000 a second from the server, delay's variation", delays(outcome))
                asked = statistics.mean(outcome["requests"]["http"])
                row(f"{name}: the page's requests a second meanwhile", ["0", f"{asked:.1f}"])
            if "beside" in wanted:
                outcome = server.measure(engine, near, **{**echo, "job": "beside"})
                alone = {side: outcome["measured"][f"{side} alone"] for side in ("native", "http")}
                row(f"{name}: echo on one of 25 sockets", delays({"measured": alone}))
                row(f"{name}: beside one that is saturated both ways", delays(outcome))


if __name__ == "__main__":
    main()
