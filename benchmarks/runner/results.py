"""All samples of a run, and what may be asked of them."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from .figures import Figure, Ratio
from .measure import Cores, Sample, Timing
from .peers import Peer
from .scenarios import Scenario

SATURATED = 0.95  # of its core: above it the generator may be what limits the rate
WAITED = 0.10  # of the window: the server stood ready while others had its core


@dataclass
class Results:
    peers: tuple[Peer, ...]
    scenarios: tuple[Scenario, ...]
    subject: str
    timing: Timing
    rounds: int
    cores: Cores
    samples: list[Sample] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # by peer: its reason
    notes: list[str] = field(default_factory=list)
    began: datetime.datetime = field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc)
    )

    def values(
        self, peer: str, scenario: Scenario, what: Callable[[dict[str, Any]], float] | None = None
    ) -> dict[int, float]:
        """By round; without the rounds that failed and the verification."""
        what = what or scenario.figure
        return {
            sample.round: what(sample.result)
            for sample in self.samples
            if (sample.peer, sample.scenario) == (peer, scenario.key)
            and sample.round > 0
            and not sample.error
        }

    def figure(
        self, peer: str, scenario: Scenario, what: Callable[[dict[str, Any]], float] | None = None
    ) -> Figure | None:
        values = self.values(peer, scenario, what)
        return Figure.of(list(values.values())) if values else None

    def ratio(self, peer: str, scenario: Scenario) -> Ratio | None:
        """The subject's figure over the peer's: below 1 the subject needs less."""
        ours = self.values(self.subject, scenario)
        return Ratio.of(ours, self.values(peer, scenario)) if ours else None

    def failures(self, peer: str | None = None, scenario: str | None = None) -> list[Sample]:
        return [
            sample
            for sample in self.samples
            if sample.error and peer in (None, sample.peer) and scenario in (None, sample.scenario)
        ]

    def was_saturated(self, peer: str, scenario: Scenario) -> bool:
        busy = self.figure(peer, scenario, lambda result: result["generator_busy"])
        return bool(busy and busy.median > SATURATED)

    def tracebacks(self, peer: str, scenario: Scenario) -> int:
        return sum(
            sample.tracebacks
            for sample in self.samples
            if (sample.peer, sample.scenario) == (peer, scenario.key)
        )

    def warnings(self) -> list[str]:
        found = list(self.notes)
        for peer in self.peers:
            saturated, waits, logged = [], [], []
            for scenario in self.scenarios:
                if self.was_saturated(peer.name, scenario):
                    saturated.append(scenario.key)
                waited = self.figure(peer.name, scenario, lambda result: result["server"]["waited"])
                if waited and waited.median > WAITED:
                    waits.append(f"{scenario.key} {waited.median:.0%}")
                if count := self.tracebacks(peer.name, scenario):
                    logged.append(f"{scenario.key} {count}")
            if saturated:
                found.append(
                    f"{peer.label}: the generator's core was saturated, the rate is a lower "
                    f"bound: {', '.join(saturated)}"
                )
            if waits:
                found.append(
                    f"{peer.label}: the machine was busy, the server waited for its core for "
                    f"this part of the time: {', '.join(waits)}"
                )
            if logged:
                found.append(f"{peer.label}: the server logged tracebacks: {', '.join(logged)}")
        return found

    def machine(self) -> dict[str, str]:
        model = platform.processor() or platform.machine()
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        return {
            "processor": f"{model}, {os.cpu_count()} cores",
            "kernel": platform.release(),
            "python": platform.python_version(),
        }

    def versions(self) -> dict[str, str]:
        packages = sorted({package for peer in self.peers for package in peer.packages})
        found = {}
        for package in packages:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                found[package] = "not installed"
        return found

    def as_json(self) -> dict[str, Any]:
        cells: dict[str, dict[str, Any]] = {}
        for peer in self.peers:
            for scenario in self.scenarios:
                figure = self.figure(peer.name, scenario)
                ratio = self.ratio(peer.name, scenario)
                cells.setdefault(peer.name, {})[scenario.key] = {
                    "figure": asdict(figure) if figure else None,
                    "subject_ratio": asdict(ratio) if ratio else None,
                    "failures": [s.error for s in self.failures(peer.name, scenario.key)],
                }
        return {
            "began": self.began.isoformat(timespec="seconds"),
            "machine": self.machine(),
            "versions": self.versions(),
            "rounds": self.rounds,
            "timing": asdict(self.timing),
            "cores": asdict(self.cores),
            "subject": self.subject,
            "scenarios": {s.key: {"title": s.title, "unit": s.unit} for s in self.scenarios},
            "peers": {p.name: p.label for p in self.peers},
            "skipped": self.skipped,
            "warnings": self.warnings(),
            "cells": cells,
            "samples": [asdict(sample) for sample in self.samples],
        }
