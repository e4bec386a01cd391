"""How long is waited before the next attempt."""

from __future__ import annotations

import itertools
import random

import pytest
import tenacity

from aragora_transport import RetryPolicy
from aragora_transport.layers import RetryTransport
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio


async def waits_of(world, *steps, seed=1, **policy):
    """The waits between the attempts of one call."""
    network = world.scripted(*steps)
    budgetless = RetryPolicy(budget=None, **policy)
    layer = world.layer(RetryTransport, network, policy=budgetless, rng=random.Random(seed))
    try:
        await world.get(layer)
    except world.httpx.TransportError:
        pass
    times = [sent.at for sent in network.sent]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


async def test_the_waits_follow_the_guides_formula(world):
    waits = await waits_of(world, 503, max_attempts=8)
    ceilings = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)
    for wait, least in zip(waits, ceilings, strict=True):
        assert least <= wait <= least * 1.1
    assert any(wait > least for wait, least in zip(waits, ceilings, strict=True))


async def test_errors_are_waited_for_as_answers_are(world):
    waits = await waits_of(world, world.httpx.ConnectError, max_attempts=3)
    assert [1.0 <= waits[0] <= 1.1, 2.0 <= waits[1] <= 2.2] == [True, True]


async def test_base_and_cap_of_the_waits_are_the_policys(world):
    waits = await waits_of(world, 503, max_attempts=6, base_delay=0.5, max_delay=3.0)
    for wait, least in zip(waits, (0.5, 1.0, 2.0, 3.0, 3.0), strict=True):
        assert least <= wait <= least * 1.1


async def test_no_base_delay_is_no_wait(world):
    assert await waits_of(world, 503, max_attempts=4, base_delay=0.0) == [0.0, 0.0, 0.0]


async def test_full_jitter_spreads_each_wait_from_nothing_to_its_ceiling(world):
    shares = []
    for seed in range(12):
        waits = await waits_of(world, 503, seed=seed, max_attempts=7, jitter="full", max_delay=8.0)
        for wait, ceiling in zip(waits, (1.0, 2.0, 4.0, 8.0, 8.0, 8.0), strict=True):
            assert 0.0 <= wait <= ceiling
            shares.append(wait / ceiling)
    assert min(shares) < 0.1
    assert max(shares) > 0.9
    assert 0.4 < sum(shares) / len(shares) < 0.6


async def test_decorrelated_jitter_grows_from_the_wait_before_it_and_no_further_than_the_cap(world):
    grown = capped = 0
    for seed in range(12):
        waits = await waits_of(
            world, 503, seed=seed, max_attempts=10, jitter="decorrelated", base_delay=1.0, max_delay=9.0
        )
        before = 0.0
        for wait in waits:
            assert 1.0 - 1e-9 <= wait <= min(9.0, max(1.0, before * 3.0)) + 1e-9
            grown += wait > before * 2.0
            capped += wait == pytest.approx(9.0)
            before = wait
    assert grown
    assert capped


async def test_the_same_chance_gives_the_same_waits(world):
    first = await waits_of(world, 503, seed=7, max_attempts=4, jitter="full")
    world.clock.advance(1.0)
    assert await waits_of(world, 503, seed=7, max_attempts=4, jitter="full") == pytest.approx(first)
    assert await waits_of(world, 503, seed=8, max_attempts=4, jitter="full") != pytest.approx(first)


async def test_retry_after_is_waited_and_never_earlier(world):
    for seed in range(10):
        (wait,) = await waits_of(world, Reply(status=429, headers={"retry-after": "7"}), 200, seed=seed)
        assert 7.0 <= wait <= 7.7


async def test_the_spread_after_a_told_wait_is_a_second_at_most(world):
    waits = []
    for seed in range(10):
        waits += await waits_of(world, Reply(status=503, headers={"retry-after": "50"}), 200, seed=seed)
    assert all(50.0 <= wait <= 51.0 for wait in waits)
    assert max(waits) > 50.5


async def test_retry_after_zero_is_a_told_wait(world):
    (wait,) = await waits_of(world, Reply(status=503, headers={"retry-after": "0"}), 200)
    assert 0.0 < wait <= 0.01


async def test_a_told_wait_counts_for_any_status_that_is_sent_again(world):
    (wait,) = await waits_of(world, Reply(status=500, headers={"retry-after": "3"}), 200)
    assert 3.0 <= wait <= 3.3


async def test_a_wait_beyond_the_cap_returns_the_answer_at_once_with_the_wait(world):
    network = world.scripted(Reply(status=503, headers={"retry-after": "600"}, body=b"later"), 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert (answer.status_code, answer.content) == (503, b"later")
    assert world.clock.monotonic() == 0.0
    record = answer.extensions["aragora_transport"]
    assert record.retry_after == 600.0
    assert record.attempts[-1].wait == 600.0


async def test_a_told_wait_of_the_cap_itself_is_waited(world):
    (wait,) = await waits_of(
        world, Reply(status=503, headers={"retry-after": "60"}), 200, max_retry_after=60.0
    )
    assert 60.0 <= wait <= 61.0


async def test_the_wait_on_the_record_is_the_one_that_was_waited(world):
    network = world.scripted(Reply(status=503, headers={"retry-after": "7"}), 503, 200)
    answer = await world.get(world.layer(RetryTransport, network))
    told, backed_off, last = answer.extensions["aragora_transport"].attempts
    first, second, third = (sent.at for sent in network.sent)
    assert [told.wait, backed_off.wait] == pytest.approx([second - first, third - second])
    assert last.wait == 0.0


@pytest.mark.parametrize(
    ("strategy", "waits"),
    [
        pytest.param(tenacity.wait_fixed(2.5), [2.5, 2.5, 2.5], id="fixed"),
        pytest.param(tenacity.wait_none(), [0.0, 0.0, 0.0], id="none"),
        pytest.param(tenacity.wait_incrementing(start=1, increment=2), [1.0, 3.0, 5.0], id="incrementing"),
        pytest.param(tenacity.wait_exponential(multiplier=1, max=3), [1.0, 2.0, 3.0], id="exponential"),
        pytest.param(tenacity.wait_fixed(1) + tenacity.wait_fixed(2), [3.0, 3.0, 3.0], id="combined"),
        pytest.param(
            tenacity.wait_chain(tenacity.wait_fixed(4), tenacity.wait_fixed(1)), [4.0, 1.0, 1.0], id="chain"
        ),
        pytest.param(lambda state: state.attempt_number * 10, [10.0, 20.0, 30.0], id="function"),
        pytest.param(lambda state: -5.0, [0.0, 0.0, 0.0], id="negative"),
    ],
)
async def test_any_tenacity_strategy_can_say_how_long(world, strategy, waits):
    assert await waits_of(world, 503, max_attempts=4, wait=strategy) == pytest.approx(waits)


async def test_a_random_tenacity_strategy_keeps_its_bounds(world):
    waits = await waits_of(world, 503, max_attempts=9, wait=tenacity.wait_random(2.0, 3.0))
    assert all(2.0 <= wait <= 3.0 for wait in waits)
    assert len(set(waits)) > 1


async def test_a_strategy_is_shown_the_answer(world):
    def twice_what_it_says(state):
        return float(state.outcome.result().headers["x-wait"]) * 2

    steps = (Reply(status=503, headers={"x-wait": "1.5"}), Reply(status=503, headers={"x-wait": "4"}), 200)
    assert await waits_of(world, *steps, wait=twice_what_it_says) == pytest.approx([3.0, 8.0])


async def test_a_strategy_is_shown_the_error(world):
    strategy = tenacity.wait_exception(lambda error: 6.0 if "number 1" in str(error) else 2.0)
    errors = [world.httpx.ConnectError(f"number {number}") for number in (0, 1)]
    assert await waits_of(world, *errors, 200, wait=strategy) == pytest.approx([2.0, 6.0])


async def test_a_told_wait_goes_before_a_strategy(world):
    (wait,) = await waits_of(
        world, Reply(status=503, headers={"retry-after": "9"}), 200, wait=tenacity.wait_fixed(1)
    )
    assert 9.0 <= wait <= 9.9


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
async def test_a_strategy_that_tells_no_time_is_an_error_not_a_wait_for_ever(world, seconds):
    network = world.scripted(Reply(status=503, body=b"down"), 200)
    policy = RetryPolicy(wait=lambda _: seconds)
    with pytest.raises(ValueError, match="must be a finite time"):
        await world.get(world.layer(RetryTransport, network, policy=policy))
    assert network.open_responses == 0


async def test_a_strategy_that_raises_ends_the_call_and_leaves_no_answer_open(world):
    def broken(state):
        raise KeyError("broken strategy")

    network = world.scripted(Reply(status=503, body=b"down"), 200)
    with pytest.raises(KeyError, match="broken strategy"):
        await world.get(world.layer(RetryTransport, network, policy=RetryPolicy(wait=broken)))
    assert len(network.sent) == 1
    assert network.open_responses == 0
