"""When calls come: open-loop, at random times whose density follows a pattern."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aragora_transport.simulation.scenario import Arrivals, Scenario

BURST_EVERY = 10.0  # seconds
BURST = 5.0  # times the mean rate, for one second: half of all calls
SWING = 0.8  # how far a day's rate goes from its mean, as a share of it


def arrivals(scenario: Scenario, rng: Random) -> Iterator[float]:
    """The times of the calls in order, a Poisson process (by thinning one of the highest rate)."""
    highest = scenario.rate * _HIGHEST[scenario.arrivals]
    at = rng.expovariate(highest)
    while at < scenario.seconds:
        if rng.random() * highest < scenario.rate * density(scenario.arrivals, at, scenario.seconds):
            yield at
        at += rng.expovariate(highest)


def density(pattern: Arrivals, at: float, seconds: float) -> float:
    """The rate at a time, in terms of the mean rate."""
    if pattern == "burst":
        return BURST if at % BURST_EVERY < 1.0 else (BURST_EVERY - BURST) / (BURST_EVERY - 1.0)
    if pattern == "diurnal":
        return 1.0 - SWING * math.cos(2.0 * math.pi * at / seconds)
    return 1.0


_HIGHEST = {"steady": 1.0, "burst": BURST, "diurnal": 1.0 + SWING}
