"""Rate-limit gates: closed until a told time, for every caller of a bucket; then left in order.

Who waits at a gate leaves in the order of arrival. When the gate opens, one leaves, then two, then four
each a little later: if the platform is still not willing, one more 429 tells so, not a hundred.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from aragora_transport._clock import Waiter

if TYPE_CHECKING:
    from random import Random

    from aragora_transport._call import Interrupter
    from aragora_transport._clock import Clock

_STEP = 0.05  # seconds in which one batch of waiters leaves
_LEAST = 0.001  # seconds between any two of them
_SPREAD = 0.01  # seconds of positive jitter at most after the told time


class Gate:
    """The gate of one bucket."""

    def __init__(self, clock: Clock, rng: Random) -> None:
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        self._waiting: deque[Waiter] = deque()
        self._batch = 1
        self._let_out = 0  # of the present batch
        self.opens_at = 0.0

    @property
    def idle(self) -> bool:
        """Whether an attempt may pass without waiting."""
        return not self._waiting and self._clock.monotonic() >= self.opens_at

    @property
    def waiters(self) -> int:
        return len(self._waiting)

    def close(self, until: float) -> None:
        """Let nobody pass before the clock reads `until`; never opens earlier than told before."""
        with self._lock:
            self.opens_at = max(self.opens_at, until)
            self._batch, self._let_out = 1, 0
            waiting = list(self._waiting)
        for waiter in waiting:
            waiter.wake()  # for some it may have become too late

    async def wait(
        self,
        *,
        blocking: bool,
        deadline: float | None = None,
        longest: float = math.inf,
        interrupter: Interrupter | None = None,
    ) -> bool:
        """Wait for the caller's turn: false when it will not come in time after all.

        That is not before `deadline`, or not within `longest` seconds of when the gate is closed anew.
        The wait also ends when `interrupter` begins to refuse: the attempt would come to nothing. A caller
        that is cancelled gives its place up.
        """
        me = Waiter(self._clock, blocking=blocking)
        with self._lock:
            self._waiting.append(me)
        if interrupter is not None:
            interrupter.watch(me)
        try:
            while (come := self._come(me, deadline, longest)) is None:
                if interrupter is not None and interrupter.refusing() is not None:
                    return True
                until = deadline
                if self._waiting[0] is me:
                    first = self._batch == 1  # after the told time, so a little later than that
                    opens_at = self.opens_at + (self._rng.uniform(0.0, _SPREAD) if first else 0.0)
                    until = opens_at if deadline is None else min(opens_at, deadline)
                if await me.wait(until):
                    me.woken = False
            return come
        finally:
            if interrupter is not None:
                interrupter.unwatch(me)
            with self._lock:
                if me in self._waiting:
                    self._waiting.remove(me)
                following = self._waiting[0] if self._waiting else None
            if following is not None:
                following.wake()

    def _come(self, me: Waiter, deadline: float | None, longest: float) -> bool | None:
        """Whether it is the caller's turn; `None` while it may still come in time."""
        with self._lock:
            now = self._clock.monotonic()
            if self._waiting[0] is me and now >= self.opens_at:
                self._leave()
                return True
            too_long = self.opens_at - now > longest
            too_late = deadline is not None and max(now, self.opens_at) >= deadline
            return False if too_long or too_late else None

    def _leave(self) -> None:
        self._waiting.popleft()
        if not self._waiting:
            self._batch, self._let_out = 1, 0
            return
        # A batch leaves evenly spread over its step, so that the pace doubles from step to step.
        pause = max(_LEAST, _STEP / self._batch)
        self.opens_at = self._clock.monotonic() + pause * self._rng.uniform(1.0, 1.1)
        self._let_out += 1
        if self._let_out >= self._batch:
            self._batch, self._let_out = self._batch * 2, 0


class Gates(OrderedDict[str, "Gate"]):
    """The gates of one platform by bucket, the least recently used forgotten beyond `max_keys`."""

    def __init__(self, clock: Clock, rng: Random, max_keys: int) -> None:
        super().__init__()
        self._clock = clock
        self._rng = rng
        self._max_keys = max_keys
        self._lock = threading.Lock()

    def shut(self, key: str, seconds: float) -> float:
        """Close the gate of a bucket for `seconds`; returns when it opens."""
        until = self._clock.monotonic() + seconds
        with self._lock:
            gate = self.get(key)
            if gate is None:
                gate = self[key] = Gate(self._clock, self._rng)
            self.move_to_end(key)
            excess = len(self) - self._max_keys
            for old in list(self)[:-1]:
                if excess <= 0:
                    break
                if not self[old].waiters:
                    del self[old]
                    excess -= 1
        gate.close(until)
        return gate.opens_at
