"""One circuit for each key; what they look like from outside; opened and closed by hand."""

from __future__ import annotations

import anyio
import pytest

from aragora_transport import BreakerPolicy, CircuitOpenError, Policy, call_options
from aragora_transport.events import CircuitChanged
from aragora_transport.layers import BreakerTransport
from aragora_transport.testing import Hang

pytestmark = pytest.mark.anyio


def bare(**fields):
    """A policy of a breaker and metrics."""
    fields = {"failure_threshold": 1, "cooldown": 60.0, **fields}
    return Policy(timeout=None, retry=None, rate_limit=None, log=False, breaker=BreakerPolicy(**fields))


def changes(world):
    return [(event.key, event.old, event.new) for event in world.events if isinstance(event, CircuitChanged)]


def host(name):
    return {"url": f"http://{name}.test/"}


def operation(name):
    return {"extensions": call_options(operation=name)}


async def test_one_circuit_for_the_platform_is_the_default(world, platform):
    layer = platform.breaker(failure_threshold=1)
    await platform.answers(layer, 503)
    assert await platform.refuses(layer, **host("other"), **operation("other"))


@pytest.mark.parametrize(("key", "named"), [("host", host), ("operation", operation)])
async def test_each_key_has_a_circuit_of_its_own(world, platform, key, named):
    layer = platform.breaker(failure_threshold=1, key=key)
    platform.answer = 503
    await world.get(layer, **named("bad"))
    assert await platform.refuses(layer, **named("bad"))
    assert not await platform.refuses(layer, **named("good"))
    with pytest.raises(CircuitOpenError) as caught:
        await world.get(layer, **named("bad"))
    assert caught.value.key.startswith("bad")


async def test_the_operation_is_the_method_where_none_is_named(world, platform):
    layer = platform.breaker(failure_threshold=1, key="operation")
    platform.answer = 503
    await world.post(layer)
    with pytest.raises(CircuitOpenError, match="POST"):
        await world.post(layer)
    assert not await platform.refuses(layer)


async def test_only_so_many_circuits_are_kept(world, platform):
    stack = world.stack(platform.network, policy=bare(key="host", max_keys=10))
    for number in range(50):
        await platform.refuses(stack, **host(f"h{number}"))
    assert list(stack.circuits()) == [f"h{number}.test" for number in range(40, 50)]


async def test_the_least_recently_used_closed_circuit_goes_first(world, platform):
    stack = world.stack(platform.network, policy=bare(key="host", max_keys=3))
    platform.answer = 503
    await world.get(stack, **host("dead"))
    for name in ("a", "b", "a", "c"):
        await platform.refuses(stack, **host(name))
    assert set(stack.circuits()) == {"dead.test", "a.test", "c.test"}
    assert await platform.refuses(stack, **host("dead"))


async def test_open_circuits_are_forgotten_as_well_where_there_are_too_many(world, platform):
    stack = world.stack(platform.network, policy=bare(key="host", max_keys=3))
    platform.answer = 503
    for number in range(20):
        await world.get(stack, **host(f"h{number}"))
    assert len(stack.circuits()) == 3


async def test_a_circuit_whose_probe_is_under_way_is_kept(async_world, platform):
    stack = async_world.stack(platform.network, policy=bare(key="host", max_keys=2))
    platform.answer = 503
    await async_world.get(stack, **host("probed"))
    async_world.clock.advance(60.0)
    platform.answer = Hang()
    async with async_world.client(stack) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, "http://probed.test/")
        await async_world.until(lambda: platform.sent == 2)
        platform.answer = 503  # else the others, being closed, would go first anyhow
        for number in range(5):
            await async_world.get(stack, **host(f"h{number}"))
        assert set(stack.circuits()) == {"probed.test", "h4.test"}
        tasks.cancel_scope.cancel()


# --- by hand ---


async def test_an_isolated_circuit_stays_open_until_it_is_reset(world, platform):
    stack = world.stack(platform.network, policy=bare(max_cooldown=120.0))
    stack.isolate()
    told = {"state": "open", "failures": 0, "next_probe_in": None, "cause": "isolated by hand"}
    assert stack.circuits() == {"test": told}
    world.clock.advance(1e6)
    with pytest.raises(CircuitOpenError) as caught:
        await world.get(stack)
    assert caught.value.retry_after == float("inf")
    assert str(caught.value) == "test GET: circuit open; it was isolated by hand and stays open until reset()"
    stack.reset()
    assert not await platform.refuses(stack)
    assert stack.circuits() == {
        "test": {"state": "closed", "failures": 0, "next_probe_in": None, "cause": None}
    }


async def test_isolating_takes_effect_at_once_and_tells_so(world, platform):
    stack = world.stack(platform.network, policy=bare())
    stack.isolate()
    stack.reset()
    assert changes(world) == [("test", "closed", "open"), ("test", "open", "closed")]
    assert [event.next_probe_in for event in world.events] == [None, None]
    assert world.sample("platform_circuit_breaker_state", platform="test") == 0.0


async def test_a_circuit_that_was_reset_has_forgotten_its_failures(world, platform):
    stack = world.stack(platform.network, policy=bare(failure_threshold=3))
    await platform.answers(stack, 503, 503)
    stack.reset()
    await platform.answers(stack, 503, 503)
    assert not await platform.refuses(stack)


async def test_after_a_reset_a_circuit_opens_for_its_cooldown_again(world, platform):
    stack = world.stack(platform.network, policy=bare())
    stack.isolate()
    stack.reset()
    await platform.answers(stack, 503)
    assert stack.circuits()["test"]["next_probe_in"] == 60.0


async def test_isolating_an_open_circuit_is_no_change_and_makes_it_stay_open(world, platform):
    stack = world.stack(platform.network, policy=bare())
    await platform.answers(stack, 503)
    stack.isolate()
    assert changes(world) == [("test", "closed", "open")]
    world.clock.advance(1e6)
    assert await platform.refuses(stack)


async def test_one_key_is_isolated_alone(world, platform):
    stack = world.stack(platform.network, policy=bare(key="host"))
    stack.isolate("bad.test")
    assert await platform.refuses(stack, **host("bad"))
    assert not await platform.refuses(stack, **host("good"))


# --- events ---


async def test_every_change_is_told_with_the_worst_state_of_all_keys(world, platform):
    stack = world.stack(platform.network, policy=bare(key="host"))
    platform.answer = 503
    await world.get(stack, **host("a"))
    world.clock.advance(30.0)
    await world.get(stack, **host("b"))
    world.clock.advance(30.0)
    await platform.refuses(stack, **host("a"))
    world.clock.advance(30.0)
    await platform.refuses(stack, **host("b"))
    told = [
        (event.key, event.new, event.worst) for event in world.events if isinstance(event, CircuitChanged)
    ]
    assert told == [
        ("a.test", "open", "open"),
        ("b.test", "open", "open"),
        ("a.test", "half-open", "open"),
        ("a.test", "closed", "open"),
        ("b.test", "half-open", "half-open"),
        ("b.test", "closed", "closed"),
    ]
    assert world.sample("platform_circuit_breaker_state", platform="test") == 0.0


async def test_a_change_tells_failures_cause_and_the_time_of_the_next_probe(world, platform):
    stack = world.stack(platform.network, policy=bare(failure_threshold=3))
    await platform.answers(stack, 500, 502, 503)
    (event,) = (event for event in world.events if isinstance(event, CircuitChanged))
    assert (event.platform, event.operation, event.attempt) == ("test", "GET", 1)
    assert (event.old, event.new, event.failures, event.cause) == ("closed", "open", 3, "503")
    assert event.next_probe_in == 60.0


async def test_the_metric_follows_the_circuit(world, platform):
    stack = world.stack(platform.network, policy=bare(success_threshold=2))
    seen = []
    for answer in (503, None, 200, 200):
        if answer is None:
            world.clock.advance(60.0)
        else:
            await platform.answers(stack, answer)
        seen.append(world.sample("platform_circuit_breaker_state", platform="test"))
    assert seen == [1.0, 1.0, 2.0, 0.0]


def test_a_layer_with_a_key_of_its_own_makes_no_circuit_before_it_is_needed(blocking_world):
    layer = blocking_world.layer(
        BreakerTransport, blocking_world.scripted(200), policy=BreakerPolicy(key="host")
    )
    assert layer.circuits.snapshot() == {}
