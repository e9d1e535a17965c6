"""bridge.swf: built from its source to the byte, small, and without ways into the page's script."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from needs import program, unavailable
from processes import ROOT

SWF = ROOT / "src/plainsocket/static/bridge.swf"
HAXE = "4.2.5"  # Debian 12's; another one makes other bytes of the same source


@pytest.mark.slow
def test_source_gives_these_very_bytes(tmp_path: Path) -> None:
    haxe = program("haxe", "haxe")
    version = subprocess.run([haxe, "--version"], capture_output=True, text=True, check=True)
    if version.stdout.strip() != HAXE:
        unavailable(f"bridge.swf is built by haxe {HAXE}, and here is {version.stdout.strip()}")
    elsewhere = tmp_path / "some other folder"
    shutil.copytree(ROOT / "flash", elsewhere / "flash")
    (elsewhere / "src/plainsocket/static").mkdir(parents=True)
    subprocess.run([haxe, "--cwd", str(elsewhere / "flash"), "build.hxml"], check=True, timeout=60)
    built = (elsewhere / "src/plainsocket/static/bridge.swf").read_bytes()
    assert built == SWF.read_bytes(), "run `make flash` after a change of Bridge.hx"


def test_it_is_small() -> None:
    assert SWF.stat().st_size < 6000


def test_it_can_be_told_nothing_but_by_a_page_of_its_own_domain() -> None:
    data = SWF.read_bytes()
    assert data[:3] == b"CWS"
    code = zlib.decompress(data[8:])
    # The names that it uses stand in the code's table of constants.
    assert b"plainsocketFlash" in code
    assert b"addCallback" in code
    for name in (b"allowDomain", b"loaderInfo", b"parameters", b"navigateToURL", b"eval"):
        assert name not in code
