"""The servers that are compared."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
SUBJECT = "plainsocket"


@dataclass(frozen=True)
class Peer:
    name: str
    label: str
    program: str  # in servers/, or in build/ if it is compiled
    packages: tuple[str, ...] = ()  # whose versions the report states
    arguments: tuple[str, ...] = ()
    charted: bool = True
    tls: bool = True
    deflate: bool = False
    quick: bool = False

    def command(
        self, port: int, certificate: tuple[Path, Path] | None, *, deflate: bool = False
    ) -> list[str]:
        if self.program.endswith(".py"):
            command = [sys.executable, str(HERE / "servers" / self.program)]
        else:
            command = [str(HERE / "build" / self.program)]
        command += ["--port", str(port), *self.arguments]
        if certificate:
            command += ["--tls", *map(str, certificate)]
        if deflate:
            command.append("--deflate")
        return command


PEERS = (
    Peer("c", "C, epoll (the limit)", "c_epoll", tls=False, quick=True),
    Peer(
        "c-work",
        "C, epoll, 1.5 µs of work",
        "c_epoll",
        arguments=("--work", "1500"),
        charted=False,
        tls=False,
    ),
    Peer(
        SUBJECT, "plainsocket", "plainsocket_handler.py", ("plainsocket",), deflate=True, quick=True
    ),
    Peer(
        "plainsocket-endpoint",
        "plainsocket, Endpoint",
        "plainsocket_endpoint.py",
        ("plainsocket",),
        deflate=True,
    ),
    Peer("picows", "picows, str", "picows_uvloop.py", ("picows", "aiofastnet"), quick=True),
    Peer(
        "socketify", "socketify (uWebSockets)", "socketify_server.py", ("socketify",), deflate=True
    ),
    Peer("aiohttp", "aiohttp", "aiohttp_uvloop.py", ("aiohttp", "uvloop"), deflate=True),
    Peer(
        "websockets", "websockets", "websockets_uvloop.py", ("websockets", "uvloop"), deflate=True
    ),
    Peer("uvicorn", "uvicorn", "uvicorn_sansio.py", ("uvicorn", "httptools")),
    Peer(
        "simple-websocket",
        "simple-websocket",
        "simple_websocket_gevent.py",
        ("simple-websocket", "gevent"),
    ),
    Peer(
        "gevent-websocket",
        "gevent-websocket",
        "gevent_websocket.py",
        ("gevent-websocket", "wsaccel", "gevent"),
    ),
)
