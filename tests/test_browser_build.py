"""The browser half's built files: what the sources give, small, and readable by old engines."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import needs
import plainsocket
from processes import ROOT

BROWSER = ROOT / "browser"
STATIC = ROOT / "src" / "plainsocket" / "static"
LOADER = 1536  # bytes gzipped, at most
CARRIER = 6144  # the same, of the carrier by itself: without the WebSocket object above it


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


def gzipped(content: bytes) -> int:
    return len(gzip.compress(content, 9))


def test_the_loader_is_small() -> None:
    assert gzipped((STATIC / "plainsocket.js").read_bytes()) < LOADER


def test_the_carrier_is_small() -> None:
    build = """
        import { build } from "esbuild";
        import { ownNames } from "./names.mjs";
        const { outputFiles: [file] } = await build({
          entryPoints: ["src/http/open.ts"], bundle: true, minify: true, format: "esm",
          target: "es2020", write: false, mangleProps: ownNames() });
        console.log(file.text);"""
    assert gzipped(node("--input-type=module", "--eval", build).encode()) < CARRIER


def test_the_loader_is_es5() -> None:
    parse = """
        import { readFileSync } from "node:fs";
        import { parse } from "acorn";
        parse(readFileSync(process.argv[1], "utf8"), { ecmaVersion: 5 });"""
    node("--input-type=module", "--eval", parse, STATIC / "plainsocket.js")


def test_the_sizes_that_the_text_says() -> None:
    text = (ROOT / "docs" / "browser.md").read_text()
    said = re.findall(r"\| `(plainsocket[\w.-]*)` \| ([\d.]+) KB \|", text)
    assert len(said) == 5
    for name, size in said:
        assert f"{gzipped((STATIC / name).read_bytes()) / 1024:.1f}" == size, name


def test_the_package_has_the_librarys_version() -> None:
    package = json.loads((BROWSER / "package.json").read_text())
    assert package["version"].replace("-dev.", ".dev") == plainsocket.__version__
    assert "dependencies" not in package
    for name in package["files"]:
        assert (STATIC / name).exists()


@pytest.mark.slow
@pytest.mark.once
def test_what_npm_packs_can_be_imported(tmp_path: Path) -> None:
    """By TypeScript, as Node's rules resolve it and as bundlers do; with its licence."""
    source = tmp_path / "browser"
    ignored = shutil.ignore_patterns("node_modules", "plainsocket*")
    shutil.copytree(BROWSER, source, ignore=ignored)
    (source / "node_modules").symlink_to(BROWSER / "node_modules")
    shutil.copy(ROOT / "LICENSE", tmp_path)
    shutil.copy(BROWSER / "src/plainsocket.d.mts", source / "src")
    npm = shutil.which("npm") or needs.unavailable("npm is missing (Debian package npm)")
    subprocess.run([npm, "pack", "--silent"], cwd=source, check=True, timeout=120)
    (packed,) = source.glob("*.tgz")
    package = tmp_path / "page/node_modules/plainsocket"
    package.mkdir(parents=True)
    with tarfile.open(packed) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            (package / Path(member.name).name).write_bytes(content.read())
    declared = json.loads((BROWSER / "package.json").read_text())["files"]
    found = {path.name for path in package.iterdir()}
    assert found == {*declared, "package.json", "README.md", "LICENSE"}
    for name in declared:
        assert (package / name).read_bytes() == (STATIC / name).read_bytes()

    page = tmp_path / "page"
    (page / "package.json").write_text('{"type": "module"}')
    (page / "page.ts").write_text(USE)
    for module, resolution in ("node16", "node16"), ("esnext", "bundler"):
        compile_page = (
            "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--lib", "es2022,dom",
            "--module", module, "--moduleResolution", resolution, page / "page.ts",
        )  # fmt: skip
        node(*compile_page)


USE = """
import { WebSocket, HTTPWebSocket, GuardedWebSocket, carrierOf } from "plainsocket";

class Mine extends WebSocket {}
const sockets: globalThis.WebSocket[] = [
  new WebSocket("/echo"), new HTTPWebSocket("/echo", "chat"),
  new GuardedWebSocket("/echo", ["a"]), new Mine("/x"),
];
sockets[0]!.onmessage = ({ data }: MessageEvent<string>) => console.log(data);
const carrier: "native" | "http" | "http-poll" = carrierOf(sockets[0]!);
// @ts-expect-error: there is no such carrier
const none: "flash" = carrierOf(sockets[0]!);
export { carrier, none, WebSocket };
"""


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (BROWSER / "package-lock.json").read_text()


def test_the_parts_without_a_page() -> None:
    node("tests/run.mjs")
