"""Results that come late, and clocks that are set: neither moves a circuit."""

from __future__ import annotations

import anyio
import pytest

from aragora_transport import BreakerPolicy, Policy
from aragora_transport.events import CircuitChanged
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio
URL = "http://platform.test/"


def bare(**fields):
    """A policy of a breaker and nothing else."""
    fields = {"failure_threshold": 1, "cooldown": 60.0, **fields}
    return Policy(
        timeout=None, retry=None, rate_limit=None, metrics=False, log=False, breaker=BreakerPolicy(**fields)
    )


def state(stack):
    return stack.circuits()["test"]["state"]


def changes(world):
    return [(event.old, event.new) for event in world.events if isinstance(event, CircuitChanged)]


# One call is let through at 0 s and answered late; another fails at 1 s and opens the circuit until 61 s;
# a probe goes out at 70 s and is answered at 80 s.
@pytest.mark.parametrize("late", [200, 503], ids=["success", "failure"])
@pytest.mark.parametrize(
    ("at", "meanwhile"),
    [(50.0, "open"), (75.0, "half-open"), (85.0, "closed")],
    ids=["while open", "while half-open", "after it closed again"],
)
async def test_a_late_result_is_void(async_world, platform, late, at, meanwhile):
    world = async_world
    stack = world.stack(platform.network, policy=bare())
    async with world.client(stack) as client, anyio.create_task_group() as tasks:
        platform.answer = Reply(status=late, after=at)
        tasks.start_soon(client.get, URL)
        await world.until(lambda: platform.sent == 1)
        await world.clock.sleep(1.0)
        platform.answer = 503
        await client.get(URL)
        if at > 70.0:
            await world.clock.sleep(69.0)
            platform.answer = Reply(after=10.0)
            tasks.start_soon(client.get, URL)
            await world.until(lambda: platform.sent == 3)
        await world.clock.sleep(at - 0.5 - world.clock.monotonic())
        before = stack.circuits()["test"]
        assert (before["state"], platform.network.sent[0].status) == (meanwhile, None)
        await world.clock.sleep(1.0)
        after = stack.circuits()["test"]
        assert (after["state"], platform.network.sent[0].status) == (meanwhile, late)
        assert after["failures"] == before["failures"]


async def test_a_late_result_of_one_probe_does_not_touch_the_next_round(async_world, platform):
    """Two probes; one fails and opens the circuit, the other succeeds only in the round after."""
    world = async_world
    stack = world.stack(platform.network, policy=bare(half_open_probes=2))
    async with world.client(stack) as client, anyio.create_task_group() as tasks:
        platform.answer = 503
        await client.get(URL)
        await world.clock.sleep(60.0)
        platform.answer = Reply(after=70.0)
        tasks.start_soon(client.get, URL)
        await world.until(lambda: platform.sent == 2)
        platform.answer = 503
        await client.get(URL)
        await world.clock.sleep(65.0)
        platform.answer = Reply(after=20.0)
        tasks.start_soon(client.get, URL)
        await world.until(lambda: platform.sent == 4)
        await world.clock.sleep(10.0)
        assert platform.network.sent[1].status == 200
        assert state(stack) == "half-open"


async def test_late_failures_do_not_extend_the_open_time(async_world):
    world = async_world
    network = world.scripted(*[Reply(status=503, after=1.0 + number) for number in range(20)])
    stack = world.stack(network, policy=bare(failure_threshold=5))
    async with world.client(stack) as client, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(client.get, URL)
        await world.clock.sleep(30.0)  # the fifth came at 5 s, the last at 20 s
        assert stack.circuits()["test"]["next_probe_in"] == 35.0
    assert len(network.sent) == 20
    assert changes(world) == [("closed", "open")]


async def test_a_late_503_that_tells_a_wait_keeps_it_open_so_long(async_world):
    """It moves no state; but the platform has asked to be left alone."""
    world = async_world
    told = Reply(status=503, headers={"retry-after": "90"}, after=5.0)
    stack = world.stack(world.scripted(told, 503), policy=bare())
    async with world.client(stack) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, URL)
        await world.clock.sleep(1.0)
        await client.get(URL)
        assert stack.circuits()["test"]["next_probe_in"] == 60.0
        await world.clock.sleep(9.0)
        assert stack.circuits()["test"]["next_probe_in"] == 85.0
    assert changes(world) == [("closed", "open")]


async def test_a_round_of_failing_probes_is_one_change(async_world):
    world = async_world
    network = world.scripted(503, *[Reply(status=503, after=after) for after in (1.0, 2.0, 3.0)])
    stack = world.stack(network, policy=bare(half_open_probes=3))
    async with world.client(stack) as client:
        await client.get(URL)
        await world.clock.sleep(60.0)
        world.events.clear()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(client.get, URL)
    assert len(network.sent) == 4
    assert changes(world) == [("open", "half-open"), ("half-open", "open")]
    assert stack.circuits()["test"]["next_probe_in"] == 58.0  # since the first of them failed


@pytest.mark.parametrize("hours", [1.0, -1.0, 24.0])
async def test_steps_of_the_wall_clock_change_nothing(world, platform, hours):
    """Neither the open time nor the window goes by the wall clock."""
    stack = world.stack(platform.network, policy=bare())
    await platform.answers(stack, 503)
    world.clock.wall += 3600.0 * hours
    assert await platform.refuses(stack)
    assert stack.circuits()["test"]["next_probe_in"] == 60.0
    world.clock.advance(59.9)
    assert await platform.refuses(stack)
    world.clock.wall -= 3600.0 * hours
    world.clock.advance(0.1)
    assert not await platform.refuses(stack)
    assert state(stack) == "closed"


@pytest.mark.parametrize("hours", [1.0, -1.0])
async def test_steps_of_the_wall_clock_do_not_empty_the_window(world, platform, hours):
    stack = world.stack(platform.network, policy=bare(failure_threshold=3))
    await platform.answers(stack, 503, 503)
    world.clock.wall += 3600.0 * hours
    await platform.answers(stack, 503)
    assert await platform.refuses(stack)
