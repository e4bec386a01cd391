"""What this project promises of its policies in an outage, and a way to hold it to that.

Every target is a scenario, a policy and a limit on one number; what counts is the worst of the seeds, but
for the mean of sends per call, where a single seed's luck is larger than what is to be shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aragora_transport.policy import Policy
from aragora_transport.simulation.contenders import ours
from aragora_transport.simulation.numbers import Numbers, numbers
from aragora_transport.simulation.run import simulate
from aragora_transport.simulation.scenario import Outage, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

Measure = Callable[[Numbers], float | None]


def outage(seconds: float, *, after: float = 5.0, **keywords: object) -> Scenario:
    """Ten quiet seconds, an outage, and what follows it; 50 calls a second."""
    scenario = Scenario(seconds=10.0 + seconds + after, outages=(Outage(start=10.0, seconds=seconds),))
    return replace(scenario, **keywords)  # type: ignore[arg-type]  # checked by the scenario itself


def served(run: Numbers) -> float | None:
    """The share of the calls of the outage that were served."""
    return run.phases["during"].served


def sends_per_call(run: Numbers) -> float | None:
    """The sends that the calls of the outage cost, for each call."""
    return run.phases["during"].sends_per_call


def recovery(run: Numbers) -> float | None:
    """Seconds after the outage until all is as usual."""
    return run.recovered_after


def recovery_after_drain(run: Numbers) -> float | None:
    """Seconds after the server's queue was empty until all is as usual."""
    return run.recovered_after_drain


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """`measure` of `policy` in `scenario` is at most, or else at least, `limit`."""

    what: str
    policy: str
    scenario: Scenario
    measure: Measure
    limit: float
    at_most: bool = True
    mean: bool = False  # of the seeds, in place of the worst one


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a target's number was over the seeds; `None` is "never"."""

    target: Target
    value: float | None

    @property
    def held(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.target.limit if self.target.at_most else self.value >= self.target.limit


POLICIES: dict[str, Callable[[], Policy]] = {
    "guide": Policy,
    "recommended": Policy.recommended,
    "recommended, no circuit": lambda: replace(Policy.recommended(), breaker=None),
}


def targets(*, partial: float = 300.0, after: float = 60.0) -> list[Target]:
    """All of them. `partial`: seconds in which a share fails; `after`: seconds after a queue's outage."""
    advised = "recommended"
    three, half, dead = (
        outage(partial, severity=0.3),
        outage(partial, severity=0.5),
        outage(60.0, severity=1.0),
    )
    found = [
        Target(
            what="30 % fail: served",
            policy=advised,
            scenario=three,
            measure=served,
            limit=0.985,
            at_most=False,
        ),
        Target(
            what="30 % fail: sends per call",
            policy=advised,
            scenario=three,
            measure=sends_per_call,
            limit=1.42,
            mean=True,
        ),
        Target(
            what="50 % fail: served", policy=advised, scenario=half, measure=served, limit=0.93, at_most=False
        ),
        Target(
            what="all fail: sends per call", policy=advised, scenario=dead, measure=sends_per_call, limit=0.05
        ),
        Target(
            what="all fail: all served again after",
            policy=advised,
            scenario=dead,
            measure=recovery,
            limit=1.0,
        ),
        Target(
            what="all fail, no circuit: sends per call",
            policy="recommended, no circuit",
            scenario=dead,
            measure=sends_per_call,
            limit=1.10,
        ),
        Target(
            what="30 % fail: served",
            policy="guide",
            scenario=three,
            measure=served,
            limit=0.965,
            at_most=False,
        ),
    ]
    found += [
        Target(
            what=f"weak for {seconds} s: normal after its queue drained",
            policy=advised,
            scenario=outage(seconds, after=after, server="queue", severity=0.9),
            measure=recovery_after_drain,
            limit=3.0,
        )
        for seconds in (20, 25, 30, 35, 40)
    ]
    return found


def check(
    wanted: Sequence[Target],
    seeds: Sequence[int],
    *,
    policies: Mapping[str, Callable[[], Policy]] = POLICIES,
    progress: Callable[[str], object] = lambda _: None,
) -> Iterator[Verdict]:
    """Hold the policies to the targets; each scenario is run once for each policy and seed."""
    runs: dict[tuple[str, Scenario], list[Numbers]] = {}
    for target in wanted:
        key = (target.policy, target.scenario)
        if key not in runs:
            contender = ours(target.policy, policies[target.policy]())
            runs[key] = []
            for seed in seeds:
                progress(f"{target.policy}, {target.what}: seed {seed}")
                runs[key].append(numbers(simulate(contender, target.scenario, seed)))
        values = [target.measure(run) for run in runs[key]]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            yield Verdict(target, None)
        elif target.mean:
            yield Verdict(target, statistics.fmean(known))
        else:
            yield Verdict(target, (max if target.at_most else min)(known))
