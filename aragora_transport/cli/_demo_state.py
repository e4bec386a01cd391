"""The state of a run of the demo: what was asked for, and what is known of it so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aragora_transport.cli._demo_server import LaneReport
from aragora_transport.cli._demo_traffic import Tally
from aragora_transport.cli._flaky_api import LANES, phase_at
from aragora_transport.events import (
    AttemptFinished,
    CircuitChanged,
    RateLimitWaited,
    RetryRefused,
    RetryScheduled,
)

if TYPE_CHECKING:
    from aragora_transport.events import Event


_NEVER_SENT = ("CircuitOpenError", "RateLimitedError")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the user asked for."""

    seconds: float
    rate: float
    seed: int
    policy: str


class Activity:
    """What our stack told through `on_event`: the side of it that callers do not see."""

    def __init__(self) -> None:
        self.retries = 0
        self.refused: Counter[str] = Counter()
        self.waits = 0
        self.waited = 0.0
        self.circuit = "closed"
        self.opened = 0

    def __call__(self, event: Event) -> None:
        """Observe one event."""
        match event:
            case AttemptFinished(attempt=attempt, error=error):
                self.retries += attempt > 1 and error not in _NEVER_SENT
            case RetryScheduled(told=False):  # a told wait is the gate's, which tells of it itself
                self._wait(event.wait)
            case RateLimitWaited(refused=False):
                self._wait(event.seconds)
            case RetryRefused():
                self.refused[event.reason] += 1
            case CircuitChanged():
                self.circuit = event.new
                self.opened += event.new == "open"
            case _:
                pass

    def _wait(self, seconds: float) -> None:
        self.waits += 1
        self.waited += seconds


@dataclass(kw_only=True)
class Run:
    """A run while it goes on and when it is over. `lanes` is the server's latest report."""

    settings: Settings
    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in LANES})
    lanes: dict[str, LaneReport] = field(default_factory=lambda: dict.fromkeys(LANES, LaneReport()))
    activity: Activity = field(default_factory=Activity)
    elapsed: float = 0.0
    next_probe_in: float | None = None
    interrupted: bool = False

    @property
    def phase(self) -> tuple[int, float]:
        """The phase of this moment, and how far it has gone."""
        return phase_at(self.elapsed, self.settings.seconds)

    @property
    def ours_served_more(self) -> bool:
        """What the exit status tells."""
        return self.tallies["ours"].served > self.tallies["bare"].served

    @property
    def has_calls(self) -> bool:
        """Whether there is anything to tell of."""
        return all(tally.outcomes for tally in self.tallies.values())
