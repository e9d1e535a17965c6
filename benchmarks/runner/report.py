"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .figures import Figure
from .peers import Peer
from .results import Results
from .scenarios import Scenario


def number(value: float) -> str:
    """Three significant digits, and thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rate(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{number(value / limit)}{unit}"
    return number(value)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def cell(results: Results, peer: Peer, scenario: Scenario, figure: Figure | None) -> str:
    """A failure is never hidden behind the rounds that went well."""
    failed = len(results.failures(peer.name, scenario.key))
    if failed:
        return "**failed**"
    if figure is None:
        return "skipped" if peer.name in results.skipped else "–"
    return f"{number(figure.median)} ±{figure.percent:.0f}%"


def cpu_table(results: Results) -> str:
    head = ["server", *(f"{s.key} ({s.unit})" for s in results.scenarios)]
    rows = (
        [peer.label]
        + [cell(results, peer, s, results.figure(peer.name, s)) for s in results.scenarios]
        for peer in results.peers
    )
    return table(head, rows)


def latency(quantile: str) -> Callable[[dict[str, Any]], float]:
    return lambda result: float(result["latency_us"][quantile]) / 1000


def per_second(result: dict[str, Any]) -> float:
    return float(result["per_second"])


def rate_cell(results: Results, peer: Peer, scenario: Scenario) -> str:
    rates = results.figure(peer.name, scenario, per_second)
    if rates is None or results.failures(peer.name, scenario.key):
        return "–"
    return ("≥ " if results.was_saturated(peer.name, scenario) else "") + rate(rates.median)


def latency_cell(results: Results, peer: Peer, scenario: Scenario) -> str:
    middle = results.figure(peer.name, scenario, latency("p50"))
    tail = results.figure(peer.name, scenario, latency("p99"))
    if middle is None or tail is None or results.failures(peer.name, scenario.key):
        return "–"
    return f"{number(middle.median)} / {number(tail.median)}"


def timed_table(results: Results, cell: Callable[[Results, Peer, Scenario], str]) -> str:
    timed = [s for s in results.scenarios if s.mode != "idle"]
    rows = ([peer.label, *(cell(results, peer, s) for s in timed)] for peer in results.peers)
    return table(["server", *(s.key for s in timed)], rows)


def ratio_table(results: Results) -> str:
    others = [peer for peer in results.peers if peer.name != results.subject]
    rows = []
    for peer in others:
        row = [peer.label]
        for s in results.scenarios:
            ratio = results.ratio(peer.name, s)
            row.append(f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else "–")
        rows.append(row)
    return table(["compared with", *(s.key for s in results.scenarios)], rows)


def failure_list(results: Results) -> str:
    lines = [f"- **{label}** skipped: {reason}" for label, reason in skipped(results)]
    for peer in results.peers:
        for scenario in results.scenarios:
            failures = results.failures(peer.name, scenario.key)
            if failures:
                where = ", ".join(
                    f"round {f.round}" if f.round else "verification" for f in failures
                )
                lines.append(
                    f"- **{peer.label}**, {scenario.key}: FAILED ({where}): {failures[0].error}"
                )
    return "\n".join(lines) + "\n" if lines else "None: every message of every round came back.\n"


def skipped(results: Results) -> list[tuple[str, str]]:
    return [(p.label, results.skipped[p.name]) for p in results.peers if p.name in results.skipped]


def markdown(results: Results) -> str:
    machine = results.machine()
    versions = ", ".join(f"{name} {version}" for name, version in results.versions().items())
    subject = next((p.label for p in results.peers if p.name == results.subject), results.subject)
    where = (
        f"{results.began:%Y-%m-%d %H:%M} UTC; {machine['processor']}; Linux {machine['kernel']}; "
        f"Python {machine['python']}; {versions}.\n"
    )
    how = (
        f"Medians of {results.rounds} interleaved rounds of {results.timing.seconds:g} s each; "
        "± is half of the distance between the least and the greatest round. Server and generator "
        f"on {'ONE core' if results.cores.shared else 'a core each'}. How it is measured, and "
        "what it means: README.md beside the Makefile.\n"
    )
    parts = [
        "# Benchmark results\n",
        where,
        how,
        "\n".join(f"- **{s.key}**: {s.title}" for s in results.scenarios) + "\n",
        "## CPU time of the server per message (g: memory per connection); lower is better\n",
        cpu_table(results),
        f"## {subject} compared: its figure divided by the other's, with a 95 % interval\n",
        f"Below 1, {subject} needs less. An interval that contains 1 is a tie.\n",
        ratio_table(results),
        "## Messages per second as the clients saw them\n",
        "≥: the generator was as busy as it can be, and may be what limited the rate.\n",
        timed_table(results, rate_cell),
        "## Latency as the clients saw it: median / 99th percentile, ms\n",
        timed_table(results, latency_cell),
        "## Failures and omissions\n",
        failure_list(results),
    ]
    warnings = results.warnings()
    if warnings:
        parts += ["## Warnings\n", "\n".join(f"- {warning}" for warning in warnings) + "\n"]
    return "\n".join(parts)
