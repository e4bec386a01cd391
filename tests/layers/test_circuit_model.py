"""The circuit against a model of it: any order of attempts, outcomes, cancellations and time.

Attempts are driven by hand: each is a coroutine that stands still in the transport below, until its
outcome is put in there.
"""

from __future__ import annotations

import random
import types

import httpx
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from aragora_transport import BreakerPolicy, CircuitOpenError
from aragora_transport.layers import BreakerTransport
from aragora_transport.testing import ManualClock

ANSWERS = {"success": 200, "failure": 503, "neither": 429}
STEP = 0.5  # seconds; the window of ten slides in steps of this length, so that the model can be exact


class Held(httpx.AsyncBaseTransport):
    """Suspends, and takes as its answer what is sent into the coroutine."""

    @types.coroutine
    def _wait(self):
        return (yield)

    async def handle_async_request(self, request):
        return await self._wait()


class Model:
    """A circuit, as the design describes it, in so few lines that one can see that it is right."""

    def __init__(self, policy):
        self.policy = policy
        self.state = "closed"
        self.era = 0
        self.finished = []  # (time, failed) of the attempts of this closed era
        self.probes = {}  # permit: when it was let through
        self.successes = 0
        self.opens_until = 0.0
        self.permits = 0

    def enter(self, state, now):
        self.era += 1
        self.state = state
        self.finished, self.probes, self.successes = [], {}, 0
        self.opens_until = now + self.policy.cooldown if state == "open" else 0.0

    def admit(self, now):
        policy = self.policy
        if self.state == "open" and now >= self.opens_until:
            self.enter("half-open", now)
        if self.state == "open":
            return None
        self.permits += 1
        permit = (self.era, self.permits)
        if self.state == "half-open":
            under_way = sum(now - since < policy.probe_lease for since in self.probes.values())
            in_all = max(policy.half_open_probes, policy.success_threshold)
            if under_way >= policy.half_open_probes or under_way + self.successes >= in_all:
                return None
            self.probes[permit] = now
        return permit

    def settle(self, permit, verdict, now):
        if permit[0] != self.era:
            return  # of an earlier era: void
        self.probes.pop(permit, None)
        if verdict == "neither":
            return
        if self.state == "half-open":
            self.successes += verdict == "success"
            if verdict == "failure":
                self.enter("open", now)
            elif self.successes >= self.policy.success_threshold:
                self.enter("closed", now)
            return
        self.finished.append((now, verdict == "failure"))
        if verdict == "failure" and self.too_bad(now):
            self.enter("open", now)

    def too_bad(self, now):
        policy = self.policy
        least = policy.min_attempts or policy.failure_threshold
        recent = [failed for time, failed in self.finished if now - time < policy.window]
        seen = max(recent, [failed for _, failed in self.finished[-least:]], key=len)
        enough = len(seen) >= least and sum(seen) >= policy.failure_threshold
        return enough and sum(seen) >= policy.failure_rate * len(seen)


policies = st.builds(
    BreakerPolicy,
    failure_threshold=st.integers(1, 4),
    failure_rate=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
    min_attempts=st.sampled_from([None, None, 1, 6]),
    cooldown=st.sampled_from([0.0, 5.0, 20.0]),
    half_open_probes=st.integers(1, 3),
    success_threshold=st.integers(1, 3),
    probe_lease=st.just(8 * STEP),
    window=st.just(20 * STEP),
)


class Circuit(RuleBasedStateMachine):
    """Both are asked and told the same."""

    permits = Bundle("permits")

    @initialize(policy=policies)
    def begin(self, policy):
        self.clock = ManualClock(auto=False)
        self.layer = BreakerTransport(Held(), policy=policy, clock=self.clock, rng=random.Random(1))
        self.model = Model(policy)
        self.calls = []

    def teardown(self):
        """All runs share a context, in which the clock notes the calls that are under way."""
        for call in getattr(self, "calls", ()):
            call.close()

    @rule(target=permits, number=st.integers(1, 3))
    def ask(self, number):
        asked = [self._ask() for _ in range(number)]
        return multiple(*[permit for permit in asked if permit is not None])

    def _ask(self):
        expected = self.model.admit(self.clock.monotonic())
        call = self.layer.handle_async_request(httpx.Request("GET", "http://platform.test/"))
        try:
            call.send(None)
        except CircuitOpenError:
            assert expected is None, "refused, where the model lets it through"
            return None
        self.calls.append(call)
        assert expected is not None, "let through, where the model refuses"
        return call, expected

    @rule(permit=consumes(permits), verdict=st.sampled_from(sorted(ANSWERS)))
    def settle(self, permit, verdict):
        call, expected = permit
        try:
            call.send(httpx.Response(ANSWERS[verdict]))
        except StopIteration:
            pass
        self.model.settle(expected, verdict, self.clock.monotonic())

    @rule(permit=consumes(permits))
    def cancel(self, permit):
        call, expected = permit
        call.close()
        self.model.settle(expected, "neither", self.clock.monotonic())

    @rule()
    def suffer_an_outage(self):
        """Left to chance, few runs would come as far as half-open."""
        for _ in range(8):
            permit = self._ask()
            if permit is not None:
                self.settle(permit, "failure")
        if self.model.state == "open":
            self.clock.advance(self.model.policy.cooldown)

    @rule(target=permits)
    def lose_one(self):
        """An attempt that is not heard of for as long as a probe holds its place."""
        permit = self._ask()
        self.clock.advance(self.model.policy.probe_lease)
        return multiple() if permit is None else permit

    @rule(steps=st.sampled_from([1, 8, 19, 20, 40]), hours=st.sampled_from([-1, 0, 1]))
    def advance(self, steps, hours):
        self.clock.advance(steps * STEP)
        self.clock.wall += 3600.0 * hours

    @invariant()
    def same_state(self):
        if hasattr(self, "model"):
            snapshot = self.layer.circuits.snapshot()
            assert snapshot["default"]["state"] == self.model.state


TestCircuit = Circuit.TestCase
TestCircuit.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
