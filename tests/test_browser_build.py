"""The browser half's built files: what the sources give, small, and readable by old engines."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import needs
import plainsocket
from processes import ROOT

BROWSER = ROOT / "browser"
STATIC = ROOT / "src" / "plainsocket" / "static"
SIZES = {"plainsocket.js": 1536, "plainsocket-http.js": 6144}  # bytes gzipped, at most


def node(*arguments: str | Path) -> str:
    """Run Node among the tools of the browser half; return what it prints."""
    if not (BROWSER / "node_modules").exists():
        needs.unavailable("the browser half's tools are missing (make browser installs them)")
    executable = shutil.which("node") or needs.unavailable(
        "node is missing (Debian package nodejs)"
    )
    result = subprocess.run(
        [executable, *arguments],
        cwd=BROWSER,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_what_is_committed_is_what_the_sources_give(tmp_path: Path) -> None:
    node("build.mjs", tmp_path)
    built = sorted(path.name for path in tmp_path.iterdir())
    assert built == sorted(path.name for path in STATIC.glob("plainsocket*"))
    for name in built:
        assert (STATIC / name).read_bytes() == (tmp_path / name).read_bytes(), "run make browser"


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    assert len(gzip.compress((STATIC / name).read_bytes(), 9)) < SIZES[name]


def test_the_loader_is_es5() -> None:
    parse = """
        import { readFileSync } from "node:fs";
        import { parse } from "acorn";
        parse(readFileSync(process.argv[1], "utf8"), { ecmaVersion: 5 });"""
    node("--input-type=module", "--eval", parse, STATIC / "plainsocket.js")


def test_the_sizes_that_the_texts_say() -> None:
    readme = (BROWSER / ".." / "docs" / "browser.md").read_text()
    for name, said in re.findall(r"`(plainsocket[\w.-]*)` \| ([\d.]+) KB", readme):
        size = len(gzip.compress((STATIC / name).read_bytes(), 9)) / 1024
        assert f"{size:.1f}" == said, f"{name} has {size:.1f} KB"


def test_the_package_has_the_librarys_version() -> None:
    package = json.loads((BROWSER / "package.json").read_text())
    assert package["version"].replace("-dev.", ".dev") == plainsocket.__version__
    assert "dependencies" not in package
    for name in package["files"]:
        assert (STATIC / name).exists()


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (BROWSER / "package-lock.json").read_text()
