"""What every call leaves behind in passing, without a lock, for somebody who counts it later."""

from __future__ import annotations

from itertools import count

ENOUGH = 250  # notes after which whoever makes the next one has them counted


class Count:
    """Counts from any thread, in as little as can be."""

    def __init__(self) -> None:
        self.one = count().__next__  # calling it counts one more
        self._looks = 0

    def so_far(self) -> int:
        """How many; to look takes one as well. Not for several threads at the same time."""
        looks, self._looks = self._looks, self._looks + 1
        return self.one() - looks


class Notes(list[float]):
    """Numbers that any thread may append; taken by one at a time."""

    def take(self) -> list[float]:
        """What was noted so far, the least first. What is noted meanwhile is for the next time."""
        number = len(self)  # each of these steps is one for other threads as well
        taken = self[:number]
        del self[:number]
        return sorted(taken)
