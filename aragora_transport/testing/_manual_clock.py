"""A clock that tests own: it stands still until told, or until nothing else could happen."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

from aragora_transport._clock import Clock, LoopBell

if TYPE_CHECKING:
    from collections.abc import Callable

    from aragora_transport._clock import Bell, Waiter

# How often the event loop goes round, with every call parked, before time moves: enough for tasks that
# were just started, or just woken, to get as far as their own next wait.
_ROUNDS = 20


class ManualClock(Clock):
    """Owns every wait, timeout and cooldown of the layers that are given it as `clock=`.

    It advances by itself, to the next thing that is due, only while every call is parked in it; a call
    inside a real transport holds time still. `advance(seconds)` moves it by hand. `auto=False` leaves all
    of it to `advance()`. Works on asyncio, on trio, and for blocking clients in any number of threads.

    `now`: what `monotonic()` starts at (default 0). `wall`: what `time()` starts at, in seconds since the
    epoch (default 2023-11-14 22:13:20 UTC); set the attribute to step the wall clock alone.
    """

    manual = True

    def __init__(self, *, now: float = 0.0, wall: float = 1_700_000_000.0, auto: bool = True) -> None:
        self.wall = wall - now
        self._now = now
        self._auto = auto
        self._lock = threading.RLock()
        self._calls = 0  # under way
        self._parked: dict[Bell, float | None] = {}
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._changes = 0  # of anything that could keep time from moving
        self._mover: Bell | None = None

    def monotonic(self) -> float:
        """Seconds of this clock."""
        return self._now

    def time(self) -> float:
        """Seconds since the epoch by this clock."""
        return self.wall + self._now

    def advance(self, seconds: float) -> None:
        """Move the clock, running what falls due on the way in the order in which it does."""
        if seconds < 0:
            raise ValueError(f"advance({seconds!r}): time does not go back")
        with self._lock:
            target = self._now + seconds
            while (due := self._next_due()) is not None and due <= target:
                self._move_to(due)
            self._move_to(target)

    # --- what the layers ask of a manual clock ---

    def call_began(self) -> None:
        """A call is under way: time stands still unless it parks here."""
        with self._lock:
            self._calls += 1
            self._changes += 1

    def call_ended(self) -> None:
        """It is over; those that are parked may be all that is left."""
        with self._lock:
            self._calls -= 1
            self._changes += 1
            if self._mover is None and self._idle():
                next(iter(self._parked)).ring()

    async def park(self, waiter: Waiter, bell: Bell, until: float | None) -> None:
        with self._lock:
            self._parked[bell] = until
            self._changes += 1
        try:
            while not waiter.woken and not (until is not None and self._now >= until):
                if not await self._move(bell):
                    await bell.wait(None)
        finally:
            self._leave(bell)

    def call_at(self, due: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Run `callback` at `due`, in the event loop that asked."""
        bell = LoopBell()
        entry = (due, next(self._numbers), lambda: bell.run_soon(callback))
        with self._lock:
            heapq.heappush(self._timers, entry)
            self._changes += 1

        def call_off() -> None:
            with self._lock:
                if entry in self._timers:
                    self._timers.remove(entry)
                    heapq.heapify(self._timers)

        return call_off

    # --- moving ---

    def _idle(self) -> bool:
        return self._auto and bool(self._parked) and len(self._parked) >= self._calls

    async def _move(self, bell: Bell) -> bool:
        """Let one of the parked move the clock once all are; false when it is not for `bell` to do."""
        with self._lock:
            if not self._idle() or self._mover not in (None, bell):
                return False
            self._mover = bell
            seen = self._changes
        for _ in range(_ROUNDS):
            await bell.pause()
            if self._changes != seen:
                return True  # something happened: look again
        with self._lock:
            due = self._next_due()
            if due is None or not self._idle():
                return False
            self._move_to(due)
            return True

    def _leave(self, bell: Bell) -> None:
        with self._lock:
            del self._parked[bell]
            self._changes += 1
            if self._mover is bell:
                self._mover = None
                if self._parked:
                    next(iter(self._parked)).ring()

    def _next_due(self) -> float | None:
        times = [until for until in self._parked.values() if until is not None and until > self._now]
        if self._timers:
            times.append(self._timers[0][0])
        return min(times, default=None)

    def _move_to(self, now: float) -> None:
        self._now = max(self._now, now)
        self._changes += 1
        while self._timers and self._timers[0][0] <= self._now:
            heapq.heappop(self._timers)[2]()
        for bell, until in self._parked.items():
            if until is not None and until <= self._now:
                bell.ring()

    def __repr__(self) -> str:
        return f"<ManualClock {self._now:g} s, {self._calls} calls, {len(self._parked)} parked>"
