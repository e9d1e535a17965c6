"""The http carrier under real gunicorns."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from page import POLL, STREAM, Page, open_body, post
from serving import PATIENCE
from test_gunicorn import WORKER, each_kind, gunicorn
from test_http_carrier import KeptConnections

pytestmark = pytest.mark.slow


@each_kind
def test_messages_and_ends(tmp_path: Path, kind: str) -> None:
    with gunicorn(tmp_path, kind, "--graceful-timeout", "2") as at:
        for mode in (STREAM, POLL):
            with Page(at.port, mode=mode) as page:
                ws, other = page.socket(), page.socket()
                for message in ("one", b"", "\N{SNOWMAN}" * 9000, bytes(300_000)):
                    ws.send(message)
                    assert ws.receive() == message
                other.send("two")
                assert other.receive() == "two"
                ws.close(4000)
                assert ws.closed.wait(PATIENCE)
                assert ws.close_frame == (4000, "")
                assert page.status is None
        with post(at.port, "/elsewhere", open_body()) as reply:
            assert (reply.status, reply.read()) == (404, b"nothing here")
        with post(at.port, "/echo", open_body(), origin="http://elsewhere.example") as reply:
            assert reply.status == 403
        assert b"plainsocket" in at.get("/plainsocket.js")


@pytest.mark.parametrize("mode", [STREAM, POLL], ids=["stream", "poll"])
def test_worker_that_stops(tmp_path: Path, mode: int) -> None:
    with gunicorn(tmp_path, WORKER) as at, contextlib.closing(KeptConnections()) as keep:
        with Page(at.port, mode=mode, request=keep) as page:
            ws = page.socket()
            ws.send("hello")
            assert ws.receive() == "hello"
            at.terminate()
            assert ws.closed.wait(PATIENCE)
            assert ws.close_frame == (1001, "server is stopping")
        assert at.program.wait() == 0
