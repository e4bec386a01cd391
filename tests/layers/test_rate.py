"""Rates that are kept on our side, before the platform complains."""

from __future__ import annotations

import random

import anyio
import pytest

from aragora_transport import Policy, RateLimitedError, RateLimitPolicy, TimeoutPolicy, call_options
from aragora_transport._rate import Pace
from aragora_transport.layers import RateLimitTransport

pytestmark = pytest.mark.anyio


async def test_a_rate_lets_a_burst_through_and_paces_the_rest(world):
    network = world.scripted(200)
    layer = world.layer(RateLimitTransport, network, policy=RateLimitPolicy(rate=3, per=6.0))
    for _ in range(5):
        await world.get(layer)
    assert [sent.at for sent in network.sent[:3]] == [0.0, 0.0, 0.0]
    assert [sent.at for sent in network.sent[3:]] == pytest.approx([2.0, 4.0])


async def test_each_bucket_has_a_rate_of_its_own(world):
    network = world.scripted(200)
    layer = world.layer(RateLimitTransport, network, policy=RateLimitPolicy(rate=1, per=10.0))
    for key in ("a", "b", "a"):
        await world.get(layer, extensions=call_options(rate_key=key))
    assert [sent.at for sent in network.sent] == pytest.approx([0.0, 0.0, 10.0])


async def test_callers_leave_in_the_order_in_which_they_came(async_world):
    network = async_world.scripted(200)
    layer = async_world.layer(RateLimitTransport, network, policy=RateLimitPolicy(rate=2, per=1.0))
    came = []

    async def call(number):
        came.append(str(number))  # trio starts tasks in an order of its own
        await client.get(f"http://platform.test/{number}")

    async with async_world.client(layer) as client, anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(call, number)
    assert [sent.url[-1] for sent in network.sent] == came
    assert network.sent[-1].at == pytest.approx(3.0)


async def test_a_turn_that_comes_too_late_is_refused_at_once(world):
    policy = Policy(
        rate_limit=RateLimitPolicy(rate=1, per=100.0), timeout=TimeoutPolicy(attempt=5.0, total=50.0)
    )
    stack = world.stack(world.scripted(200), policy=policy)
    await world.get(stack)
    with pytest.raises(RateLimitedError) as refused:
        await world.get(stack)
    assert world.clock.monotonic() == 0.0
    assert refused.value.retry_after == pytest.approx(100.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_rate_is_kept_within_one_percent_over_random_arrivals(seed):
    rng = random.Random(seed)
    rate, per = rng.uniform(1, 50), rng.uniform(0.5, 5)
    pace, now, free, left = Pace(rate, per), 0.0, 0.0, 0
    while now < 1000 * per:
        now = max(now + rng.expovariate(2 * rate / per), free)  # twice as many come as may pass
        pace.take(now)
        free = pace.next_at
        left += 1
    assert left * per / now == pytest.approx(rate, rel=0.01)
