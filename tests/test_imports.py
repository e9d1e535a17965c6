"""What importing costs, and that the codec stays free of I/O."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

import plainsocket

PACKAGE = Path(plainsocket.__file__).parent
PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"

OPTIONAL = [
    "gunicorn", "compat", "rooms", "redis", "flashpolicy", "metrics", "cli", "demo",
    "run", "reloader", "views", "engineio", "flask", "django", "bottle", "falcon", "pyramid",
    "sessions", "carriers.http", "carriers.records",  # where the http carrier is used
    "nodes", "handover",  # where several processes are
    "backoff", "client", "console", "dialing", "load", "proxies", "upgrade", "urls",
]  # fmt: skip
WITHOUT_IO = [
    "origin",
    "frames",
    "wire",
    "protocol",
    "handshake",
    "options",
    "errors",
    "deflate",
    "forwarded",
]
EXISTING = [name for name in WITHOUT_IO if (PACKAGE / f"{name}.py").exists()]
IO_MODULES = {
    "gevent", "greenlet", "socket", "_socket", "ssl", "_ssl", "select", "selectors", "asyncio",
    "threading", "subprocess",
}  # fmt: skip

NEEDED_BY_GEVENT = {"gevent", "greenlet", "zope", "cffi", "_cffi_backend", "cython_runtime"}


def run(program: str) -> list[str]:
    """Run a program of its own; return the words that it prints."""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def imports_of(path: Path) -> tuple[set[str], set[str]]:
    """Return what a module imports anywhere in it: top-level packages, modules beside it.

    What it imports for the type checker only is left out.
    """
    outside, beside = set(), set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            beside |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            outside.add(cast("str", node.module).split(".")[0])
    return outside, beside


def test_importing_the_package_loads_no_optional_part() -> None:
    loaded = run("import sys, plainsocket; print(*sys.modules)")
    assert "plainsocket.server" in loaded
    assert not {f"plainsocket.{name}" for name in OPTIONAL} & set(loaded)


def test_importing_the_package_loads_nothing_foreign_but_gevent() -> None:
    new = run(
        "import sys; old = set(sys.modules); import plainsocket; print(*set(sys.modules)-old)"
    )
    foreign = {name.split(".")[0] for name in new} - set(sys.stdlib_module_names)
    foreign = {name for name in foreign if not name.startswith("_cython_")}  # compiled code's own
    assert foreign - NEEDED_BY_GEVENT == {"plainsocket"}


@pytest.mark.parametrize("name", EXISTING)
def test_codec_imports_no_io(name: str) -> None:
    outside, beside = imports_of(PACKAGE / f"{name}.py")
    assert not outside & IO_MODULES
    assert beside <= {*WITHOUT_IO}
    assert outside <= set(sys.stdlib_module_names)


def test_codec_runs_without_gevent_and_sockets() -> None:
    names = " ".join(f"plainsocket.{name}" for name in EXISTING)
    # An empty package stands in for the real one, whose __init__ imports everything.
    loaded = run(
        "import importlib, sys, types\n"
        "package = sys.modules['plainsocket'] = types.ModuleType('plainsocket')\n"
        f"package.__path__ = [{str(PACKAGE)!r}]\n"
        "old = set(sys.modules)\n"
        f"for name in {names!r}.split(): importlib.import_module(name)\n"
        "print(*set(sys.modules) - old)"
    )
    assert set(names.split()) <= set(loaded)
    assert not {name.split(".")[0] for name in loaded} & IO_MODULES


def test_the_files_that_have_to_be_free_of_io_are_there() -> None:
    assert {"frames", "protocol", "handshake", "options"} <= set(EXISTING)


def dependencies() -> list[str]:
    text = PYPROJECT.read_text()
    if sys.version_info >= (3, 11):
        import tomllib

        return cast("list[str]", tomllib.loads(text)["project"]["dependencies"])
    found = re.search(r"^dependencies = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return re.findall(r'"([^"]+)"', found[1])


def test_gevent_is_the_only_dependency() -> None:
    assert [re.split(r"[^\w-]", dependency)[0] for dependency in dependencies()] == ["gevent"]


def test_public_names_exist() -> None:
    assert len(set(plainsocket.__all__)) == len(plainsocket.__all__)
    for name in plainsocket.__all__:
        assert getattr(plainsocket, name).__module__.startswith("plainsocket.")


def test_importing_everything_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from plainsocket import *", names)
    assert names.keys() - {"__builtins__"} == set(plainsocket.__all__)


def test_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", plainsocket.__version__)


def test_types_are_published() -> None:
    assert (PACKAGE / "py.typed").is_file()
