"""What outlives a call, and who shares it."""

from __future__ import annotations

import random

import pytest
from prometheus_client import CollectorRegistry

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    Policy,
    RateLimitedError,
    RetryBudget,
    RetryPolicy,
    resilient,
    resilient_sync,
)
from aragora_transport.state import State
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

REGISTRY = CollectorRegistry()
LIMITED = Reply(status=429, headers={"retry-after": "20"})


def stack_of(policy, **keywords):
    return resilient("test", ScriptedTransport(200), policy=policy, registry=REGISTRY, **keywords)


async def test_a_shared_state_shares_circuits(world):
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1))
    one = world.stack(world.scripted(503), policy=policy)
    network = world.scripted(200)
    other = world.stack(network, policy=policy, state=one.state)
    await world.get(one)
    with pytest.raises(CircuitOpenError):
        await world.get(other)
    assert (network.sent, other.circuits()) == ([], one.circuits())


async def test_a_body_counts_also_where_the_circuit_is_shared_by_clients_of_httpx_and_httpx2(world):
    other_world = type(world)(world.kind, "httpx" if world.flavor_name == "httpx2" else "httpx2")
    other_world.clock = world.clock
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1, failure_rate=0.0))
    one = world.stack(world.scripted(200), policy=policy)
    dies = Reply(body=b"x", then=other_world.httpx.ReadError)
    other = other_world.stack(other_world.scripted(dies), policy=policy, state=one.state)
    await world.get(one)  # what it left for the bodies of others is of its own flavour
    with pytest.raises(other_world.httpx.ReadError):
        await other_world.get(other)
    assert one.circuits()["test"]["cause"] == "ReadError in the body"


async def test_a_shared_state_shares_gates(world):
    one = world.stack(world.scripted(LIMITED), policy=Policy(retry=None))
    network = world.scripted(200)
    other = world.stack(network, policy=Policy(retry=None), state=one.state)
    await world.get(one)
    await world.get(other)
    assert network.sent[0].at >= 20.0


async def test_a_shared_state_shares_the_retry_budget(world):
    retry = RetryPolicy(budget=RetryBudget(cap=2.0, per_second=0.0), base_delay=0.0)
    policy = Policy(retry=retry, breaker=None)
    one = world.stack(world.scripted(503), policy=policy)
    network = world.scripted(503)
    other = world.stack(network, policy=policy, state=one.state)
    await world.get(one)
    await world.get(other)
    assert len(network.sent) == 1


async def test_stacks_that_share_no_state_share_nothing(world):
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1))
    await world.get(world.stack(world.scripted(503), policy=policy))
    assert (await world.get(world.stack(world.scripted(200), policy=policy))).status_code == 200


async def test_a_state_made_by_hand_brings_clock_and_chance(world):
    async def wait(state):
        make = resilient_sync if world.blocking else resilient
        stack = make("test", world.scripted(503, 200), state=state, registry=world.registry)
        return (await world.get(stack)).extensions["aragora_transport"].attempts[0].wait

    waits = [await wait(State(Policy(), clock=world.clock, rng=random.Random(seed))) for seed in (3, 3, 4)]
    assert waits[0] == waits[1] != waits[2]
    assert world.clock.monotonic() >= 3.0


async def test_chance_is_reproducible(world):
    async def waits(**keywords):
        stack = world.stack(world.scripted(503), **keywords)
        return [attempt.wait for attempt in (await world.get(stack)).extensions["aragora_transport"].attempts]

    first, again = await waits(rng=random.Random(3)), await waits(rng=random.Random(3))
    assert first == again
    assert first != await waits(rng=random.Random(4))
    assert await waits(rng=None) != await waits(rng=None)


@pytest.mark.parametrize(
    ("policy", "keywords", "says"),
    [
        (Policy(breaker=None), {}, r"state= goes by breaker=None, the policy says BreakerPolicy\("),
        (Policy(breaker=BreakerPolicy(cooldown=1.0)), {}, "stacks that share a state must agree on it"),
        (Policy(retry=RetryPolicy(budget=None)), {}, "state= goes by retry.budget=None, the policy says Ret"),
        (Policy(rate_limit=None), {}, "state= has no gates"),
        (Policy(), {"clock": ManualClock()}, "leave clock= and rng= out"),
        (Policy(), {"rng": random.Random(1)}, "leave clock= and rng= out"),
    ],
    ids=["no breaker", "other breaker", "no budget", "no gates", "clock", "rng"],
)
def test_a_state_that_does_not_fit_is_refused(policy, keywords, says):
    state = stack_of(policy).state
    with pytest.raises(ValueError, match=says):
        stack_of(Policy(), state=state, **keywords)


def test_a_state_may_hold_more_than_a_stack_needs():
    state = stack_of(Policy()).state
    alone = stack_of(Policy(breaker=None, retry=None, rate_limit=None), state=state)
    assert alone.state is state


async def test_a_gate_of_a_stack_without_retries_is_waited_for_a_minute_at_most(world):
    network = world.scripted(Reply(status=429, headers={"retry-after": "61"}))
    stack = world.stack(network, policy=Policy(retry=None))
    await world.get(stack)
    with pytest.raises(RateLimitedError):
        await world.get(stack)
