"""Numbers that are noted in passing, by every call, and counted later, many in one go."""

from __future__ import annotations

from collections import deque
from itertools import islice

ENOUGH = 1000  # notes after which whoever makes the next one has them counted


class Notes(deque[float]):
    """Appended to from any thread without a lock; taken by one at a time."""

    __slots__ = ()

    def take(self) -> list[float]:
        """What was noted so far, the least first. What is noted meanwhile is for the next time."""
        return sorted(islice(iter(self.popleft, None), len(self)))
