"""Numbers that are noted in passing, by every call, and counted later, many in one go."""

from __future__ import annotations

ENOUGH = 250  # notes after which whoever makes the next one has them counted


class Notes(list[float]):
    """Appended to from any thread without a lock; taken by one at a time."""

    def take(self) -> list[float]:
        """What was noted so far, the least first. What is noted meanwhile is for the next time."""
        number = len(self)  # each of these steps is one for other threads as well
        taken = self[:number]
        del self[:number]
        return sorted(taken)
