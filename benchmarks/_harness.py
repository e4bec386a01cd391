"""Measuring small differences on a noisy machine.

Every case is run in short batches of CPU time of this thread, all cases interleaved in a fresh random
order each round, with a batch of the bare case right before and right after each. What counts is the
difference to the mean of those two: a machine that slows down for a while slows down all three.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Batch = Callable[[int], None]  # does the thing so many times


@dataclass(frozen=True, kw_only=True)
class Added:
    """What a case adds to the bare one, in microseconds of CPU time per request."""

    name: str
    p10: float
    median: float
    bare: float  # median of the bare batches around it

    @property
    def ratio(self) -> float:
        return (self.bare + self.median) / self.bare


def measure(
    bare: Batch,
    cases: dict[str, Batch],
    *,
    rounds: int,
    batch: int,
    seed: int = 0,
    progress: Callable[[int, int], object] = lambda _done, _all: None,
) -> list[Added]:
    """Each case against `bare`, in the order given. `bare` itself is measured as "control"."""
    rng = random.Random(seed)
    everything = {"control": bare, **cases}
    differences: dict[str, list[float]] = {name: [] for name in everything}
    bares: dict[str, list[float]] = {name: [] for name in everything}
    for run in everything.values():
        run(batch)  # warm up
    for round_ in range(rounds):
        names = list(everything)
        rng.shuffle(names)
        gc.collect()
        gc.disable()
        try:
            for name in names:
                before = _seconds(bare, batch)
                seconds = _seconds(everything[name], batch)
                after = _seconds(bare, batch)
                around = (before + after) / 2
                differences[name].append((seconds - around) / batch * 1e6)
                bares[name].append(around / batch * 1e6)
        finally:
            gc.enable()
        progress(round_ + 1, rounds)
    return [
        Added(
            name=name,
            p10=_percentile(differences[name], 10),
            median=statistics.median(differences[name]),
            bare=statistics.median(bares[name]),
        )
        for name in everything
    ]


def _seconds(run: Batch, batch: int) -> float:
    began = time.thread_time_ns()
    run(batch)
    return (time.thread_time_ns() - began) / 1e9


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
