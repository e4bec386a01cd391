"""A clock that tests own: it stands still until told, or until nothing else could happen."""

from __future__ import annotations

import functools
import heapq
import itertools
import threading
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING

from aragora_transport._clock import Clock, LoopBell, ThreadBell

if TYPE_CHECKING:
    from collections.abc import Callable

    from aragora_transport._clock import Bell, Waiter

# How often the event loop goes round, with every call parked, before time moves: enough for tasks that
# were just started, or just woken, to get as far as their own next wait.
_ROUNDS = 20

# The clocks of the calls that the running code is part of, once for each call: one that is made within
# another (a token fetched in the middle of it) parks for both.
_inside: ContextVar[tuple[ManualClock, ...]] = ContextVar("_inside", default=())


class _Parked:
    """A waiter that is parked. `turn`: its time has come, and so has its turn among those."""

    __slots__ = ("in_call", "thread", "turn", "until", "waiter")

    def __init__(self, waiter: Waiter, until: float | None, in_call: bool, now: float) -> None:
        self.waiter = waiter
        self.until = until
        self.in_call = in_call
        self.thread = threading.get_ident()
        self.turn = self.due(now)

    def due(self, now: float) -> bool:
        return self.until is not None and self.until <= now

    def leaves(self, now: float) -> bool:
        """Whether it goes on as soon as its task or thread gets to it."""
        return self.waiter.woken or self.due(now)


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
        self._calls_parked = 0
        self._parked: dict[Bell, _Parked] = {}
        self._due: dict[int, deque[Bell]] = {}  # by thread: those to go on, one after the other
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._changes = 0  # of anything that could keep time from moving
        self._mover: Bell | None = None
        self._movers_thread = 0

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
            self._move_to(self._now + seconds)

    # --- what the layers ask of a manual clock ---

    def call_began(self) -> None:
        """A call is under way: time stands still unless it parks here."""
        inside = _inside.get()
        _inside.set((*inside, self))
        if self in inside:
            return
        with self._lock:
            self._calls += 1
            self._changes += 1

    def call_ended(self) -> None:
        """It is over; those that are parked may be all that is left."""
        inside = list(_inside.get())
        if self in inside:  # not where a coroutine is closed from outside of its task
            inside.remove(self)
            _inside.set(tuple(inside))
        if self in inside:
            return
        with self._lock:
            self._calls -= 1
            self._changed()

    async def park(self, waiter: Waiter, bell: Bell, until: float | None) -> None:
        with self._lock:
            parked = _Parked(waiter, until, self in _inside.get(), self._now)
            self._parked[bell] = parked
            self._calls_parked += parked.in_call
            self._changes += 1
        try:
            while not (waiter.woken or parked.turn):
                if not await self._move(bell):
                    await bell.wait(None)
        finally:
            with self._lock:
                del self._parked[bell]
                self._calls_parked -= parked.in_call
                if self._mover is bell:
                    self._mover = None
                self._wake_next(parked.thread)
                self._changed()

    def call_at(self, due: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Run `callback` at `due`, in the event loop that asked."""
        ring = functools.partial(LoopBell().run_soon, callback)
        entry: tuple[float, int, Callable[[], object]] = (due, next(self._numbers), ring)
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
        return self._auto and bool(self._parked) and self._calls_parked >= self._calls

    def _changed(self) -> None:
        """Something happened after which it may be for one of the parked to move the clock."""
        self._changes += 1
        if self._mover is None and self._idle():
            # One of each thread: a blocking call may hold up the event loop of others that are parked.
            stay = {
                parked.thread: bell for bell, parked in self._parked.items() if not parked.leaves(self._now)
            }
            for bell in stay.values():
                bell.ring()

    async def _move(self, bell: Bell) -> bool:
        """Let one of the parked move the clock once all are; false when it is not for `bell` to do."""
        with self._lock:
            if self._mover not in (None, bell) and not self._holds_up(bell, self._movers_thread):
                return False
            self._mover = bell if self._idle() else None
            if self._mover is None:
                return False
            self._movers_thread = threading.get_ident()
            seen = self._changes
        for _ in range(_ROUNDS):
            await bell.pause()
            if self._changes != seen:
                return True  # something happened: look again
        with self._lock:
            if self._changes != seen:
                return True
            due = self._next_due()
            if due is None or self._others_leave(bell):
                self._mover = None
                return False
            self._move_to(due)
            return True

    @staticmethod
    def _holds_up(bell: Bell, thread: int) -> bool:
        """Whether `bell` parks that very thread, and so an event loop that may run in it."""
        return isinstance(bell, ThreadBell) and thread == threading.get_ident()

    def _others_leave(self, bell: Bell) -> bool:
        """Whether somebody has yet to go on who was woken, or whose time has come."""
        return any(
            parked.leaves(self._now) and not self._holds_up(bell, parked.thread)
            for parked in self._parked.values()
        )

    def _next_due(self) -> float | None:
        times = [
            parked.until
            for parked in self._parked.values()
            if parked.until is not None and parked.until > self._now
        ]
        if self._timers:
            times.append(self._timers[0][0])
        return min(times, default=None)

    def _move_to(self, now: float) -> None:
        self._now = max(self._now, now)
        self._changes += 1
        while self._timers and self._timers[0][0] <= self._now:
            heapq.heappop(self._timers)[2]()
        self._line_up()

    def _line_up(self) -> None:
        """Put those whose time has come in line: by their time, then in the order in which they parked."""
        self._due.clear()
        going: set[int] = set()  # threads in which somebody's turn has come already
        due = [(bell, parked) for bell, parked in self._parked.items() if parked.due(self._now)]
        for bell, parked in sorted(due, key=lambda pair: pair[1].until or 0.0):
            if not isinstance(bell, LoopBell):
                # A thread cannot wait until those of its own event loop, which it holds up, have gone.
                parked.turn = True
                bell.ring()
            elif parked.turn:
                going.add(parked.thread)
            else:
                self._due.setdefault(parked.thread, deque()).append(bell)
        for thread in self._due.keys() - going:
            self._wake_next(thread)

    def _wake_next(self, thread: int) -> None:
        """Let go whoever parked first of those whose time has come: trio would let them go in any order."""
        due = self._due.get(thread)
        while due:
            bell = due.popleft()
            parked = self._parked.get(bell)
            if parked is not None:  # pragma: no branch - one that was cancelled in between has left
                parked.turn = True
                bell.ring()
                return

    def __repr__(self) -> str:
        return f"<ManualClock {self._now:g} s, {self._calls} calls, {len(self._parked)} parked>"
