"""The retry budget: what earns retries, what spends them, and what gives them back."""

from __future__ import annotations

import anyio.lowlevel
import pytest

from aragora_transport import Policy, RetryBudget, RetryPolicy
from aragora_transport.events import RetryRefused, RetryScheduled
from aragora_transport.layers import RetryTransport
from aragora_transport.testing import Hang, ManualClock, Reply

pytestmark = pytest.mark.anyio

BARE = {"breaker": None, "rate_limit": None, "timeout": None, "metrics": False, "log": False}


def stack(world, network, **retry):
    """Retries alone, with the events told."""
    return world.stack(network, policy=Policy(retry=RetryPolicy(**retry), **BARE))


def scheduled(world):
    return [event for event in world.events if isinstance(event, RetryScheduled)]


def refusals(world):
    return [event.reason for event in world.events if isinstance(event, RetryRefused)]


async def sends_of_a_call(world, layer, network):
    before = len(network.sent)
    await world.get(layer)
    return len(network.sent) - before


async def test_an_empty_budget_returns_the_answer_as_it_is(world):
    network = world.scripted(Reply(status=503, body=(b"not ", b"yet")))
    budget = RetryBudget(per_success=0, per_second=0, cap=1)
    layer = world.layer(RetryTransport, network, policy=RetryPolicy(budget=budget))
    assert await sends_of_a_call(world, layer, network) == 2
    spent_at = world.clock.monotonic()
    client = world.client(layer)
    request = client.build_request("GET", "http://platform.test/")
    answer = client.send(request, stream=True) if world.blocking else await client.send(request, stream=True)
    assert answer.status_code == 503
    assert not network.sent[-1].consumed  # nobody has touched it
    assert not network.sent[-1].closed
    assert (answer.read() if world.blocking else await answer.aread()) == b"not yet"
    assert len(network.sent) == 3
    assert world.clock.monotonic() == spent_at


async def test_an_empty_budget_raises_the_error_as_it_is(world):
    errors = [world.httpx.ReadError(str(number)) for number in range(3)]
    network = world.scripted(*errors)
    budget = RetryBudget(per_success=0, per_second=0, cap=1)
    layer = world.layer(RetryTransport, network, policy=RetryPolicy(budget=budget))
    with pytest.raises(world.httpx.ReadError) as caught:
        await world.get(layer)
    assert caught.value is errors[1]


async def test_a_full_budget_allows_as_many_retries_as_its_cap(world):
    network = world.scripted(503)
    budget = RetryBudget(per_success=0, per_second=0, cap=5)
    layer = world.layer(RetryTransport, network, policy=RetryPolicy(budget=budget))
    assert [await sends_of_a_call(world, layer, network) for _ in range(4)] == [3, 3, 2, 1]


async def test_successes_earn_retries(world):
    network = world.scripted(503, 503, 503, 200, 200, 200, 503)
    budget = RetryBudget(per_success=0.5, per_second=0, cap=2)
    layer = world.layer(RetryTransport, network, policy=RetryPolicy(budget=budget))
    assert await sends_of_a_call(world, layer, network) == 3
    assert [await sends_of_a_call(world, layer, network) for _ in range(3)] == [1, 1, 1]
    assert await sends_of_a_call(world, layer, network) == 2  # 1.5 tokens
    assert await sends_of_a_call(world, layer, network) == 1


async def test_failures_and_refusals_by_a_rate_limit_earn_nothing(world):
    network = world.scripted(503, 503, 429, 500, 503)
    budget = RetryBudget(per_success=1, per_second=0, cap=1)
    policy = RetryPolicy(budget=budget, max_attempts=2)
    layer = world.layer(RetryTransport, network, policy=policy)
    assert await sends_of_a_call(world, layer, network) == 2
    assert await sends_of_a_call(world, layer, network) == 1  # 429
    assert await sends_of_a_call(world, layer, network) == 1  # 500
    assert await sends_of_a_call(world, layer, network) == 1


async def test_an_answer_that_refuses_the_callers_request_is_a_success_of_the_platform(world):
    network = world.scripted(503, 503, 404, 503)
    budget = RetryBudget(per_success=1, per_second=0, cap=1)
    policy = RetryPolicy(budget=budget, max_attempts=2)
    layer = world.layer(RetryTransport, network, policy=policy)
    assert [await sends_of_a_call(world, layer, network) for _ in range(3)] == [2, 1, 2]


async def test_time_earns_retries(world):
    network = world.scripted(503)
    budget = RetryBudget(per_success=0, per_second=0.1, cap=1)
    policy = RetryPolicy(budget=budget, max_attempts=2, base_delay=0)
    layer = world.layer(RetryTransport, network, policy=policy)
    assert await sends_of_a_call(world, layer, network) == 2
    world.clock.advance(9.0)
    assert await sends_of_a_call(world, layer, network) == 1
    world.clock.advance(1.0)
    assert await sends_of_a_call(world, layer, network) == 2


async def test_no_more_is_kept_than_the_cap(world):
    network = world.scripted(503)
    budget = RetryBudget(per_success=0, per_second=1, cap=2)
    policy = RetryPolicy(budget=budget, max_attempts=9, base_delay=0)
    layer = world.layer(RetryTransport, network, policy=policy)
    world.clock.advance(1000.0)
    assert await sends_of_a_call(world, layer, network) == 3


async def test_without_a_budget_every_call_is_retried(world):
    network = world.scripted(503)
    policy = RetryPolicy(budget=None, base_delay=0)
    layer = world.layer(RetryTransport, network, policy=policy)
    assert {await sends_of_a_call(world, layer, network) for _ in range(60)} == {3}


async def test_all_calls_of_a_stack_share_one_budget(world):
    network = world.scripted(503)
    layer = stack(world, network, budget=RetryBudget(per_success=0, per_second=0, cap=3))
    assert [await sends_of_a_call(world, layer, network) for _ in range(3)] == [3, 2, 1]
    assert refusals(world) == ["attempts", "budget", "budget"]


async def test_a_retry_that_a_circuit_refuses_costs_nothing(world):
    network = world.scripted(503)
    policy = Policy(retry=RetryPolicy(budget=RetryBudget(per_success=0, per_second=0, cap=1), max_attempts=2))

    def opens(event):
        if isinstance(event, RetryScheduled) and len(network.sent) == 1:
            layer.isolate()

    layer = world.stack(network, policy=policy, on_event=opens)
    assert await sends_of_a_call(world, layer, network) == 1
    layer.reset()
    assert await sends_of_a_call(world, layer, network) == 2
    assert await sends_of_a_call(world, layer, network) == 1


async def test_a_retry_that_is_cancelled_in_its_wait_costs_nothing(async_world):
    world = async_world
    world.clock = ManualClock(auto=False)
    network = world.scripted(503)
    budget = RetryBudget(per_success=0, per_second=0, cap=1)
    layer = world.layer(RetryTransport, network, policy=RetryPolicy(budget=budget, max_attempts=2))
    for number in (1, 2, 3):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.get, layer)
            await world.until(lambda: [sent.closed for sent in network.sent] == [True] * number)  # noqa: B023  # awaited within the turn
            tasks.cancel_scope.cancel()
    assert len(network.sent) == 3
    assert network.open_responses == 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.get, layer)
        await world.until(lambda: [sent.closed for sent in network.sent] == [True] * 4)
        world.clock.advance(2.0)
    assert len(network.sent) == 5  # the token was still there


async def test_a_retry_that_is_cancelled_at_a_gate_costs_nothing(async_world):
    world = async_world
    world.clock = ManualClock(auto=False)
    network = world.scripted(Reply(status=429, headers={"retry-after": "5"}))
    policy = Policy(
        retry=RetryPolicy(budget=RetryBudget(per_success=0, per_second=0, cap=1), max_attempts=2),
        breaker=None,
        timeout=None,
    )
    layer = world.stack(network, policy=policy)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.get, layer)
        await world.until(lambda: scheduled(world))
        for _ in range(50):  # as far as the gate
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert len(network.sent) == 1
    world.clock.advance(10.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.get, layer)
        await world.until(lambda: len(scheduled(world)) == 2)
        world.clock.advance(10.0)
    assert len(network.sent) == 3


async def test_a_retry_that_was_sent_was_spent_whatever_comes_after_it(world):
    def breaks_later(state):
        return 0.0 if state.attempt_number == 1 else 1 / 0

    network = world.scripted(503)
    budget = RetryBudget(per_success=0, per_second=0, cap=1)
    policy = RetryPolicy(budget=budget, wait=breaks_later)
    layer = world.layer(RetryTransport, network, policy=policy)
    with pytest.raises(ZeroDivisionError):
        await world.get(layer)
    assert len(network.sent) == 2
    assert await sends_of_a_call(world, layer, network) == 1


async def test_a_retry_that_is_cancelled_under_way_was_spent(async_world):
    world = async_world
    world.clock = ManualClock(auto=False)
    network = world.scripted(503, Hang(), 503)
    budget = RetryBudget(per_success=0, per_second=0, cap=1)
    policy = RetryPolicy(budget=budget, max_attempts=2, base_delay=0)
    layer = world.layer(RetryTransport, network, policy=policy)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.get, layer)
        await world.until(lambda: len(network.sent) == 2)
        tasks.cancel_scope.cancel()
    assert await sends_of_a_call(world, layer, network) == 1
