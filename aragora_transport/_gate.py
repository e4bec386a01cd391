"""The gate of one rate-limit bucket: closed until a told time, kept to a rate, and full at times.

It decides nothing by itself and locks nothing: that is for `_gates`, which also holds the lines together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from aragora_transport._clock import Waiter
    from aragora_transport._rate import Pace, Window

STEP = 0.05  # seconds in which one batch of waiters leaves
LEAST = 0.001  # seconds between any two of them
SPREAD = 0.01  # seconds of positive jitter at most after the told time


class Gate:
    """What is known of one bucket, and the line of those that it holds."""

    __slots__ = (
        "_batch",
        "_let_out",
        "_spread",
        "expected",
        "in_flight",
        "key",
        "line",
        "most",
        "opens_at",
        "rates",
    )

    def __init__(self, key: str, rates: tuple[Pace | Window, ...] = (), most: int | None = None) -> None:
        self.key = key
        self.rates = rates
        self.most = most  # that may be in flight
        self.in_flight = 0
        self.opens_at = 0.0  # as told, or as the pace after that has it
        self.line: list[Place] = []  # by arrival
        self.expected = 0  # of those that wait, here or elsewhere, how many must pass it
        self._spread = 0.0
        self._batch = 0  # how many leave in the present step after a told time; 0 when that is past
        self._let_out = 0  # of them

    @property
    def next_at(self) -> float:
        """When the clock reads this, the next one may leave, if there is a place in flight for it."""
        opens_at = self.opens_at + self._spread
        for rate in self.rates:
            opens_at = max(opens_at, rate.next_at)
        return opens_at

    def turn_at(self, ahead: int) -> float:
        """When one could leave that has so many ahead of it, by what is known."""
        opens_at, interval = self.opens_at, 0.0
        for rate in self.rates:
            opens_at = max(opens_at, rate.next_at)
            interval = max(interval, rate.interval)
        return opens_at + ahead * interval

    @property
    def full(self) -> bool:
        """Whether as many are in flight as may be."""
        return self.most is not None and self.in_flight >= self.most

    @property
    def idle(self) -> bool:
        """Whether nobody will come by or come back."""
        return not self.expected and not self.in_flight

    def close(self, now: float, seconds: float, rng: Random) -> None:
        """Let nobody out for so long; never opens earlier than told before."""
        self.opens_at = max(self.opens_at, now + seconds)
        self._spread = rng.uniform(0.0, SPREAD) if seconds else 0.0
        self._batch, self._let_out = 1, 0
        for rate in self.rates:
            rate.exhaust(self.opens_at)

    def take(self, now: float, rng: Random) -> None:
        """One leaves now. After a told time one does at first, then two, then four, each a little later."""
        self.in_flight += self.most is not None
        self._spread = 0.0
        for rate in self.rates:
            rate.take(now)
        if not self.line or not self._batch:
            self._batch = 0
            return
        # A batch leaves evenly spread over its step, so that the pace doubles from step to step.
        self.opens_at = now + max(LEAST, STEP / self._batch) * rng.uniform(1.0, 1.1)
        self._let_out += 1
        if self._let_out >= self._batch:
            self._batch, self._let_out = self._batch * 2, 0


class Place:
    """One that waits: at which gates, in the order of arrival, and in whose line it stands now."""

    __slots__ = ("began", "deadline", "gate", "gates", "longest", "number", "until", "waiter")

    def __init__(
        self,
        gates: tuple[Gate, ...],
        gate: Gate,
        *,
        number: int,
        waiter: Waiter,
        began: float,
        deadline: float,
        longest: float,
    ) -> None:
        self.gates = gates
        self.gate = gate
        self.number = number
        self.waiter = waiter
        self.began = began
        self.deadline = deadline
        self.longest = longest  # seconds from when a gate is closed anew
        self.until: float | None = None  # when to look again
