"""What a run of the demo came to, in numbers, and as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from aragora_transport.cli._flaky_api import PHASES, phase_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aragora_transport.cli._demo_state import Run


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def summary(run: Run, name: str) -> dict[str, Any]:
    """One client's numbers. Times are of all calls, failed ones too: what callers waited for."""
    tally, lane = run.tallies[name], run.lanes[name]
    calls, sends = len(tally.outcomes), sum(lane.sends)
    times = [outcome.seconds for outcome in tally.outcomes]
    return {
        "calls": calls,
        "served": tally.served,
        "failed": tally.failed,
        "served_share": _rounded(tally.served / calls if calls else None),
        "sends": sends,
        "sends_per_call": _rounded(sends / calls if calls else None),
        "p50_seconds": _rounded(percentile(times, 0.50)),
        "p99_seconds": _rounded(percentile(times, 0.99)),
        "longest_seconds": _rounded(max(times, default=None)),
        "failures": dict(tally.failures.most_common()),
        "answers": dict(lane.fates),
        "posts_repeated": lane.posts_repeated,
        "phases": phase_numbers(run, name),
    }


def phase_numbers(run: Run, name: str) -> list[dict[str, Any]]:
    """One client's numbers by phase: calls by when they came, sends by when the server got them."""
    calls, served = [0] * len(PHASES), [0] * len(PHASES)
    for outcome in run.tallies[name].outcomes:
        index, _ = phase_at(outcome.arrival.at, run.settings.seconds)
        calls[index] += 1
        served[index] += outcome.failure is None
    return [
        {"phase": phase.name, "calls": calls[i], "served": served[i], "sends": run.lanes[name].sends[i]}
        for i, phase in enumerate(PHASES)
    ]


def as_json(run: Run, files: dict[str, str]) -> dict[str, Any]:
    """The whole result for machines."""
    settings, activity = run.settings, run.activity
    return {
        "seconds": settings.seconds,
        "rate": settings.rate,
        "seed": settings.seed,
        "policy": settings.policy,
        "interrupted": run.interrupted,
        "ours_served_more": run.ours_served_more,
        "bare": summary(run, "bare"),
        "ours": summary(run, "ours")
        | {
            "retries": activity.retries,
            "retries_refused": dict(activity.refused),
            "waits": activity.waits,
            "waited_seconds": _rounded(activity.waited),
            "circuit": activity.circuit,
            "circuit_opened": activity.opened,
        },
        "files": files,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
