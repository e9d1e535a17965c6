"""Run the quick tests on every Python that is supported and installed; print a table.

    python3 tools/matrix.py [VERSION...]

A version is looked for as `python3.X` on the path and in pyenv's folder. Each gets a virtual
environment of its own in .matrix/, which is kept for the next time.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".matrix"
QUICK = "not browser and not autobahn and not slow"


class Row(NamedTuple):
    version: str  # "3.10"
    python: str  # what it says of itself
    result: str
    is_good: bool


def supported() -> list[str]:
    """The versions that pyproject.toml names."""
    return re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())


def interpreter(version: str) -> str | None:
    found = shutil.which(f"python{version}")
    if found and _runs(found):  # pyenv's shims are there for every version, and may not work
        return found
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in sorted(home.glob(f"versions/{version}.*/bin/python"), reverse=True):
        if _runs(str(path)):
            return str(path)
    return None


def _runs(path: str) -> bool:
    return subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0


def run(version: str) -> Row:
    python = interpreter(version)
    if python is None:
        return Row(version, "-", "not installed", True)
    folder = ENVIRONMENTS / version
    own = folder / "bin" / "python"
    if not own.exists():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([own, *install, "--editable", ".[dev]"], cwd=ROOT, check=True)
    says = subprocess.run(
        [own, "-m", "plainsocket", "--version"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    described = re.sub(r"^plainsocket \S+ \((.*)\)\n$", r"\1", says)
    began = time.monotonic()
    tests = subprocess.run(
        [own, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", QUICK],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(tests.stdout)
    last = tests.stdout.rstrip().rpartition("\n")[2].strip("= ")
    result = f"{re.sub(r' in .*', '', last)}, {time.monotonic() - began:.0f} s"
    return Row(version, described, result, tests.returncode == 0)


def main(versions: list[str]) -> int:
    rows = []
    for version in versions or supported():
        print(f"== Python {version}", flush=True)
        rows.append(run(version))
    print("| Python | what ran | quick tests |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {row.version} | {row.python} | {row.result} |")
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
