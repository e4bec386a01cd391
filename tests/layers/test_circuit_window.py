"""What a circuit counts, and over which time: the same with a pybreaker listener, which takes another way."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import pybreaker
import pytest

from aragora_transport import BreakerPolicy, CircuitOpenError, Policy
from aragora_transport._drive import drive
from aragora_transport._notes import ENOUGH
from aragora_transport.layers import BreakerTransport
from aragora_transport.testing import ManualClock

GOOD, BAD = 200, 503


class Stream:
    """Attempts on one circuit, one after the other, each at the time that the test says."""

    def __init__(self, policy, listeners):
        self.clock = ManualClock(auto=False)
        self.layer = BreakerTransport(
            httpx.MockTransport(lambda request: httpx.Response(int(request.headers["answer"]))),
            policy=policy,
            clock=self.clock,
            listeners=listeners,
        )

    def attempt(self, answer):
        """Whether it was let through."""
        request = httpx.Request("GET", "http://platform.test/", headers={"answer": str(answer)})
        try:
            drive(self.layer.handle_async_request(request))
        except CircuitOpenError:
            return False
        return True

    def attempts(self, *answers, every=0.0):
        for answer in answers:
            assert self.attempt(answer), "it is open already"
            self.clock.advance(every)

    @property
    def state(self):
        return self.layer.circuits.snapshot()["default"]["state"]

    @property
    def failures(self):
        return self.layer.circuits.snapshot()["default"]["failures"]


@pytest.fixture(params=[False, True], ids=["alone", "with a listener"])
def stream(request):
    """Makes a stream by the fields of its breaker's policy."""
    listeners = [pybreaker.CircuitBreakerListener()] if request.param else []

    def make(**fields):
        return Stream(fields.pop("policy", None) or BreakerPolicy(**fields), listeners)

    return make


def test_a_busy_stream_of_which_a_third_fails_stays_closed(stream):
    busy = stream()
    rng = random.Random(4)
    busy.attempts(*[GOOD] * 20, every=0.02)
    for _ in range(50 * 60):
        busy.attempts(BAD if rng.random() < 0.3 else GOOD, every=0.02)


def test_a_stream_that_is_mostly_bad_opens_it_although_never_five_fail_in_a_row(stream):
    bad = stream()
    bad.attempts(BAD, BAD, BAD, BAD, GOOD)
    assert bad.state == "closed"
    bad.attempts(BAD)
    assert bad.state == "open"


def test_from_a_busy_stream_a_full_outage_opens_it_within_the_window(stream):
    busy = stream()
    busy.attempts(*[GOOD] * 1000, every=0.02)
    for _ in range(int(10.0 / 0.02)):
        if not busy.attempt(BAD):
            break
        busy.clock.advance(0.02)
    assert busy.state == "open"


@pytest.mark.parametrize(("bad", "state"), [(49, "closed"), (50, "open")])
def test_the_share_that_opens_it_is_reached_and_not_only_exceeded(stream, bad, state):
    half = stream(failure_threshold=50, failure_rate=0.5)
    half.attempts(*[GOOD] * 50, *[BAD] * (bad - 1))
    assert half.state == "closed"
    half.attempts(GOOD if bad == 49 else BAD)
    assert half.state == state


def test_a_rate_of_zero_is_the_plain_count(stream):
    plain = stream(failure_rate=0.0)
    for _ in range(4):
        plain.attempts(*[GOOD] * 100, BAD)
    assert plain.state == "closed"
    plain.attempts(*[GOOD] * 100, BAD)
    assert plain.state == "open"


def test_failures_that_are_older_than_the_window_no_longer_count(stream):
    aged = stream(failure_rate=0.0, window=10.0)
    aged.attempts(BAD, BAD, BAD, BAD)
    aged.clock.advance(10.0)
    aged.attempts(*[GOOD] * 6, BAD)
    assert aged.state == "closed"


def test_failures_within_the_window_do(stream):
    fresh = stream(failure_rate=0.0, window=10.0)
    fresh.attempts(BAD, BAD, BAD, BAD)
    fresh.clock.advance(9.4)  # it slides in steps of a twentieth
    fresh.attempts(*[GOOD] * 6, BAD)
    assert fresh.state == "open"


def test_successes_outweigh_failures_as_long_as_each_is_in_the_window(stream):
    mixed = stream(failure_threshold=2, failure_rate=0.5, window=10.0)
    mixed.attempts(GOOD, every=0.5)
    mixed.attempts(GOOD, GOOD, GOOD, every=0.0)
    mixed.clock.advance(9.7)  # the first one is out of it, the others are not
    mixed.attempts(BAD, BAD)
    assert mixed.state == "closed"
    mixed.attempts(BAD)  # 3 of 6
    assert mixed.state == "open"


def test_a_slow_serial_caller_is_judged_by_its_last_attempts(stream):
    slow = stream()
    slow.attempts(GOOD, *[BAD] * 4, every=3600.0)
    assert slow.state == "closed"
    slow.attempts(BAD)
    assert slow.state == "open"


def test_one_success_among_the_last_attempts_of_a_slow_caller_keeps_it_closed(stream):
    slow = stream()
    slow.attempts(*[BAD, BAD, BAD, BAD, GOOD] * 4, every=3600.0)
    assert slow.state == "closed"


def test_a_failure_is_forgotten_by_a_slow_caller_after_as_many_successes_as_are_looked_at(stream):
    slow = stream(failure_threshold=5)
    slow.attempts(BAD, GOOD, GOOD, GOOD, GOOD, every=3600.0)
    assert slow.failures == 1
    slow = stream(failure_threshold=5)
    slow.attempts(BAD, GOOD, GOOD, GOOD, GOOD, GOOD, every=3600.0)
    assert slow.failures == 0


def test_only_a_failure_opens_it_even_when_successes_grow_too_old_to_outweigh_failures(stream):
    tipping = stream()
    tipping.attempts(*[GOOD] * 20)
    tipping.clock.advance(5.0)
    tipping.attempts(*[BAD] * 5)
    tipping.clock.advance(5.0)  # now five of the five attempts in the window have failed
    tipping.attempts(GOOD, GOOD)
    assert tipping.state == "closed"
    tipping.attempts(BAD)
    assert tipping.state == "open"


def test_no_share_is_judged_on_less_evidence_than_asked_for(stream):
    careful = stream(min_attempts=20)
    careful.attempts(*[BAD] * 19)
    assert careful.state == "closed"
    careful.attempts(BAD)
    assert careful.state == "open"


def test_evidence_of_a_slow_caller_may_be_older_than_the_window(stream):
    careful = stream(min_attempts=20)
    careful.attempts(*[BAD] * 19, every=60.0)
    assert careful.state == "closed"
    careful.attempts(BAD)
    assert careful.state == "open"


def test_with_enough_evidence_asked_for_a_cold_start_at_a_third_of_failures_opens_nothing(stream):
    for seed in range(20):
        cold = stream(min_attempts=50)
        rng = random.Random(seed)
        cold.attempts(*[BAD if rng.random() < 0.3 else GOOD for _ in range(200)], every=0.02)


def test_the_recommended_policy_bears_half_failing_traffic_and_ends_an_outage(stream):
    busy = stream(policy=Policy.recommended().breaker)
    rng = random.Random(2)
    busy.attempts(*[BAD if rng.random() < 0.5 else GOOD for _ in range(50 * 60)], every=0.02)
    for _ in range(50):
        if not busy.attempt(BAD):
            break
        busy.clock.advance(0.02)
    assert busy.state == "open"


def test_many_successes_weigh_as_many(stream):
    """However they are noted, none is lost."""
    busy = stream(failure_threshold=100, failure_rate=0.1)
    busy.attempts(*[GOOD] * 2500)
    busy.attempts(*[BAD] * 277)
    assert busy.state == "closed"
    busy.attempts(BAD)  # 278 of 2778 are a tenth
    assert busy.state == "open"


def test_however_long_all_goes_well_only_so_many_notes_of_it_are_kept(stream):
    well = stream()
    well.attempts(*[GOOD] * (3 * ENOUGH))
    notes = well.layer.circuits.get("default").noted
    assert notes is None or len(notes) <= ENOUGH


def test_no_outcome_is_lost_between_threads(stream):
    shared = stream(failure_threshold=10_000)

    def some(seed):
        rng = random.Random(seed)
        answers = [BAD if rng.random() < 0.5 else GOOD for _ in range(400)]
        shared.attempts(*answers)
        return answers.count(BAD)

    with ThreadPoolExecutor(8) as pool:
        failed = sum(pool.map(some, range(8)))
    assert shared.failures == failed
