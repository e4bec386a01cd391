"""What happens in a simulation: who calls how often, what answers, and when it is unwell."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

Arrivals = Literal["steady", "burst", "diurnal"]
ServerKind = Literal["failing", "queue", "limited", "slow", "bodies"]
Phase = Literal["before", "during", "after"]

ARRIVALS: tuple[str, ...] = get_args(Arrivals)
SERVERS: tuple[str, ...] = get_args(ServerKind)
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outage:
    """The server is unwell from `start` on, for `seconds`."""

    start: float
    seconds: float

    def __post_init__(self) -> None:
        if not (0 <= self.start < math.inf and 0 < self.seconds < math.inf):
            raise ValueError(
                f"an outage of {self.seconds:g} s from {self.start:g} s on: it must begin at 0 s or later "
                "and last for more than 0 s"
            )

    @property
    def end(self) -> float:
        return self.start + self.seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One kind of day. All times are seconds.

    `server`, and what `severity` (0 to 1) takes from it in an outage:
        "failing": that share of its answers is a 503.
        "queue": it serves one request after the other, `capacity` a second, and loses that share of them.
            It does not notice that a caller has gone, and works for it all the same.
        "limited": beyond `capacity` a second, of which it loses that share, it answers 429 with a wait.
        "slow": that share of its answers takes `slow` seconds.
        "bodies": bodies take `body` seconds, and that share of them breaks off halfway.
    `latency`: of an ordinary answer, in the mean; each takes half to one and a half of it.
    `rate`: calls a second in the mean, at random times, whether or not earlier ones are done.
    `arrivals`: "steady"; "burst": half of all calls in the first second of every ten; "diurnal": a
        day's rise and fall, from a fifth of the mean to nine fifths, over the length of the run.
    `processes`: so many clients share the calls, each with circuits, gates and a budget of its own.
    `client_timeout`: httpx's own timeout (its default is 5 s); `None` for none.
    """

    server: ServerKind = "failing"
    severity: float = 1.0
    capacity: float = 100.0
    latency: float = 0.05
    slow: float = 20.0
    body: float = 2.0
    rate: float = 50.0
    arrivals: Arrivals = "steady"
    seconds: float = 60.0
    outages: tuple[Outage, ...] = (Outage(start=10.0, seconds=30.0),)
    processes: int = 1
    client_timeout: float | None = 5.0

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("server", self.server, SERVERS),
            ("arrivals", self.arrivals, ARRIVALS),
        ):
            if value not in choices:
                raise ValueError(f"{name} {value!r} must be one of {', '.join(choices)}")
        if not 0 <= self.severity <= 1:
            raise ValueError(f"severity {self.severity!r} must be a share from 0 to 1")
        for name in ("capacity", "latency", "slow", "body", "rate", "seconds", "processes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)!r} must be above 0")
        late = [outage for outage in self.outages if outage.end >= self.seconds]
        if late:
            raise ValueError(
                f"the outage of {late[0].seconds:g} s from {late[0].start:g} s on must end before the run "
                f"does, at {self.seconds:g} s; make the run longer"
            )
        ordered = sorted(self.outages, key=lambda outage: outage.start)
        if any(one.end > following.start for one, following in itertools.pairwise(ordered)):
            raise ValueError("two outages overlap; make one of them")
        object.__setattr__(self, "outages", tuple(ordered))

    def severity_at(self, at: float) -> float:
        """The severity then: 0 outside of outages."""
        return self.severity if self.phase_at(at) == "during" else 0.0

    def phase_at(self, at: float) -> Phase:
        """Before the first outage, during one, or after one."""
        phase: Phase = "before"
        for outage in self.outages:
            if at < outage.start:
                break
            phase = "during" if at < outage.end else "after"
        return phase

    @property
    def last_end(self) -> float | None:
        """When the last outage is over."""
        return self.outages[-1].end if self.outages else None

    @property
    def usual(self) -> float:
        """How long a call takes when all is well, at most."""
        return 1.5 * self.latency + (self.body if self.server == "bodies" else 0.0)
