"""Measuring small differences on a noisy machine.

Every case is run in short batches of CPU time of this thread, all cases interleaved in a fresh random
order each round, with a batch of the bare case right before and right after each: a machine that slows down
for a while slows down all three.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Batch = Callable[[int], object]  # does the thing so many times
Tell = Callable[[int, int], object]  # told how many steps of how many are done

CONTROL = "control"  # the bare case against itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much to measure: `rounds` of all cases, each with `batch` requests; so many `in_flight` at once."""

    rounds: int
    batch: int
    in_flight: int


FULL = Effort(rounds=40, batch=1000, in_flight=10_000)  # what is done once for 250 calls is in every batch
QUICK = Effort(rounds=10, batch=50, in_flight=1_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    """What a case adds to the bare one, in microseconds of CPU time per request.

    `quiet`: how far the 10th percentile of its batches lies above that of the bare batches around them,
    `bare`: both as they are while nobody else uses the machine. `p10`, `median`: 10th percentile and median
    of the differences, batch by batch; noise draws the first one down, as that of the control shows.
    """

    quiet: float
    p10: float
    median: float
    bare: float

    @property
    def total(self) -> float:
        """The whole case."""
        return self.bare + self.quiet

    @property
    def ratio(self) -> float:
        """The whole case as a multiple of the bare one."""
        return self.total / self.bare


def measure(
    bare: Batch,
    cases: Mapping[str, Batch],
    effort: Effort,
    *,
    tell: Tell,
    seed: int = 0,
    clock: Callable[[], int] = time.thread_time_ns,
) -> dict[str, Added]:
    """Each case against `bare`, in the order given; before them `bare` itself, as the control."""
    rng = random.Random(seed)
    everything = {CONTROL: bare, **cases}
    batches: dict[str, list[float]] = {name: [] for name in everything}
    differences: dict[str, list[float]] = {name: [] for name in everything}
    bares: dict[str, list[float]] = {name: [] for name in everything}

    def microseconds(run: Batch) -> float:
        began = clock()
        run(effort.batch)
        return (clock() - began) / effort.batch / 1e3

    for run in everything.values():
        run(effort.batch)  # warm up
    for done in range(effort.rounds):
        names = list(everything)
        rng.shuffle(names)
        gc.collect()
        gc.disable()
        try:
            for name in names:
                before = microseconds(bare)
                seen = microseconds(everything[name])
                after = microseconds(bare)
                batches[name].append(seen)
                differences[name].append(seen - (before + after) / 2)
                bares[name] += (before, after)
        finally:
            gc.enable()
        tell(done + 1, effort.rounds)
    lowest = {name: percentile(bares[name], 10) for name in everything}
    return {
        name: Added(
            quiet=percentile(batches[name], 10) - lowest[name],
            p10=percentile(differences[name], 10),
            median=statistics.median(differences[name]),
            bare=lowest[name],
        )
        for name in everything
    }


def percentile(values: list[float], percent: int) -> float:
    """The value below which so many percent lie, between two where it falls between them."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
