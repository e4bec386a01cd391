"""Who would wait at a gate in vain is told so at once; who gives up frees its place."""

from __future__ import annotations

import pickle
import random

import anyio
import pytest

from aragora_transport import Policy, RateLimitedError, RateLimitPolicy, TimeoutPolicy, call_options
from aragora_transport.layers import RateLimitTransport
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio
URL = "http://platform.test/"


def limited(seconds):
    return Reply(status=429, headers={"retry-after": str(seconds)})


async def test_a_wait_that_is_too_long_is_refused_at_once_with_the_wait(world):
    network = world.scripted(limited(90), 200)
    layer = world.layer(RateLimitTransport, network, platform="slack")
    await world.get(layer)
    world.clock.advance(10.0)
    with pytest.raises(world.httpx.TransportError) as caught:
        await world.get(layer)
    error = caught.value
    assert isinstance(error, RateLimitedError)
    assert (error.platform, error.operation, error.key, error.reason) == (
        "slack",
        "GET",
        "slack",
        "wait_too_long",
    )
    assert 80.0 <= error.retry_after <= 80.1
    assert error.request.url == URL
    assert "that is longer than max_retry_after; try again after that" in str(error)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    assert (type(copy), str(copy)) == (type(error), str(error))
    assert len(network.sent) == 1
    assert world.clock.monotonic() == 10.0


async def test_a_wait_beyond_the_deadline_is_refused_at_once(world):
    network = world.scripted(limited(20), 200)
    stack = world.stack(network, policy=Policy(retry=None, timeout=TimeoutPolicy(total=10.0)))
    await world.get(stack)
    with pytest.raises(RateLimitedError) as caught:
        await world.get(stack)
    assert (caught.value.reason, world.clock.monotonic()) == ("deadline", 0.0)
    assert caught.value.retry_after >= 20.0


async def test_with_a_later_deadline_of_its_own_a_call_waits(world):
    network = world.scripted(limited(20), 200)
    stack = world.stack(network, policy=Policy(retry=None, timeout=TimeoutPolicy(total=10.0)))
    await world.get(stack)
    answer = await world.get(stack, extensions=call_options(total_timeout=30.0))
    assert answer.status_code == 200


async def test_a_full_queue_refuses_one_more_at_once(async_world, still):
    world = async_world
    network = world.scripted(limited(20), 200)
    layer = world.layer(RateLimitTransport, network, policy=RateLimitPolicy(max_waiters=3))
    await world.get(layer)
    async with world.client(layer) as client, anyio.create_task_group() as tasks, still():
        for _ in range(3):
            tasks.start_soon(client.get, URL)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RateLimitedError) as caught:
            await client.get(URL)
        assert caught.value.reason == "queue_full"
        assert caught.value.retry_after >= 20.0
        assert "too many calls wait for it already" in str(caught.value)
    assert len(network.sent) == 4


async def test_where_nobody_may_wait_everybody_is_refused(world):
    network = world.scripted(limited(20), 200)
    layer = world.layer(RateLimitTransport, network, policy=RateLimitPolicy(max_waiters=0))
    await world.get(layer)
    with pytest.raises(RateLimitedError):
        await world.get(layer)
    world.clock.advance(21.0)
    assert (await world.get(layer)).status_code == 200


async def test_half_of_two_hundred_that_give_up_free_their_places_and_hold_up_nobody(async_world, still):
    world = async_world
    rng = random.Random(3)
    leave_early = set(rng.sample(range(200), 100))
    network = world.scripted(limited(20), 200)
    layer = world.layer(RateLimitTransport, network, policy=RateLimitPolicy(max_waiters=200))
    await world.get(layer)
    network.sent.clear()
    scopes = {}
    passed = []

    async def call(number):
        with anyio.CancelScope() as scopes[number]:
            await client.get(f"{URL}{number}")
            passed.append(number)

    async with world.client(layer) as client, anyio.create_task_group() as tasks, still():
        for number in range(200):
            tasks.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()
        for number in rng.sample(sorted(leave_early), 100):
            scopes[number].cancel()
        await anyio.wait_all_tasks_blocked()
        for number in range(200, 300):  # their places are free
            tasks.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()
    stayed = [number for number in range(300) if number not in leave_early]
    assert [int(sent.url.removeprefix(URL)) for sent in network.sent] == stayed
    assert passed == stayed


async def test_only_so_many_gates_are_kept(world):
    stack = world.stack(
        world.scripted(limited(1)), policy=Policy(retry=None, rate_limit=RateLimitPolicy(max_keys=10))
    )
    for number in range(50):
        await world.get(stack, extensions=call_options(rate_key=f"bucket {number}"))
    assert list(stack.state.gates) == [f"bucket {number}" for number in range(40, 50)]


async def test_a_gate_at_which_somebody_waits_is_kept(async_world, still):
    world = async_world
    network = world.scripted(limited(20), limited(1), limited(1), limited(1), 200)
    stack = world.stack(network, policy=Policy(retry=None, rate_limit=RateLimitPolicy(max_keys=2)))
    async with world.client(stack) as client, anyio.create_task_group() as tasks:

        async def call(bucket):
            await client.get(URL, extensions=call_options(rate_key=bucket))

        await call("first")
        async with still():
            tasks.start_soon(call, "first")
            await anyio.wait_all_tasks_blocked()
            for bucket in ("other", "another", "and another"):
                await call(bucket)
            assert list(stack.state.gates) == ["first", "and another"]
    assert network.sent[-1].at >= 20.0
