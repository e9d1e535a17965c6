"""What is measured. The letters are those of the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scenario:
    key: str
    title: str
    arguments: tuple[str, ...]  # of the generator
    tls: bool = False
    deflate: bool = False
    unit: str = "µs"

    @property
    def mode(self) -> str:
        if "--mode" in self.arguments:
            return self.arguments[self.arguments.index("--mode") + 1]
        return "echo"

    @property
    def can_be_verified(self) -> bool:
        return self.mode in ("echo", "broadcast")

    def figure(self, result: dict[str, Any]) -> float:
        """The one number that counts: lower is better."""
        if self.mode == "idle":
            return float(result["idle"]["rss_kib_per_connection"])
        return float(result["server"]["cpu_us"])


def options(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SMALL = options("--connections 100 --size 32 --payload text")
LARGE = options("--connections 32 --size 16384")


def scenarios(idle_connections: int) -> tuple[Scenario, ...]:
    return (
        Scenario("b", "100 connections × 1 message in flight, 32 B text", SMALL),
        Scenario("c", "100 connections × 16 in flight, 32 B text", (*SMALL, "--in-flight", "16")),
        Scenario("d", "32 connections, 16 KiB binary", (*LARGE, "--payload", "binary")),
        Scenario("u", "32 connections, 16 KiB non-ASCII text", (*LARGE, "--payload", "utf8")),
        Scenario(
            "e",
            "8 connections, 1 MiB binary",
            options("--connections 8 --size 1048576 --payload binary"),
        ),
        Scenario(
            "f",
            "handshakes, 32 at a time: connect, upgrade, close",
            options("--mode handshake --connections 32"),
        ),
        Scenario(
            "g",
            f"memory of an idle connection, at {idle_connections:,}",
            options(f"--mode idle --connections {idle_connections}"),
            unit="KiB",
        ),
        Scenario(
            "h",
            "broadcast to 1,000 receivers, 8 messages at a time; per delivery",
            options("--mode broadcast --connections 1000 --in-flight 8"),
        ),
        Scenario("b-tls", "b over TLS", (*SMALL, "--tls"), tls=True),
        Scenario("d-tls", "d over TLS", (*LARGE, "--payload", "binary", "--tls"), tls=True),
        Scenario("b-deflate", "b, compressed", (*SMALL, "--deflate"), deflate=True),
        Scenario(
            "c-deflate",
            "c, compressed",
            (*SMALL, "--in-flight", "16", "--deflate"),
            deflate=True,
        ),
        Scenario(
            "d-deflate",
            "d, compressed, though random bytes do not shrink",
            (*LARGE, "--payload", "binary", "--deflate"),
            deflate=True,
        ),
        Scenario(
            "u-deflate",
            "u, compressed, to less than half",
            (*LARGE, "--payload", "utf8", "--deflate"),
            deflate=True,
        ),
    )
