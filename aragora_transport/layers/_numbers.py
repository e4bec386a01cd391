"""Where the metrics' numbers are kept, and how Prometheus gets them.

The only file that imports prometheus_client. The numbers are plain ones of ours (`_Numbers`) that become
metric families when Prometheus asks; under prometheus_client's multiprocess mode its own metrics keep
them (`_Children`).
"""

from __future__ import annotations

import os
import re
import reprlib
import threading
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CALL_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)  # seconds
WAIT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0, 300.0)  # seconds
ENOUGH = 1000  # calls that are kept before they are counted in one go
MAX_OPERATIONS = 100  # names per platform; more become "other"
_NAME = re.compile(r"[A-Za-z0-9_.:/\- ]{1,100}")

_OF_CALL = ("platform", "operation")
COUNTERS = {
    "platform_requests_total": ("Calls as their callers saw them.", (*_OF_CALL, "status")),
    "platform_attempts_total": ("Sends, by what came back.", (*_OF_CALL, "status")),
    "platform_retry_total": ("Sends after the first one of a call.", _OF_CALL),
    "platform_retry_success_total": ("Calls that a retry saved.", _OF_CALL),
    "platform_retry_refused_total": ("Failures that were final, by reason.", ("platform", "reason")),
    "platform_rate_limit_total": ("Attempts at the gate, allowed or blocked.", ("platform", "result")),
    "platform_label_overflow_total": ("Label values that became 'other'.", ("label",)),
    "platform_telemetry_errors_total": ("Failures to record something.", ("where",)),
}
GAUGES = {
    "platform_circuit_breaker_state": (
        "The worst circuit of the platform: 0 closed, 1 open, 2 half-open.",
        ("platform",),
    ),
}
HISTOGRAMS = {
    "platform_request_latency_seconds": (
        "From the beginning of a call to the end of its body.",
        _OF_CALL,
        CALL_BUCKETS,
    ),
    "platform_rate_limit_wait_seconds": (
        "Time that attempts were held at the gate.",
        ("platform",),
        WAIT_BUCKETS,
    ),
}


class Tally:
    """The straight calls of one operation that ended with one status."""

    __slots__ = ("_lock", "buckets", "calls", "fresh", "gated", "seconds")

    def __init__(self) -> None:
        self.fresh: deque[tuple[float, int]] = deque()  # seconds, gates passed: appended without a lock
        self._lock = threading.Lock()
        self.calls = 0
        self.gated = 0  # of them through an open gate
        self.seconds = 0.0
        self.buckets = [0] * (len(CALL_BUCKETS) + 1)  # the last one is beyond them all

    def take_in(self) -> tuple[int, int, float, list[int]]:
        """Count the fresh ones; returns calls, gated, seconds and buckets as they stand."""
        with self._lock:
            for _ in range(len(self.fresh)):  # those that are appended meanwhile are for the next time
                seconds, gated = self.fresh.popleft()
                self.calls += 1
                self.gated += gated
                self.seconds += seconds
                self.buckets[bisect_left(CALL_BUCKETS, seconds)] += 1
            return self.calls, self.gated, self.seconds, self.buckets.copy()


class Numbers(Protocol):
    """Where one registry's numbers are kept. Labels are values in the order of the family's names."""

    def add(self, family: str, labels: tuple[str, ...], amount: float = 1) -> None: ...
    def set(self, family: str, labels: tuple[str, ...], value: float) -> None: ...
    def observe(self, family: str, labels: tuple[str, ...], value: float) -> None: ...
    def operation(self, platform: str, name: str) -> str: ...
    def tally(self, platform: str, operation: str, status: int) -> Tally | None: ...


class _Operations:
    """Callers name operations, so the number of names must have an end."""

    def __init__(self) -> None:
        self._names_lock = threading.Lock()
        self._names: dict[str, set[str]] = {}

    def operation(self, platform: str, name: str) -> str:
        """The label for an operation: its name, or "other"."""
        with self._names_lock:
            known = self._names.setdefault(platform, set())
            if name in known:
                return name
            if len(known) < MAX_OPERATIONS and _NAME.fullmatch(name):
                known.add(name)
                return name
        self.add("platform_label_overflow_total", ("operation",))
        return "other"

    if TYPE_CHECKING:

        def add(self, family: str, labels: tuple[str, ...], amount: float = 1) -> None: ...


class _Numbers(_Operations):
    """Plain numbers, exact under any number of threads, collected when the registry is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._counts: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in COUNTERS}
        self._gauges: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in GAUGES}
        self._histograms: dict[str, dict[tuple[str, ...], list[float]]] = {name: {} for name in HISTOGRAMS}
        self._tallies: dict[tuple[str, str, str], Tally] = {}
        registry.register(self)

    def add(self, family: str, labels: tuple[str, ...], amount: float = 1) -> None:
        with self._lock:
            _add(self._counts[family], labels, amount)

    def set(self, family: str, labels: tuple[str, ...], value: float) -> None:
        with self._lock:
            self._gauges[family][labels] = value

    def observe(self, family: str, labels: tuple[str, ...], value: float) -> None:
        bounds = HISTOGRAMS[family][2]
        with self._lock:
            found = self._histograms[family].setdefault(labels, [0.0] * (len(bounds) + 2))
            found[bisect_left(bounds, value)] += 1
            found[-1] += value

    def tally(self, platform: str, operation: str, status: int) -> Tally:
        key = (platform, operation, str(status))
        with self._lock:
            return self._tallies.setdefault(key, Tally())

    def describe(self) -> Iterator[Metric]:
        """The families' names, for the registry; asked for before there is any number."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """The families as they stand now."""
        from prometheus_client import metrics_core  # noqa: PLC0415  # see numbers_of

        with self._lock:
            counts = {name: found.copy() for name, found in self._counts.items()}
            histograms = {
                name: {labels: list(found) for labels, found in families.items()}
                for name, families in self._histograms.items()
            }
            gauges = {name: found.copy() for name, found in self._gauges.items()}
            tallies = list(self._tallies.items())
        for labels, tally in tallies:
            _take_in(tally, labels, counts, histograms["platform_request_latency_seconds"])
        for name, (help_, names) in COUNTERS.items():
            yield _filled(metrics_core.CounterMetricFamily(name, help_, labels=names), counts[name])
        for name, (help_, names) in GAUGES.items():
            yield _filled(metrics_core.GaugeMetricFamily(name, help_, labels=names), gauges[name])
        for name, (help_, names, bounds) in HISTOGRAMS.items():
            histogram = metrics_core.HistogramMetricFamily(name, help_, labels=names)
            for key, found in histograms[name].items():
                histogram.add_metric(key, _cumulative(bounds, found), sum_value=found[-1])
            yield histogram


def _filled(family: Any, values: dict[tuple[str, ...], float]) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    filled: Metric = family
    return filled


def _add(found: dict[tuple[str, ...], float], labels: tuple[str, ...], amount: float) -> None:
    found[labels] = found.get(labels, 0) + amount


def _take_in(
    tally: Tally,
    labels: tuple[str, str, str],
    counts: dict[str, dict[tuple[str, ...], float]],
    latency: dict[tuple[str, ...], list[float]],
) -> None:
    calls, gated, seconds, buckets = tally.take_in()
    if not calls:
        return
    _add(counts["platform_requests_total"], labels, calls)
    _add(counts["platform_attempts_total"], labels, calls)
    if gated:
        _add(counts["platform_rate_limit_total"], (labels[0], "allowed"), gated)
    found = latency.setdefault(labels[:2], [0.0] * (len(CALL_BUCKETS) + 2))
    for place, number in enumerate(buckets):
        found[place] += number
    found[-1] += seconds


def _cumulative(bounds: tuple[float, ...], found: list[float]) -> list[tuple[str, float]]:
    total = 0.0
    buckets: list[tuple[str, float]] = []
    for bound, number in zip((*map(str, bounds), "+Inf"), found, strict=False):
        total += number
        buckets.append((bound, total))
    return buckets


class _Children(_Operations):
    """prometheus_client's own metrics, which write to files that all processes share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415  # see numbers_of

        super().__init__()
        self._families: dict[str, Any] = {
            **{
                name: Counter(name, help_, names, registry=registry)
                for name, (help_, names) in COUNTERS.items()
            },
            # One series per process: no sum or maximum of state codes means anything.
            **{
                name: Gauge(name, help_, names, registry=registry, multiprocess_mode="liveall")
                for name, (help_, names) in GAUGES.items()
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

    def observe(self, family: str, labels: tuple[str, ...], value: float) -> None:
        self._child(family, labels).observe(value)

    def tally(self, platform: str, operation: str, status: int) -> None:
        """None: every call has to reach the shared files."""


_known: WeakKeyDictionary[Any, Numbers] = WeakKeyDictionary()
_known_lock = threading.Lock()


def numbers_of(registry: CollectorRegistry | None = None) -> Numbers:
    """The one set of numbers of a registry; it would refuse a second one as a duplicate."""
    # Not loaded by those who switch metrics off.
    from prometheus_client import REGISTRY, CollectorRegistry  # noqa: PLC0415

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
