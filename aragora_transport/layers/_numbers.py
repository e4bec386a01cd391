"""Where the metrics' numbers are kept, and how Prometheus gets them.

The only file that imports prometheus_client. The numbers are plain ones of ours (`_Numbers`) that become
metric families when Prometheus asks; under prometheus_client's multiprocess mode its own metrics keep
them (`_Children`).
"""

from __future__ import annotations

import math
import os
import re
import reprlib
import threading
import time
from bisect import bisect_left, bisect_right
from collections import Counter as Bag
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from aragora_transport._notes import Count, Notes
from aragora_transport.layers._families import (
    CALL_BUCKETS,
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    MAX_NAMES,
    STATES,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from aragora_transport._circuits import Circuits

_NAME = re.compile(r"[A-Za-z0-9_.:/\- ]{1,100}")
_Traces = dict[int, tuple[str, float, float]]  # by bucket the last trace seen in it, its value and when


REFUSED = "circuit_open"  # the status of calls that were not sent, since their circuit was open


class Tally(Notes):
    """The straight calls of one operation that ended with one status, after so many open gates.

    What is noted of each are its seconds.
    """

    def __init__(self, gates: int) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self.calls = 0
        self.gates = gates  # that each of them passed
        self.seconds = 0.0
        self.buckets = [0] * (len(CALL_BUCKETS) + 1)  # the last one is beyond them all

    def take_in(self) -> tuple[int, float, list[int]]:
        """Count the fresh ones; returns calls, seconds and buckets as they stand."""
        with self._lock:
            fresh = self.take()
            self.calls += len(fresh)
            self.seconds += sum(fresh)
            begin = 0
            for place, bound in enumerate((*CALL_BUCKETS, math.inf)):
                end = bisect_right(fresh, bound, begin)
                self.buckets[place] += end - begin
                begin = end
            return self.calls, self.seconds, self.buckets.copy()


class Numbers(Protocol):
    """Where one registry's numbers are kept. Labels are values in the order of the family's names."""

    def add(self, family: str, labels: tuple[str, ...], amount: float = 1) -> None: ...
    def set(self, family: str, labels: tuple[str, ...], value: float) -> None: ...
    def observe(
        self, family: str, labels: tuple[str, ...], value: float, trace: str | None = None
    ) -> None: ...
    def name(self, label: str, platform: str, name: str) -> str: ...
    def tally(self, platform: str, operation: str, status: int | str, gates: int) -> Tally | None: ...
    def begun(self, platform: str) -> Callable[[], object]: ...
    def ended(self, platform: str) -> None: ...
    def watch(self, platform: str, circuits: Circuits) -> None: ...
    def show_circuits(self, platform: str, worst: str) -> None: ...


class _Shared:
    """What both kinds of numbers do alike: the names that become labels, and the circuits of a platform."""

    def __init__(self) -> None:
        self._names_lock = threading.Lock()
        self._names: dict[tuple[str, str], set[str]] = {}
        self._watched: dict[str, WeakSet[Circuits]] = {}

    def name(self, label: str, platform: str, name: str) -> str:
        """The name as a value of the label, or "other": callers and platforms name things without an end."""
        with self._names_lock:
            known = self._names.setdefault((label, platform), set())
            if name in known:
                return name
            if len(known) < MAX_NAMES and _NAME.fullmatch(name):
                known.add(name)
                return name
        self.add("platform_label_overflow_total", (label,))
        return "other"

    def watch(self, platform: str, circuits: Circuits) -> None:
        """Show these circuits, too, for as long as there is somebody who uses them."""
        self._watched.setdefault(platform, WeakSet()).add(circuits)

    def show_circuits(self, platform: str, worst: str) -> None:
        """How many circuits are in each state, and the worst of all; `worst` where none are watched."""
        watched = self._watched.get(platform)
        if watched is not None:
            counted = _counted(watched)
            for state in STATES:
                self.set("platform_circuit_breaker_circuits", (platform, state), counted[state])
            worst = _worst(counted)
        self.set("platform_circuit_breaker_state", (platform,), STATES[worst])

    if TYPE_CHECKING:

        def add(self, family: str, labels: tuple[str, ...], amount: float = 1) -> None: ...
        def set(self, family: str, labels: tuple[str, ...], value: float) -> None: ...


def _counted(watched: Iterable[Circuits]) -> Bag[str]:
    return Bag(state for circuits in list(watched) for state in circuits.states())


def _worst(counted: Bag[str]) -> str:
    return next((state for state in ("open", "half-open") if counted[state]), "closed")


class _Numbers(_Shared):
    """Plain numbers, exact under any number of threads, collected when the registry is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._counts: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in COUNTERS}
        self._gauges: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in GAUGES}
        self._histograms: dict[str, dict[tuple[str, ...], list[float]]] = {name: {} for name in HISTOGRAMS}
        self._traces: dict[str, dict[tuple[str, ...], _Traces]] = {name: {} for name in HISTOGRAMS}
        self._tallies: dict[tuple[str, str, str, int], Tally] = {}
        self._begun: dict[str, Count] = {}
        registry.register(self)

    def add(self, family: str, labels: tuple[str, ...], amount: float = 1) -> None:
        with self._lock:
            _add(self._counts[family], labels, amount)

    def set(self, family: str, labels: tuple[str, ...], value: float) -> None:
        with self._lock:
            self._gauges[family][labels] = value

    def observe(self, family: str, labels: tuple[str, ...], value: float, trace: str | None = None) -> None:
        bounds = HISTOGRAMS[family][2]
        place = bisect_left(bounds, value)
        with self._lock:
            found = self._histograms[family].setdefault(labels, [0.0] * (len(bounds) + 2))
            found[place] += 1
            found[-1] += value
            if trace is not None:
                self._traces[family].setdefault(labels, {})[place] = (trace, value, time.time())

    def tally(self, platform: str, operation: str, status: int | str, gates: int) -> Tally:
        key = (platform, operation, str(status), gates)
        with self._lock:
            return self._tallies.setdefault(key, Tally(gates))

    def begun(self, platform: str) -> Callable[[], object]:
        """What to call when a call begins."""
        with self._lock:
            return self._begun.setdefault(platform, Count()).one

    def ended(self, platform: str) -> None:
        """Nothing: a call that has ended is one of those in `platform_requests_total`."""

    def describe(self) -> Iterator[Metric]:
        """The families' names, for the registry; asked for before there is any number."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """The families as they stand now."""
        from prometheus_client import metrics_core  # noqa: PLC0415  # see numbers_of

        for platform in list(self._watched):
            self.show_circuits(platform, "closed")
        with self._lock:
            begun = {platform: begun.so_far() for platform, begun in self._begun.items()}
            counts = {name: found.copy() for name, found in self._counts.items()}
            histograms = {
                name: {labels: list(found) for labels, found in families.items()}
                for name, families in self._histograms.items()
            }
            traces = {
                name: {labels: found.copy() for labels, found in families.items()}
                for name, families in self._traces.items()
            }
            gauges = {name: found.copy() for name, found in self._gauges.items()}
            tallies = list(self._tallies.items())
        for (*labels, _), tally in tallies:
            _take_in(tally, tuple(labels), counts, histograms)
        gauges["platform_requests_in_flight"] = _in_flight(begun, counts["platform_requests_total"])
        for name, (help_, names) in COUNTERS.items():
            yield _filled(metrics_core.CounterMetricFamily(name, help_, labels=names), counts[name])
        for name, (help_, names, _) in GAUGES.items():
            yield _filled(metrics_core.GaugeMetricFamily(name, help_, labels=names), gauges[name])
        for name, (help_, names, bounds) in HISTOGRAMS.items():
            histogram = metrics_core.HistogramMetricFamily(name, help_, labels=names)
            for key, found in histograms[name].items():
                buckets = _cumulative(bounds, found, traces[name].get(key, {}))
                histogram.add_metric(key, buckets, sum_value=found[-1])
            yield histogram


def _in_flight(begun: dict[str, int], requests: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Those that began and have not ended. Some may have begun and ended since `begun` was read."""
    flying: dict[tuple[str, ...], float] = {(platform,): number for platform, number in begun.items()}
    for (platform, *_), number in requests.items():
        flying[platform,] -= number
    return {labels: max(0, number) for labels, number in flying.items()}


def _filled(family: Any, values: dict[tuple[str, ...], float]) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    filled: Metric = family
    return filled


def _add(found: dict[tuple[str, ...], float], labels: tuple[str, ...], amount: float) -> None:
    found[labels] = found.get(labels, 0) + amount


def _take_in(
    tally: Tally,
    labels: tuple[str, ...],
    counts: dict[str, dict[tuple[str, ...], float]],
    histograms: dict[str, dict[tuple[str, ...], list[float]]],
) -> None:
    calls, seconds, buckets = tally.take_in()
    if not calls:
        return
    _add(counts["platform_requests_total"], labels, calls)
    latencies = ["platform_request_latency_seconds"]
    if labels[2] != REFUSED:  # these were sent
        _add(counts["platform_attempts_total"], labels, calls)
        latencies.append("platform_attempt_latency_seconds")
    if tally.gates:
        _add(counts["platform_rate_limit_total"], (labels[0], "allowed"), calls * tally.gates)
    for family in latencies:
        found = histograms[family].setdefault(labels[:2], [0.0] * (len(CALL_BUCKETS) + 2))
        for place, number in enumerate(buckets):
            found[place] += number
        found[-1] += seconds


def _cumulative(bounds: tuple[float, ...], found: list[float], traces: _Traces) -> list[Any]:
    from prometheus_client.samples import Exemplar  # noqa: PLC0415  # see numbers_of

    total = 0.0
    buckets: list[Any] = []
    for place, (bound, number) in enumerate(zip((*map(str, bounds), "+Inf"), found, strict=False)):
        total += number
        if place in traces:
            trace, value, at = traces[place]
            buckets.append((bound, total, Exemplar({"trace_id": trace}, value, at)))
        else:
            buckets.append((bound, total))
    return buckets


class _Children(_Shared):
    """prometheus_client's own metrics, which write to files that all processes share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415  # see numbers_of

        super().__init__()
        self._families: dict[str, Any] = {
            **{
                name: Counter(name, help_, names, registry=registry)
                for name, (help_, names) in COUNTERS.items()
            },
            **{
                name: Gauge(name, help_, names, registry=registry, multiprocess_mode=mode)
                for name, (help_, names, mode) in GAUGES.items()
            },
            **{
                name: Histogram(name, help_, names, registry=registry, buckets=bounds)
                for name, (help_, names, bounds) in HISTOGRAMS.items()
            },
        }
        self._children: dict[tuple[str, ...], Any] = {}  # `.labels()` costs more than everything else here

    def _child(self, family: str, labels: tuple[str, ...]) -> Any:
        key = (family, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._families[family].labels(*labels)
        return child

    def add(self, family: str, labels: tuple[str, ...], amount: float = 1) -> None:
        self._child(family, labels).inc(amount)

    def set(self, family: str, labels: tuple[str, ...], value: float) -> None:
        self._child(family, labels).set(value)

    def observe(
        self,
        family: str,
        labels: tuple[str, ...],
        value: float,
        trace: str | None = None,  # noqa: ARG002  # its files hold no exemplars
    ) -> None:
        self._child(family, labels).observe(value)

    def begun(self, platform: str) -> Callable[[], object]:
        inc: Callable[[], object] = self._child("platform_requests_in_flight", (platform,)).inc
        return inc

    def ended(self, platform: str) -> None:
        self._child("platform_requests_in_flight", (platform,)).dec()

    def tally(self, platform: str, operation: str, status: int | str, gates: int) -> None:
        """None: every call has to reach the shared files."""


_known: WeakKeyDictionary[Any, Numbers] = WeakKeyDictionary()
_known_lock = threading.Lock()


def numbers_of(registry: CollectorRegistry | None = None) -> Numbers:
    """The one set of numbers of a registry; it would refuse a second one as a duplicate."""
    # Not loaded by those who switch metrics off.
    from prometheus_client import REGISTRY, CollectorRegistry  # noqa: PLC0415  # as above

    chosen: Any = REGISTRY if registry is None else registry
    if not isinstance(chosen, CollectorRegistry):
        raise TypeError(f"registry={reprlib.repr(chosen)} must be a prometheus_client.CollectorRegistry")
    with _known_lock:
        known = _known.get(chosen)
        if known is None:
            shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ  # how prometheus_client itself decides
            try:
                known = _known[chosen] = _Children(chosen) if shared else _Numbers(chosen)
            except ValueError as error:
                raise ValueError(
                    f"the registry has a metric by a name of ours already ({error}); give another registry=, "
                    "or metrics=False in the Policy"
                ) from error
        return known
