"""What simulations came to: rows for a table, and the whole for machines."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aragora_transport.cli._demo_text import as_percent, as_time
from aragora_transport.simulation.numbers import median, worst
from aragora_transport.simulation.scenario import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aragora_transport.simulation.numbers import Numbers
    from aragora_transport.simulation.scenario import Scenario

Results = dict[str, list["Numbers"]]  # of each contender, one for each seed
Row = tuple[str, ...]


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _never(value: float | None) -> str:
    return "never" if value is None else as_time(value)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: where its number is, which end of the scale is bad, and how people read it."""

    label: str
    get: Callable[[Numbers], Any]
    show: Callable[[float | None], str]
    high_is_bad: bool = True


def _of_phase(phase: Any, name: str) -> Callable[[Numbers], Any]:
    return lambda run: getattr(run.phases[phase], name)


def _of_layer(layer: str, name: str) -> Callable[[Numbers], Any]:
    return lambda run: run.layers[layer][name] if run.layers is not None else None


def _metrics() -> Iterator[Metric]:
    for phase in PHASES:
        yield Metric(f"served {phase}", _of_phase(phase, "served"), as_percent, high_is_bad=False)
    for phase in PHASES:
        yield Metric(f"sends/call {phase}", _of_phase(phase, "sends_per_call"), _two_digits)
    yield Metric("peak load, sends/s", lambda run: run.peak_load, _count)
    for phase in PHASES[1:]:
        yield Metric(f"p50 wait {phase}", _of_phase(phase, "p50"), as_time)
        yield Metric(f"p99 wait {phase}", _of_phase(phase, "p99"), as_time)
    yield Metric("usual again after", lambda run: run.recovered_after, _never)


METRICS = (
    *_metrics(),
    Metric("retries", _of_layer("retry", "retries"), _count),
    Metric("retries refused", lambda run: _sum(_of_layer("retry", "refused")(run)), _count),
    Metric("circuit opened", _of_layer("breaker", "opened"), _count),
    Metric("circuit not closed", _of_layer("breaker", "open_seconds"), as_time),
    Metric("circuit refused", _of_layer("breaker", "refused"), _count),
    Metric("waits at a gate", _of_layer("rate_limit", "waits"), _count),
    Metric("attempts timed out", _of_layer("timeout", "timed_out"), _count),
)
QUEUE = Metric("its queue empty after", lambda run: run.drained_after, _never)


def _sum(counts: dict[str, int] | None) -> int | None:
    return None if counts is None else sum(counts.values())


def rows(results: Results, scenario: Scenario) -> list[Row]:
    """For each metric: its label, then the median and the worst of the seeds for each contender."""
    metrics = list(METRICS)
    if scenario.server == "queue":
        metrics.insert(metrics.index(next(m for m in METRICS if m.label == "usual again after")), QUEUE)
    found: list[Row] = []
    for metric in metrics:
        cells: list[str] = []
        for runs in results.values():
            values = [metric.get(run) for run in runs]
            told = any(value is not None for value in values) or metric.show is _never
            cells += [metric.show(v) if told else "-" for v in _median_and_worst(metric, values)]
        if any(cell != "-" for cell in cells):
            found.append((metric.label, *cells))
    return found


def _median_and_worst(metric: Metric, values: Sequence[float | None]) -> tuple[float | None, float | None]:
    return median(values), worst(values, high=metric.high_is_bad)


def as_json(results: Results, scenario: Scenario, seeds: Sequence[int]) -> dict[str, Any]:
    """All of it: the scenario, the summaries and every run."""
    return {
        "scenario": dataclasses.asdict(scenario),
        "seeds": list(seeds),
        "contenders": {
            name: {
                "median": {m.label: _rounded(median([m.get(run) for run in runs])) for m in METRICS},
                "worst": {
                    m.label: _rounded(worst([m.get(run) for run in runs], high=m.high_is_bad))
                    for m in METRICS
                },
                "runs": [
                    {"seed": seed, **_rounded(dataclasses.asdict(run))}
                    for seed, run in zip(seeds, runs, strict=True)
                ],
            }
            for name, runs in results.items()
        },
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        known = cast("dict[str, Any]", value)
        return {name: _rounded(inner) for name, inner in known.items()}
    return round(value, 4) if isinstance(value, float) and math.isfinite(value) else value
