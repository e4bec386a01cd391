"""A circuit's stays in its states, and the permits that they give."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections import deque

    from aragora_transport._call import Hook
    from aragora_transport.events import CircuitState

CLOSED: CircuitState = "closed"
OPEN: CircuitState = "open"
HALF_OPEN: CircuitState = "half-open"


class Era:
    """One stay in one state. That of a closed circuit is the permit of every attempt it lets through.

    An outcome counts only while its era lasts, so that a late result moves no later state.
    """

    __slots__ = ("closed", "free", "hooks", "polls", "probes", "reopens_at", "state")

    def __init__(self, state: CircuitState, reopens_at: float = 0.0, *, shared: bool = False) -> None:
        self.state: CircuitState = state
        self.closed = state == CLOSED
        self.free = self.closed and not shared  # nobody need ask to be let through
        self.hooks: tuple[Hook, ...] = ()  # the breaker's, for the bodies of what this era let through
        self.probes: list[Probe] = []  # under way, the oldest first
        self.polls: list[Probe] = []  # long polls among them, which must not hold up the others
        self.reopens_at = reopens_at  # when an open circuit lets a probe through


class Probe:
    """The permit of one attempt while half-open: one place of its own, until it is settled or too old."""

    __slots__ = ("era", "since")

    closed = free = False
    hooks: tuple[Hook, ...] = ()  # never kept: each has one of its own

    def __init__(self, era: Era, since: float) -> None:
        self.era = era
        self.since = since

    def give_back(self) -> None:
        for places in (self.era.probes, self.era.polls):
            if self in places:
                places.remove(self)


Permit = Era | Probe


class Change(NamedTuple):
    """One transition of one circuit, with what it looked like right after."""

    key: str
    old: CircuitState
    new: CircuitState
    failures: int
    next_probe_in: float | None
    cause: str | None


def take_all(changes: deque[Change]) -> list[Change]:
    """The changes, which are then nobody else's to tell."""
    taken: list[Change] = []
    while True:
        try:
            taken.append(changes.popleft())
        except IndexError:  # also where another thread took the last one just now
            return taken
