"""Rates that are kept before a platform complains: each says when the next one may leave."""

from __future__ import annotations

from collections import deque


class Pace:
    """`requests` at once, and then evenly: one every `seconds / requests`.

    The generic cell rate algorithm (ITU-T I.371): one time is all it remembers.
    """

    def __init__(self, requests: float, seconds: float) -> None:
        self.interval = seconds / requests
        self._burst = max(0.0, seconds - self.interval)
        self._spent_until = 0.0

    @property
    def next_at(self) -> float:
        """When the clock reads this, the next one may leave."""
        return self._spent_until - self._burst

    def take(self, now: float) -> None:
        """One leaves now."""
        self._spent_until = max(self._spent_until, now) + self.interval

    def exhaust(self, until: float) -> None:
        """The platform says that nothing is left until then: no burst follows."""
        self._spent_until = max(self._spent_until, until + self._burst)


class Window:
    """As platforms publish their limits: never more than `requests` in any `seconds`.

    It remembers the time of each of them, for a limit over several times at once leaves no error to spare.
    """

    def __init__(self, requests: int, seconds: float) -> None:
        self.interval = seconds / requests
        self._seconds = seconds
        self._times: deque[float] = deque(maxlen=requests)

    @property
    def next_at(self) -> float:
        """When the clock reads this, the next one may leave."""
        times = self._times
        return times[0] + self._seconds if len(times) == times.maxlen else 0.0

    def take(self, now: float) -> None:
        """One leaves now."""
        self._times.append(now)

    def exhaust(self, _until: float) -> None:
        """What the platform counted is not known: the gate itself stays closed until then."""
