"""Medians, spreads, and ratios with their confidence intervals."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

RESAMPLES = 5000


@dataclass(frozen=True)
class Figure:
    """A median and half of the distance from the least to the greatest value."""

    median: float
    spread: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        return cls(median(values), (max(values) - min(values)) / 2, len(values))

    @property
    def percent(self) -> float:
        return 100 * self.spread / self.median if self.median else 0.0


@dataclass(frozen=True)
class Ratio:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: dict[int, float], theirs: dict[int, float]) -> Ratio | None:
        """Of the values of the same rounds, which saw the same machine; the interval
        is the 95 % percentile bootstrap of the median of the rounds' ratios."""
        ratios = [ours[r] / theirs[r] for r in ours if theirs.get(r, 0) > 0]
        if not ratios:
            return None
        generator = random.Random(1)  # the same data give the same interval
        medians = sorted(median(generator.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
        edge = RESAMPLES * 25 // 1000
        return cls(median(ratios), medians[edge], medians[-1 - edge])
