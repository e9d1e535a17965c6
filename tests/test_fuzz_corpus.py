"""The fuzzers' corpus, replayed without a fuzzer: what has broken once is seen here."""

from __future__ import annotations

from pathlib import Path

import pytest

import properties
from processes import ROOT

CORPUS = ROOT / "fuzz" / "corpus"
FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_kept_input(path: Path) -> None:
    check = properties.ALL[path.parent.name]
    data = path.read_bytes()
    check(data)
    # As the fuzzer would go on: cut in another way, cut short, with one bit changed.
    for seed in (0, 1, 2):
        check(data[:1] + bytes([seed]) + data[2:])
    for position in range(2, min(len(data), 200)):
        check(data[:position])
        check(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])


def test_every_property_has_a_corpus_and_a_fuzzer() -> None:
    assert {path.parent.name for path in FILES} == set(properties.ALL)
    for name in properties.ALL:
        assert f'fuzz("{name}")' in (ROOT / "fuzz" / f"fuzz_{name}.py").read_text()
