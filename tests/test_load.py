"""`plainsocket bench`, and how it counts."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest

import plainsocket
from plainsocket.cli import main
from plainsocket.load import Times
from serving import PATIENCE, serving, wait_until

BENCH = (sys.executable, "-m", "plainsocket", "bench")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: each for name, each in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [*BENCH, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**kept, "PYTHONIOENCODING": "utf-8"},
    )


def test_figures_and_a_histogram() -> None:
    with serving() as server:
        result = bench(server.url(), "-c", "3", "-d", "2", "-t", "0.3")
        assert (result.returncode, result.stderr) == (0, "")
        first, _, rate, _, round_trip, _, *rows = result.stdout.splitlines()
        assert first.startswith("3 connections, 2 messages of 32 bytes in flight on each, 0.")
        assert "messages/s there and back" in rate
        assert all(name in round_trip for name in ("p50", "p99", "max"))
        counts = [int(row.split()[-1].replace(",", "")) for row in rows]
        assert 1 <= len(rows) <= 12
        assert any("█" in row for row in rows)

        result = bench(server.url(), "-t", "0.2", "-c", "2", "-b", "70000", "--binary", "--json")
        figures = json.loads(result.stdout)
        assert (figures["connections"], figures["size"]) == (2, 70000)
        assert figures["messages"] > 0
        times = figures["round_trip"]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["p99.9"]
        assert times["p99.9"] <= times["max"] * 1.02
        wait_until(lambda: not server.server.connections)
    assert sum(counts) > 0


def refuse(ws: plainsocket.WebSocket) -> None:
    ws.close(4003, "no load, please")


def shout(ws: plainsocket.WebSocket) -> None:
    for message in ws:
        ws.send(str(message).upper() + "!")


@pytest.mark.parametrize(
    ("handler", "text"),
    [(refuse, "closed with 4003 no load"), (shout, "does not echo")],
)
def test_what_is_no_echo(handler: Any, text: str) -> None:
    with serving(handler) as server:
        result = bench(server.url(), "-t", "5")
    assert result.returncode == 4
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_can_not_be_reached() -> None:
    result = bench("127.0.0.1:1")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize("wrong", [["-c", "0"], ["-t", "-1"], ["-b", "x"], ["-d", "1000000"]])
def test_wrong_usage(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "127.0.0.1:1", *wrong])


def test_ctrl_c_ends_it() -> None:
    with serving() as server:
        process = subprocess.Popen(
            [*BENCH, server.url(), "-t", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            wait_until(lambda: any(ws.messages_received for ws in server.server.connections))
            process.send_signal(2)
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        assert (process.returncode, errors) == (130, b"")
        assert b"p99" in output


def test_percentiles_are_right_within_a_percent() -> None:
    values = [random.lognormvariate(-8, 1) for _ in range(5000)]
    times = Times()
    for value in values:
        times.add(value)
    values.sort()
    for percent in (1, 50, 90, 99, 99.9):
        exact = values[max(0, round(len(values) * percent / 100) - 1)]
        assert times.percentile(percent) == pytest.approx(exact, rel=0.011)
    assert times.percentile(100) == times.most == values[-1]
    assert sum(count for _, count in times.rows(12)) == times.count == 5000
    assert len(list(times.rows(12))) <= 12
    assert len(times.counts) < 1000
