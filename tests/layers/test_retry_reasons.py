"""What is told when a retry is planned, and when a failure is final: with the reason."""

from __future__ import annotations

import anyio
import pytest

from aragora_transport import Policy, RetryPolicy, TimeoutPolicy, call_options
from aragora_transport.events import RetryRefused, RetryScheduled
from aragora_transport.testing import ManualClock, Reply

pytestmark = pytest.mark.anyio

BARE = {"breaker": None, "rate_limit": None, "timeout": None, "metrics": False, "log": False}


def stack(world, network, **retry):
    """Retries alone, with the events told."""
    return world.stack(network, policy=Policy(retry=RetryPolicy(**retry), **BARE))


def scheduled(world):
    return [event for event in world.events if isinstance(event, RetryScheduled)]


def refusals(world):
    return [event.reason for event in world.events if isinstance(event, RetryRefused)]


async def test_a_retry_is_announced_with_its_wait(world):
    network = world.scripted(Reply(status=503, headers={"retry-after": "2"}), world.httpx.ReadError, 200)
    await world.get(stack(world, network))
    told, backed_off = scheduled(world)
    assert (told.attempt, told.status, told.error, told.told, told.max_attempts) == (1, 503, None, True, 3)
    assert (backed_off.attempt, backed_off.status, backed_off.error) == (2, None, "ReadError")
    assert not backed_off.told
    times = [sent.at for sent in network.sent]
    assert [told.wait, backed_off.wait] == pytest.approx([times[1] - times[0], times[2] - times[1]])
    assert refusals(world) == []


async def test_the_last_attempt_says_so(world):
    network = world.scripted(503)
    await world.get(stack(world, network))
    (refused,) = [event for event in world.events if isinstance(event, RetryRefused)]
    assert (refused.reason, refused.attempt, refused.status, refused.max_attempts) == ("attempts", 3, 503, 3)


async def test_a_wait_that_is_too_long_is_told_with_the_wait(world):
    network = world.scripted(Reply(status=503, headers={"retry-after": "61"}))
    await world.get(stack(world, network))
    (refused,) = [event for event in world.events if isinstance(event, RetryRefused)]
    assert (refused.reason, refused.wait) == ("retry_after_too_long", 61.0)


async def test_an_unsafe_method_is_the_reason(world):
    network = world.scripted(world.httpx.ReadError("lost"))
    with pytest.raises(world.httpx.ReadError):
        await world.post(stack(world, network), content=b"x")
    assert refusals(world) == ["unsafe_method"]


async def test_a_body_that_is_gone_is_the_reason(world):
    def chunks():
        yield b"once"

    async def async_chunks():
        yield b"once"

    network = world.scripted(503)
    await world.request(stack(world, network), "PUT", content=chunks() if world.blocking else async_chunks())
    assert refusals(world) == ["body_not_replayable"]


async def test_a_deadline_is_the_reason(world):
    network = world.scripted(503)
    policy = Policy(breaker=None, rate_limit=None, timeout=TimeoutPolicy(total=0.9))
    await world.get(world.stack(network, policy=policy))
    assert refusals(world) == ["deadline"]


async def test_a_deadline_before_a_gate_that_others_have_closed_is_the_reason(async_world):
    world = async_world
    network = world.scripted(
        Reply(status=429, headers={"retry-after": "15"}, after=1.0),
        Reply(status=429, headers={"retry-after": "2"}, after=1.0),
    )
    layer = world.stack(network, policy=Policy(breaker=None, timeout=TimeoutPolicy(total=10.0)))
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(world.get, layer)
    assert refusals(world) == ["deadline", "deadline"]
    assert world.clock.monotonic() == 1.0


async def test_an_open_circuit_is_the_reason(world):
    network = world.scripted(503)
    layer = world.stack(network, policy=Policy(retry=RetryPolicy(max_attempts=9)))
    await world.get(layer)
    assert refusals(world) == ["circuit_open"]
    assert len(network.sent) == 5


async def test_a_gate_that_another_call_closed_for_too_long_is_the_reason(async_world):
    world = async_world
    world.clock = ManualClock(auto=False)
    network = world.scripted(
        Reply(status=503, body=b"down"), Reply(status=429, headers={"retry-after": "99"})
    )
    layer = world.stack(network, policy=Policy(breaker=None))
    answers = []

    async def waits():
        answers.append(await world.get(layer))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waits)
        await world.until(lambda: scheduled(world))
        assert (await world.get(layer)).status_code == 429
        world.clock.advance(2.0)
    assert [(answer.status_code, answer.content) for answer in answers] == [(503, b"down")]
    assert refusals(world) == ["retry_after_too_long", "rate_limited"]
    assert len(network.sent) == 2


async def test_a_failure_that_nobody_would_send_again_has_no_reason(world):
    await world.get(stack(world, world.scripted(404)))
    await world.get(stack(world, world.scripted(200)), extensions=call_options(max_attempts=1))
    assert refusals(world) == []
