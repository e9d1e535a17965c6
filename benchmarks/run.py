"""Runs the benchmark: all servers and scenarios, in interleaved rounds.

    make bench          the whole of it
    make bench-quick    plainsocket, picows and C in two minutes

First each server is verified: every byte of every echo is compared. Then each
round measures every scenario on every server, in an order of its own, so that
whatever else the machine does meets them all alike.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

from runner.chart import svg
from runner.measure import BUILD, CERTIFICATE, Cores, Sample, Skip, Timing, measure
from runner.peers import HERE, PEERS, SUBJECT, Peer
from runner.progress import Progress
from runner.report import markdown, number
from runner.results import Results
from runner.scenarios import Scenario, scenarios

VERIFICATION = 0  # the number of the round before the first
GIVE_UP = 2  # failures of one server in one scenario


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=HERE / "results", help="a folder")
    parser.add_argument("--quick", action="store_true", help="few servers, short rounds")
    parser.add_argument("--rounds", type=int, help="5; quick: 3")
    parser.add_argument("--seconds", type=float, help="of a measurement: 2; quick: 0.3")
    parser.add_argument("--warmup", type=float, help="before it: 0.5; quick: 0.15")
    parser.add_argument(
        "--servers", help="names, separated by commas: " + ",".join(peer.name for peer in PEERS)
    )
    parser.add_argument("--scenarios", help="letters, separated by commas")
    parser.add_argument("--subject", default=SUBJECT, help="the server to compare with all others")
    parser.add_argument("--no-verify", action="store_true", help="measure without verifying first")
    return parser.parse_args()


def wanted(names: str | None, known: list[str], what: str) -> list[str]:
    if names is None:
        return known
    chosen = names.split(",")
    for name in chosen:
        if name not in known:
            sys.exit(f"no such {what}: {name} (there are {', '.join(known)})")
    return chosen


def build_has(feature: str) -> bool:
    done = subprocess.run([str(BUILD / "load"), "--features"], capture_output=True, check=True)
    return feature.encode() in done.stdout.split()


def prepare(arguments: argparse.Namespace) -> Results:
    quick = arguments.quick
    peers = [peer for peer in PEERS if peer.quick or not quick]
    names = wanted(arguments.servers, [peer.name for peer in PEERS], "server")
    if arguments.servers:
        peers = [peer for peer in PEERS if peer.name in names]
    else:
        peers = [peer for peer in peers if peer.name in names]
    all_scenarios = scenarios(idle_connections=1000 if quick else 5000)
    keys = wanted(arguments.scenarios, [s.key for s in all_scenarios], "scenario")
    cores = Cores.choose()
    results = Results(
        peers=tuple(peers),
        scenarios=tuple(s for s in all_scenarios if s.key in keys),
        subject=arguments.subject,
        timing=Timing(
            warmup=arguments.warmup or (0.15 if quick else 0.5),
            seconds=arguments.seconds or (0.3 if quick else 2.0),
        ),
        rounds=arguments.rounds or (3 if quick else 5),
        cores=cores,
    )
    if cores.shared:
        results.notes.append("only one core: server and generator shared it")
    if not build_has("deflate"):
        results.scenarios = tuple(s for s in results.scenarios if not s.deflate)
        results.notes.append("compression was left out: this build has no zlib")
    if not (build_has("tls") and all(path.exists() for path in CERTIFICATE)):
        results.scenarios = tuple(s for s in results.scenarios if not s.tls)
        results.notes.append("the TLS scenarios were left out: this build has no TLS")
    return results


class Bench:
    def __init__(self, results: Results, verify: bool) -> None:
        self.results = results
        self.verify = verify
        self.stopped = False
        self.order = random.Random(1)
        self.cells = [
            (scenario, peer)
            for scenario in results.scenarios
            for peer in results.peers
            if (peer.tls or not scenario.tls) and (peer.deflate or not scenario.deflate)
        ]
        verified = sum(scenario.can_be_verified for scenario, _ in self.cells) if verify else 0
        self.progress = Progress(verified + len(self.cells) * results.rounds)

    def run(self) -> None:
        for note in self.results.notes:
            self.progress.say(f"*** {note}")
        if self.verify:
            for scenario, peer in self.cells:
                if scenario.can_be_verified:
                    self.one(peer, scenario, VERIFICATION)
        for round_ in range(1, self.results.rounds + 1):
            for scenario in self.results.scenarios:
                peers = [peer for s, peer in self.cells if s is scenario]
                self.order.shuffle(peers)
                for peer in peers:
                    self.one(peer, scenario, round_)

    def one(self, peer: Peer, scenario: Scenario, round_: int) -> None:
        what = f"{'round ' + str(round_) if round_ else 'verify'} · {scenario.key} · {peer.label}"
        results = self.results
        if peer.name in results.skipped:
            self.progress.did(f"{what}: skipped")
            return
        if self.is_hopeless(peer, scenario):
            self.progress.did(f"{what}: not tried again")
            return
        self.progress.doing(what)
        verify = round_ == VERIFICATION
        timing = Timing(warmup=0, seconds=0.1) if verify else results.timing
        try:
            sample = measure(peer, scenario, round_, timing, results.cores, verify)
        except Skip as skip:
            results.skipped[peer.name] = str(skip)
            self.progress.did(f"*** {peer.label} is SKIPPED: {skip}", keep=True)
            return
        results.samples.append(sample)
        if sample.error:
            self.progress.did(f"*** {what} FAILED: {sample.error}", keep=True)
        else:
            self.progress.did(f"{what}: {self.outcome(scenario, sample)}")

    def is_hopeless(self, peer: Peer, scenario: Scenario) -> bool:
        """Failed its verification, which says that its figures mean nothing, or twice."""
        failures = self.results.failures(peer.name, scenario.key)
        return len(failures) >= GIVE_UP or any(f.round == VERIFICATION for f in failures)

    @staticmethod
    def outcome(scenario: Scenario, sample: Sample) -> str:
        if sample.round == VERIFICATION:
            return f"{sample.result['count']:,} messages, every byte right"
        return f"{number(scenario.figure(sample.result))} {scenario.unit}"


def write(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results.as_json(), indent=1) + "\n")
    (folder / "results.md").write_text(markdown(results))
    (folder / "chart.svg").write_text(svg(results))


def main() -> int:
    arguments = read_arguments()
    results = prepare(arguments)
    bench = Bench(results, verify=not arguments.no_verify)
    try:
        bench.run()
    except KeyboardInterrupt:
        bench.stopped = True
        results.notes.append("STOPPED before its end: rounds are missing")
    write(results, arguments.output)
    print("\n" + markdown(results))
    print(f"Written: results.json, results.md and chart.svg in {arguments.output}")
    return 1 if results.failures() or bench.stopped else 0


if __name__ == "__main__":
    sys.exit(main())
