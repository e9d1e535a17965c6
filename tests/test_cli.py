"""The command line, run as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.client import connect

import plainsocket
from processes import demo_server, running
from serving import PATIENCE, serving

PLAINSOCKET = (sys.executable, "-m", "plainsocket")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PLAINSOCKET, *arguments], capture_output=True, text=True, timeout=20, check=False
    )


def test_demo_prints_its_address_logs_and_stops_politely() -> None:
    with demo_server() as (program, url):
        assert b"<title>" in urllib.request.urlopen(url, timeout=PATIENCE).read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url + "elsewhere", timeout=PATIENCE)
        with pytest.raises(urllib.error.HTTPError, match="426"):
            urllib.request.urlopen(url + "echo", timeout=PATIENCE)
        with connect(url.replace("http", "ws") + "echo") as peer:
            peer.send("hello")
            assert peer.recv(timeout=PATIENCE) == "hello"
            program.wait_for("connected")
            peer.send("quit")
            with pytest.raises(PeerClosed):
                peer.recv(timeout=PATIENCE)
            assert peer.close_code == 1000
        program.wait_for("closed with 1000")
        with connect(url.replace("http", "ws") + "echo") as peer:
            assert program.interrupt() == 0
            with pytest.raises(PeerClosed):
                peer.recv(timeout=PATIENCE)
            assert peer.close_code == 1001
        assert "Traceback" not in program.output


def test_head_of_the_page_has_no_body() -> None:
    with demo_server() as (_program, url):
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            assert response.read() == b""
            assert int(response.headers["Content-Length"]) > 1000


def test_without_a_command_it_is_the_demo() -> None:
    with running(*PLAINSOCKET, "--port", "0") as program:
        program.wait_for(r"http://127\.0\.0\.1:\d+/")


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith(f"plainsocket {plainsocket.__version__} ")
    assert "demo" in run("--help").stdout
    assert re.search(r"--port.*8087", run("demo", "--help").stdout, re.DOTALL)


def test_a_taken_port_is_one_clear_line() -> None:
    with serving() as server:
        result = run("demo", "--port", str(server.port))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert f"port {server.port} " in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize("port", ["x", "65536", "-1"])
def test_a_bad_port_is_refused(port: str) -> None:
    result = run("demo", "--port", port)
    assert result.returncode == 2
    assert "--port" in result.stderr


def test_a_host_that_is_not_ours_is_one_clear_line() -> None:
    result = run("demo", "--host", "192.0.2.1", "--port", "0")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
