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
    from aragora_transport.policy import RateLimitPolicy

_STEP = 0.05  # seconds in which one batch of waiters leaves
_LEAST = 0.001  # seconds between any two of them
_SPREAD = 0.01  # seconds of positive jitter at most after the told time


class Pace:
    """The rate that a bucket is known to allow: `rate` at once, and then one every `per / rate` seconds.

    The generic cell rate algorithm: one time is all it remembers.
    """

    def __init__(self, rate: float, per: float) -> None:
        self.interval = per / rate
        self._burst = max(0.0, per - self.interval)
        self._spent_until = 0.0

    def take(self, now: float) -> float:
        """One leaves now; returns when the next one may."""
        self._spent_until = max(self._spent_until, now) + self.interval
        return self._spent_until - self._burst


class Gate:
    """The gate of one bucket."""

    def __init__(self, clock: Clock, rng: Random, pace: Pace | None = None) -> None:
        self._clock = clock
        self._rng = rng
        self._pace = pace
        self._lock = threading.Lock()
        self._waiting: deque[Waiter] = deque()
        self._batch = 1
        self._let_out = 0  # of the present batch
        self._told = False  # by a 429, and nobody has left since
        self.opens_at = 0.0

    def enter(self) -> bool:
        """Pass without waiting, where that is possible now."""
        with self._lock:
            now = self._clock.monotonic()
            if self._waiting or now < self.opens_at:
                return False
            if self._pace is not None:
                self.opens_at = max(self.opens_at, self._pace.take(now))
            return True

    @property
    def turn_at(self) -> float:
        """When one that came now could pass, by what is known."""
        ahead = 0.0 if self._pace is None else len(self._waiting) * self._pace.interval
        return self.opens_at + ahead

    @property
    def waiters(self) -> int:
        return len(self._waiting)

    def close(self, until: float) -> None:
        """Let nobody pass before the clock reads `until`; never opens earlier than told before."""
        with self._lock:
            self._told = True
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
                    # The first one after a told time leaves a little later than that.
                    opens_at = self.opens_at + (self._rng.uniform(0.0, _SPREAD) if self._told else 0.0)
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
        self._told = False
        if self._pace is not None:
            self.opens_at = max(self.opens_at, self._pace.take(self._clock.monotonic()))
            return
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

    def __init__(self, clock: Clock, rng: Random, policy: RateLimitPolicy) -> None:
        super().__init__()
        self._clock = clock
        self._rng = rng
        self._policy = policy
        self._lock = threading.Lock()

    def find(self, key: str) -> Gate | None:
        """The gate of a bucket: one that was closed before, or any where a rate is kept."""
        return self.get(key) if self._policy.rate is None else self._made(key)

    def shut(self, key: str, seconds: float) -> float:
        """Close the gate of a bucket for `seconds`; returns when it opens."""
        gate = self._made(key)
        gate.close(self._clock.monotonic() + seconds)
        return gate.opens_at

    def _made(self, key: str) -> Gate:
        with self._lock:
            gate = self.get(key)
            if gate is None:
                policy = self._policy
                pace = None if policy.rate is None else Pace(policy.rate, policy.per)
                gate = self[key] = Gate(self._clock, self._rng, pace)
            self.move_to_end(key)
            excess = len(self) - self._policy.max_keys
            for old in list(self)[:-1]:
                if excess <= 0:
                    break
                if not self[old].waiters:
                    del self[old]
                    excess -= 1
            return gate
