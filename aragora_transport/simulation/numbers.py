"""What a run comes to in numbers, and what many runs come to: the median and the worst of them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aragora_transport.simulation.scenario import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aragora_transport.simulation.run import Call, Deeds, Run
    from aragora_transport.simulation.scenario import Phase

LATE = 1.0  # seconds beyond the usual time, after which an answer is none that somebody calls normal
_LAST = 1.0  # seconds of the run in which nothing may go wrong any more for it to count as recovered


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseNumbers:
    """Calls by when they came. `None` where none came. Waits are of all calls, failed ones too."""

    calls: int
    served: float | None
    sends_per_call: float | None
    p50: float | None
    p99: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """One run. Shares from 0 to 1, times in seconds.

    `peak_load`: the most sends in one second. `recovered_after`: from the end of the last outage until
    every call that comes is served, and in no more than a second beyond the usual time; `None` if not
    within the run. `drained_after`: from there until the server's queue was empty, for a queue.
    """

    phases: dict[Phase, PhaseNumbers]
    calls: int
    served: float | None
    sends_per_call: float | None
    peak_load: int
    recovered_after: float | None
    drained_after: float | None
    failures: dict[str, int]
    layers: dict[str, Any] | None

    @property
    def recovered_after_drain(self) -> float | None:
        """From when the queue was empty until calls are served as usual."""
        if self.recovered_after is None or self.drained_after is None:
            return None
        return max(0.0, self.recovered_after - self.drained_after)


def numbers(run: Run) -> Numbers:
    """One run in numbers."""
    of_phase: dict[Phase, list[Call]] = {phase: [] for phase in PHASES}
    for call in run.calls:
        of_phase[run.scenario.phase_at(call.at)].append(call)
    whole = _phase(run.calls)
    end, drained = run.scenario.last_end, run.server.drained()
    return Numbers(
        phases={phase: _phase(calls) for phase, calls in of_phase.items()},
        calls=whole.calls,
        served=whole.served,
        sends_per_call=whole.sends_per_call,
        peak_load=max(Counter(map(int, run.server.sends)).values(), default=0),
        recovered_after=_recovered_after(run),
        drained_after=None if end is None or drained is None else drained - end,
        failures=dict(Counter(call.failure for call in run.calls if call.failure is not None).most_common()),
        layers=_layers(run) if run.deeds else None,
    )


def _phase(calls: Sequence[Call]) -> PhaseNumbers:
    count = len(calls)
    if not count:
        return PhaseNumbers(calls=0, served=None, sends_per_call=None, p50=None, p99=None)
    waits = sorted(call.seconds for call in calls)
    return PhaseNumbers(
        calls=count,
        served=sum(call.failure is None for call in calls) / count,
        sends_per_call=sum(call.sends for call in calls) / count,
        p50=waits[math.ceil(0.50 * count) - 1],
        p99=waits[math.ceil(0.99 * count) - 1],
    )


def _recovered_after(run: Run) -> float | None:
    end = run.scenario.last_end
    if end is None:
        return None
    late = run.scenario.usual + LATE
    wrong = [
        call.at for call in run.calls if call.at >= end and (call.failure is not None or call.seconds > late)
    ]
    if not wrong:
        return 0.0
    return None if wrong[-1] >= run.scenario.seconds - _LAST else wrong[-1] - end


def _layers(run: Run) -> dict[str, Any]:
    """What each layer did, of all processes together."""
    refused: Counter[str] = Counter()
    for told in run.deeds:
        refused.update(told.refused)
    changes = [change for told in run.deeds for change in told.circuit]
    return {
        "retry": {
            "retries": sum(told.retries for told in run.deeds),
            "refused": dict(sorted(refused.items())),
        },
        "rate_limit": {
            "waits": sum(told.gate_waits for told in run.deeds),
            "seconds": sum(told.gate_seconds for told in run.deeds),
            "refused": sum(told.gate_refusals for told in run.deeds),
        },
        "breaker": {
            "opened": sum(new == "open" for _, new in changes),
            "open_seconds": sum(open_seconds(told, run.scenario.seconds) for told in run.deeds)
            / len(run.deeds),
            "refused": sum(call.failure == "CircuitOpenError" for call in run.calls),
        },
        "timeout": {"timed_out": sum(told.timed_out for told in run.deeds)},
    }


def open_seconds(told: Deeds, until: float) -> float:
    """How long the circuit of a process was not closed, up to a time."""
    total, since = 0.0, None
    for at, new in [*told.circuit, (until, "closed")]:
        if new == "closed":
            total += 0.0 if since is None else max(0.0, min(at, until) - since)
            since = None
        elif since is None:
            since = at
    return total


def median(values: Sequence[float | None]) -> float | None:
    """The median, where "never" (`None`) is more than any number."""
    return _of(values, statistics.median_low)


def worst(values: Sequence[float | None], *, high: bool) -> float | None:
    """The worst: the highest, or else the lowest."""
    return _of(values, max if high else min)


def _of(values: Sequence[float | None], choose: Callable[[list[float]], float]) -> float | None:
    chosen = choose([math.inf if value is None else value for value in values])
    return None if chosen == math.inf else chosen
