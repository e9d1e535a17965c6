"""With which programs the tests have run: `pytest --works-with FILE` adds it to FILE, as JSON.

A test says so by `@pytest.mark.works_with("gunicorn")`, or has the name of one in `PARAMETERS`
among its parameters. Only tests that have passed count. tools/write_works_with.py makes the table.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import pytest

Version = Callable[[], str]


def _distribution(name: str) -> Version:
    return lambda: importlib.metadata.version(name)


def _command(*command: str) -> Version:
    def version() -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        assert found is not None, command
        return found[0]

    return version


def _node_package(folder: str, name: str) -> Version:
    path = Path(__file__).parent / folder / "node_modules" / name / "package.json"
    return lambda: str(json.loads(path.read_text())["version"])


PROGRAMS: Final[dict[str, tuple[str, Version]]] = {
    "Python": ("what runs it", platform.python_version),
    "gevent": ("the event loop", _distribution("gevent")),
    "Flask": ("routes, by `plainsocket.flask`", _distribution("Flask")),
    "Flask-Login": ("in routes of Flask", _distribution("Flask-Login")),
    "Werkzeug": ("under Flask; its debugger", _distribution("Werkzeug")),
    "Django": ("views, by `plainsocket.django`", _distribution("Django")),
    "Bottle": ("routes, by `plainsocket.bottle`", _distribution("bottle")),
    "Falcon": ("responders, by `plainsocket.falcon`", _distribution("falcon")),
    "Pyramid": ("views, by `plainsocket.pyramid`", _distribution("pyramid")),
    "python-socketio": ("Socket.IO, by `plainsocket.engineio`", _distribution("python-socketio")),
    "Flask-SocketIO": ("Socket.IO, by `plainsocket.engineio`", _distribution("Flask-SocketIO")),
    "python-engineio": ("Engine.IO, by `plainsocket.engineio`", _distribution("python-engineio")),
    "socket.io-client": ("the client of these", _node_package("socketio", "socket.io-client")),
    "Node.js": ("runs socket.io-client", _command("node", "--version")),
    "Flask-Sockets": ("unchanged, by `plainsocket.compat`", _distribution("Flask-Sockets")),
    "bottle-websocket": ("unchanged, by `plainsocket.compat`", _distribution("bottle-websocket")),
    "gunicorn": ("its gevent workers, and plainsocket's", _distribution("gunicorn")),
    "nginx": ("a proxy in front", _command("nginx", "-v")),
    "HAProxy": ("a proxy in front", _command("haproxy", "-v")),
    "Caddy": ("a proxy in front", _command("caddy", "version")),
    "Apache": ("a proxy in front", _command("apache2", "-v")),
    "Squid": ("a proxy on the pages' side", _command("squid", "-v")),
    "Chromium": ("a browser", _command("chromium", "--version")),
    "Firefox": ("a browser", _command("firefox-esr", "--version")),
    "WebKitGTK": (
        "a browser's engine",
        _command("dpkg-query", "--show", "--showformat=${Version}", "webkit2gtk-driver"),
    ),
    "prometheus-client": ("numbers, by `plainsocket.metrics`", _distribution("prometheus-client")),
    "websockets": ("a client, in most tests", _distribution("websockets")),
}
"""By name: what it has to do with plainsocket, and what tells its version."""

PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "flask": ("Flask", "Werkzeug"),
    "django": ("Django",),
    "bottle": ("Bottle",),
    "falcon": ("Falcon",),
    "pyramid": ("Pyramid",),
    "nginx": ("nginx",),
    "HAProxy": ("HAProxy",),
    "HAProxy, PROXY protocol": ("HAProxy",),
    "Caddy": ("Caddy",),
    "Apache": ("Apache",),
    "chromium": ("Chromium",),
    "firefox": ("Firefox",),
    "webkit": ("WebKitGTK",),
}
"""Programs by the parameter of a test."""

_seen: dict[str, set[str]] = {}  # by program, the files of tests


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--works-with", metavar="FILE", type=Path, help="see tests/works_with.py")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "works_with(program, …): runs with these programs")


@pytest.hookimpl(tryfirst=True)  # before -m selects by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        for value in callspec.params.values() if callspec else ():
            if isinstance(value, str) and value in PARAMETERS:
                item.add_marker(pytest.mark.works_with(*PARAMETERS[value]))
        for name in programs_of(item):
            if name not in PROGRAMS:
                raise pytest.UsageError(f"{item.nodeid}: what is the version of {name!r}?")


def programs_of(item: pytest.Item) -> set[str]:
    return {name for mark in item.iter_markers("works_with") for name in mark.args}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and report.passed:
        for name in programs_of(item):
            _seen.setdefault(name, set()).add(item.path.name)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption("--works-with")
    if path is None:
        return
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, files in _seen.items():
        before = set(known.get(name, {}).get("files", ()))
        known[name] = {"version": PROGRAMS[name][1](), "files": sorted(files | before)}
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
