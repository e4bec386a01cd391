"""The retry budget: tokens that retries spend, and that successes and time earn."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aragora_transport._clock import Clock
    from aragora_transport.policy import RetryBudget


class Budget:
    """The tokens of one platform, shared by all its calls, event loops and threads."""

    def __init__(self, policy: RetryBudget, clock: Clock) -> None:
        self.policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._counted = clock.monotonic()
        self.tokens = policy.cap
        self.full = True  # while nothing was spent a success need not be counted

    def earn(self) -> None:
        """A call succeeded."""
        with self._lock:
            self._add(self.policy.per_success)

    def spend(self) -> bool:
        """Take the token for one retry; false when there is none."""
        with self._lock:
            self._add(0.0)
            if self.tokens < 1.0:
                return False
            self.tokens -= 1.0
            self.full = False
            return True

    def give_back(self) -> None:
        """A retry was paid for and never sent."""
        with self._lock:
            self._add(1.0)

    def _add(self, tokens: float) -> None:
        now = self._clock.monotonic()
        earned = tokens + max(0.0, now - self._counted) * self.policy.per_second
        self._counted = now
        self.tokens = min(self.policy.cap, self.tokens + earned)
        self.full = self.tokens >= self.policy.cap


class NoBudget:
    """Where retries cost nothing."""

    full = True

    def earn(self) -> None:
        """Nothing to earn."""

    def spend(self) -> bool:
        """There is always another one."""
        return True

    def give_back(self) -> None:
        """Nothing was spent."""
