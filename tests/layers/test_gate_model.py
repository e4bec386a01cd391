"""Gates and rates against what is true of them: any order of arrivals, 429s, ends, cancellations and time.

Calls are driven by hand: each is a coroutine that stands still where it parks, and goes on when it is
woken or its time has come; in which order those go on that could is for chance to say.
"""

from __future__ import annotations

import random
import types
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from aragora_transport import Bucket, RateLimitPolicy
from aragora_transport._clock import Clock
from aragora_transport._gate import SPREAD, STEP
from aragora_transport._gates import Gates
from aragora_transport._rate import Pace, Window

TICK = 0.25  # seconds: told waits, rates and deadlines are multiples of it
SLOWEST = STEP * 1.1 + SPREAD  # seconds that the pace after a told time holds the next one up at most


class ByHand(Clock):
    """Parking suspends the coroutine; who drives it sees until when."""

    manual = True

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    @types.coroutine
    def _stand(self, waiter, until):
        yield waiter, until

    async def park(self, waiter, bell, until):
        while not waiter.woken and (until is None or self.now < until):
            await self._stand(waiter, until)


class Caller:
    """One call as the model sees it."""

    def __init__(self, number, keys, deadline):
        self.number = number
        self.keys = keys
        self.deadline = deadline
        self.gates = ()
        self.passed_at = None
        self.in_flight = False


LIMITS = {"a": ((2, 4 * TICK),), "b": (), "all": ((3, 4 * TICK), (4, 12 * TICK))}
KEYS = [("a",), ("b",), ("a", "all"), ("b", "all"), ("all",)]

policies = st.builds(
    RateLimitPolicy,
    rate=st.sampled_from([None, None, 2.0]),
    per=st.just(8 * TICK),
    published=st.booleans(),
    max_in_flight=st.sampled_from([None, None, 1, 2]),
    max_waiters=st.just(1000),
)


class Crowd(RuleBasedStateMachine):
    """What is kept of each call is enough to see that nobody left too early, nor stays for nothing."""

    callers = Bundle("callers")

    @initialize(policy=policies, seed=st.integers(0, 9))
    def begin(self, policy, seed):
        self.policy = policy
        self.clock = ByHand()
        self.rng = random.Random(seed)
        self.gates = Gates(self.clock, random.Random(seed), policy)
        self.parked = {}  # caller: (coroutine, waiter, until)
        self.told = dict.fromkeys(LIMITS, 0.0)
        self.left = {key: [] for key in LIMITS}  # when calls left, by bucket
        self.events = {key: [] for key in LIMITS}  # when one left, or it was told to wait, and until when
        self.number = 0

    # --- what happens ---

    @rule(
        target=callers,
        keys=st.sampled_from(KEYS),
        how_many=st.integers(1, 4),
        ticks=st.none() | st.integers(1, 40),
    )
    def come(self, keys, how_many, ticks):
        deadline = None if ticks is None else self.clock.now + ticks * TICK
        return multiple(*[self.come_one(keys, deadline) for _ in range(how_many)])

    def come_one(self, keys, deadline):
        self.number += 1
        caller = Caller(self.number, keys, deadline)
        self.go_on(caller, self.call(caller))
        return caller

    @rule(key=st.sampled_from(sorted(LIMITS)), ticks=st.integers(0, 16))
    def be_told(self, key, ticks):
        self.told[key] = max(self.told[key], self.clock.now + ticks * TICK)
        self.gates.shut(Bucket(key, LIMITS[key]), ticks * TICK)
        self.events[key].append((self.clock.now, self.told[key]))
        self.settle()

    @rule(caller=consumes(callers))
    def end(self, caller):
        """A call is over, or gives up where it waits."""
        if caller in self.parked:
            self.parked.pop(caller)[0].close()
        elif caller.in_flight:
            caller.in_flight = False
            self.gates.leave(caller.gates)
        self.settle()

    @rule(ticks=st.sampled_from([0.1, 1, 2, 7, 20, 80]))
    def pass_time(self, ticks):
        until = self.clock.now + ticks * TICK
        while True:
            due = min((at for _, _, at in self.parked.values() if at is not None), default=until)
            self.clock.now = max(self.clock.now, min(due, until))
            self.settle()
            if due >= until:
                return

    @rule(target=callers, keys=st.sampled_from(KEYS))
    def come_as_another_s_time_comes(self, keys):
        """Before that one has noticed."""
        times = [at for _, _, at in self.parked.values() if at is not None]
        self.clock.now = max(self.clock.now, min(times, default=0.0))
        came = self.come_one(keys, None)
        self.settle()
        return came

    # --- how calls go on ---

    async def call(self, caller):
        buckets = tuple(Bucket(key, LIMITS[key]) for key in caller.keys)
        caller.gates = self.gates.enter(buckets)
        if caller.gates is None:
            hold = await self.gates.wait(buckets, blocking=True, deadline=caller.deadline)
            caller.gates = hold.gates
            if not caller.gates:
                assert hold.refused == "deadline"
                return
        self.leave(caller)

    def go_on(self, caller, coroutine):
        try:
            waiter, until = coroutine.send(None)
        except StopIteration:
            self.parked.pop(caller, None)
        else:
            self.parked[caller] = (coroutine, waiter, until)

    def settle(self):
        """All go on that can, one after the other, until none can."""
        while True:
            ready = [
                caller
                for caller, (_, waiter, until) in self.parked.items()
                if waiter.woken or (until is not None and until <= self.clock.now)
            ]
            if not ready:
                return
            caller = self.rng.choice(ready)
            self.go_on(caller, self.parked[caller][0])

    # --- what must be so ---

    def leave(self, caller):
        now = self.clock.now
        assert caller.deadline is None or now <= caller.deadline
        held = self.why_held(caller, strictly=True)
        assert not held, f"let out although {held}"
        caller.passed_at = now
        caller.in_flight = True
        for key in caller.keys:
            self.left[key].append(caller)
            self.events[key].append((now, None))

    def why_held(self, caller, *, strictly=False):
        """Why a call must wait; not `strictly`: or may, for the pace after a told time and its spread."""
        now, reasons = self.clock.now, []
        for key in caller.keys:
            times = [other.passed_at for other in self.left[key]]
            told = self.told[key]
            if now < told or (not strictly and 0 < now < told + SPREAD):
                reasons.append(f"{key} is closed")
            if not strictly and times and told and told <= times[-1] > now - SLOWEST:
                reasons.append(f"{key} keeps its pace")
            if self.policy.published and any(
                sum(at + seconds > now for at in times) >= most for most, seconds in LIMITS[key]
            ):
                reasons.append(f"{key} has spent its limit")
            most = self.policy.max_in_flight
            if most is not None and sum(other.in_flight for other in self.left[key]) >= most:
                reasons.append(f"{key} is full")
            if self.policy.rate is not None and now < self.rate_allows_at(key):
                reasons.append(f"{key} has spent its rate")
            if not strictly and any(o.number < caller.number and key in o.keys for o in self.parked):
                reasons.append(f"others came to {key} before")
        if strictly and any(o.number < caller.number and o.keys == caller.keys for o in self.parked):
            reasons.append("others came before to the same")
        return reasons

    def rate_allows_at(self, key):
        """So many at once, and then evenly; after a 429 there is no burst."""
        interval = self.policy.per / self.policy.rate
        burst, spent = self.policy.per - interval, 0.0
        for at, until in sorted(self.events[key], key=lambda event: event[0]):
            spent = max(spent, at) + interval if until is None else max(spent, until + burst)
        return spent - burst

    def too_late(self, other):
        return other.deadline is not None and self.clock.now >= other.deadline

    @invariant()
    def nobody_waits_for_nothing(self):
        for caller in getattr(self, "parked", {}):
            assert self.why_held(caller), f"{caller.number} is lost"
            assert not self.too_late(caller)

    def teardown(self):
        """In the end all who still wait are let out, or refused in time."""
        if not hasattr(self, "parked"):
            return
        for _ in range(2 * self.number + 2):
            for key in LIMITS:
                for caller in self.left[key]:
                    if caller.in_flight:
                        caller.in_flight = False
                        self.gates.leave(caller.gates)
            self.settle()
            self.pass_time(100)
        assert not self.parked
        assert all(gate.idle for gate in self.gates.values())


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


class Rates(RuleBasedStateMachine):
    """A pace against a bucket of tokens, a window against counting; in whole steps, so without rounding."""

    @initialize(requests=st.integers(1, 8), steps=st.sampled_from([1, 8, 16, 64]))
    def begin(self, requests, steps):
        self.requests, self.seconds = requests, Fraction(steps)
        self.pace = Pace(Fraction(requests), self.seconds)
        self.window = Window(requests, self.seconds)
        self.now = Fraction(0)
        self.tokens = Fraction(requests)
        self.left = []

    @rule(quarters=st.integers(1, 40))
    def pass_time(self, quarters):
        self.now += Fraction(quarters, 4)
        self.tokens += Fraction(quarters, 4) * self.requests / self.seconds
        self.tokens = min(Fraction(self.requests), self.tokens)

    @rule(how_many=st.integers(1, 9))
    def leave(self, how_many):
        for _ in range(how_many):
            if self.pace.next_at <= self.now:
                self.pace.take(self.now)
                self.tokens -= 1
            if self.window.next_at <= self.now:
                self.window.take(self.now)
                self.left.append(self.now)
            self.same()

    @rule(quarters=st.integers(0, 40))
    def be_exhausted(self, quarters):
        """Told that nothing is left for so long: from then on one leaves, and then evenly."""
        self.pace.exhaust(self.now + Fraction(quarters, 4))
        self.tokens = min(self.tokens, 1 - Fraction(quarters, 4) * self.requests / self.seconds)
        self.same()

    @invariant()
    def same(self):
        if hasattr(self, "pace"):
            assert (self.pace.next_at <= self.now) == (self.tokens >= 1)
            lately = sum(at > self.now - self.seconds for at in self.left)
            assert (self.window.next_at <= self.now) == (lately < self.requests)


TestRates = Rates.TestCase
TestRates.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
