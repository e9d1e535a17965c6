"""The Flash carrier's JavaScript in Node, over a real server: see browser/tests/flash.mjs."""

from __future__ import annotations

import json
import subprocess
from urllib.parse import parse_qs

import pytest

import plainsocket
from needs import program, unavailable
from processes import ROOT
from serving import serving


def echo(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        if message == "headers":
            headers = ws.request.headers
            cookie = headers["cookie"].encode("latin-1").decode()
            ws.send(json.dumps([headers["origin"], cookie]))
        elif message == "binary":
            ws.send(bytes(range(256)))
        else:
            ws.send(message)


def close(ws: plainsocket.WebSocket) -> None:
    query = parse_qs(ws.request.query)
    ws.close(int(query["code"][0]), query.get("reason", [""])[0])


@pytest.mark.slow
def test_handshake_framing_and_old_engines() -> None:
    node = program("node", "nodejs")
    if not (ROOT / "browser/node_modules/esbuild").exists():
        unavailable("esbuild is missing (make browser installs it)")
    routes = {"/echo": echo, "/close": close}
    with serving(routes, subprotocols=["chat"], max_message_size=2 << 20) as server:
        ran = subprocess.run(
            [node, "tests/flash.mjs", f"127.0.0.1:{server.port}"],
            cwd=ROOT / "browser",
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-2000:]
    assert ran.stdout == "all is well\n"
