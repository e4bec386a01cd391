"""The retry budget against a model of it: tokens that retries spend, and that successes and time earn."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aragora_transport import RetryBudget
from aragora_transport._budget import Budget
from aragora_transport.testing import ManualClock

# Quarters: sums of them are exact, so that the model may be compared without a tolerance.
quarters = st.integers(0, 12).map(lambda number: number / 4)


class BudgetModel(RuleBasedStateMachine):
    """A number between nothing and the cap."""

    @initialize(
        per_success=quarters, per_second=quarters, cap=st.integers(4, 24).map(lambda number: number / 4)
    )
    def begin(self, per_success, per_second, cap):
        self.policy = RetryBudget(per_success=per_success, per_second=per_second, cap=cap)
        self.clock = ManualClock(auto=False)
        self.budget = Budget(self.policy, self.clock)
        self.tokens = cap
        self.spent = 0

    def add(self, tokens):
        self.tokens = min(self.policy.cap, self.tokens + tokens)

    @rule(seconds=quarters)
    def let_time_pass(self, seconds):
        self.clock.advance(seconds)
        self.add(seconds * self.policy.per_second)

    @rule(hours=st.sampled_from([-1.0, 1.0]))
    def set_the_wall_clock(self, hours):
        self.clock.wall += 3600.0 * hours

    @rule()
    def succeed(self):
        self.budget.earn()
        self.add(self.policy.per_success)

    @rule()
    def retry(self):
        affordable = self.tokens >= 1.0
        assert self.budget.spend() == affordable
        if affordable:
            self.tokens -= 1.0
            self.spent += 1

    @precondition(lambda self: self.spent)
    @rule()
    def call_a_retry_off(self):
        self.budget.give_back()
        self.spent -= 1
        self.add(1.0)

    @invariant()
    def a_full_budget_says_so(self):
        """Callers count no success while it does, so it must not be full by mistake."""
        if hasattr(self, "budget"):
            assert not self.budget.full or self.tokens == self.policy.cap


TestBudgetModel = BudgetModel.TestCase
TestBudgetModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def spend_all(budget):
    number = 0
    while budget.spend():
        number += 1
    return number


def test_a_quiet_caller_keeps_its_retries():
    """One retry an hour, for ever, by time alone."""
    clock = ManualClock(auto=False)
    budget = Budget(RetryBudget(per_success=0.0, cap=10.0), clock)
    for _ in range(1000):
        assert budget.spend()
        clock.advance(3600.0)


def test_a_dead_platform_gets_no_more_than_time_earns():
    clock = ManualClock(auto=False)
    budget = Budget(RetryBudget(), clock)
    retries = 0
    for _ in range(50 * 60):  # fifty failing calls a second, for a minute
        retries += budget.spend()
        clock.advance(0.02)
    assert retries == pytest.approx(160, abs=1)  # the cap, and one a second


def test_half_failing_traffic_is_retried_in_full():
    clock = ManualClock(auto=False)
    budget = Budget(RetryBudget(per_second=0.0, cap=2.0), clock)
    for _ in range(1000):
        assert budget.spend()  # of two calls one fails, and its retry succeeds
        budget.earn()


@pytest.mark.parametrize("hours", [1.0, -1.0])
def test_the_wall_clock_earns_nothing(hours):
    clock = ManualClock(auto=False)
    budget = Budget(RetryBudget(cap=5.0), clock)
    assert spend_all(budget) == 5
    clock.wall += 3600.0 * hours
    assert not budget.spend()


@pytest.fixture
def storm():
    """Runs something in eight threads at once that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def run(something):
        start = threading.Barrier(8)

        def one():
            start.wait(10)
            return something()

        with ThreadPoolExecutor(8) as pool:
            return [future.result(10) for future in [pool.submit(one) for _ in range(8)]]

    yield run
    sys.setswitchinterval(before)


def test_threads_spend_no_token_twice(storm):
    budget = Budget(RetryBudget(per_second=0.0, cap=4000.0), ManualClock(auto=False))
    assert sum(storm(lambda: spend_all(budget))) == 4000


def test_threads_lose_no_token(storm):
    budget = Budget(RetryBudget(per_second=0.0, cap=10_000.0), ManualClock(auto=False))
    spend_all(budget)
    storm(lambda: [budget.earn() for _ in range(1000)])
    assert spend_all(budget) == 8000
