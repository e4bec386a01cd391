"""An attempt is not over at its headers: what the end of its body means to the circuit."""

from __future__ import annotations

import anyio
import pytest

from aragora_transport import RetryPolicy, TimeoutPolicy
from aragora_transport.layers import RetryTransport, TimeoutTransport
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio
URL = "http://platform.test/"


async def opened(client, world):
    """An answer whose body has not been read."""
    request = client.build_request("GET", URL)
    return client.send(request, stream=True) if world.blocking else await client.send(request, stream=True)


async def read(answer, world):
    return answer.read() if world.blocking else await answer.aread()


async def close(answer, world):
    if world.blocking:
        answer.close()
    else:
        await answer.aclose()


async def test_a_body_that_dies_is_a_failure(world, platform):
    layer = platform.breaker(failure_threshold=2)
    platform.answer = Reply(body=b"some", then=world.httpx.ReadError)
    for _ in range(2):
        with pytest.raises(world.httpx.ReadError):
            await world.get(layer)
    assert await platform.refuses(layer)
    assert layer.circuits.snapshot()["default"]["cause"] == "ReadError in the body"


async def test_a_body_that_stalls_is_a_failure(world, platform):
    timeout = world.layer(TimeoutTransport, platform.network, policy=TimeoutPolicy(body_idle=3.0))
    layer = platform.breaker(timeout, failure_threshold=1)
    platform.answer = Reply(body=b"some", stall=True)
    with pytest.raises(world.httpx.TimeoutException):
        await world.get(layer)
    assert await platform.refuses(layer)


async def test_a_body_read_to_its_end_is_a_success_only_then(world, platform):
    """Bodies that are still open are no evidence of health."""
    layer = platform.breaker(failure_threshold=3, failure_rate=1.0)
    client = world.client(layer)
    platform.answer = Reply(body=b"some")
    answers = [await opened(client, world) for _ in range(5)]
    await platform.answers(layer, 503, 503, 503)
    assert await platform.refuses(layer)
    for answer in answers:
        assert await read(answer, world) == b"some"


async def test_a_success_counts_when_its_body_has_ended(world, platform):
    layer = platform.breaker(failure_threshold=3, failure_rate=1.0)
    client = world.client(layer)
    platform.answer = Reply(body=b"some")
    answer = await opened(client, world)
    await platform.answers(layer, 503, 503)
    await read(answer, world)
    await platform.answers(layer, 503)
    assert not await platform.refuses(layer)


async def test_a_success_that_is_sent_again_counts_at_the_time_its_answer_was_dropped(world, platform):
    """Such as a 202: the work is not done yet, but the platform is well."""
    layer = platform.breaker(failure_threshold=2, failure_rate=1.0, window=10.0)
    policy = RetryPolicy(max_attempts=2, statuses={202}, wait=lambda attempt: 9.0)
    client = world.client(world.layer(RetryTransport, layer, policy=policy))
    platform.answer = 202
    answer = await opened(client, world)  # the first attempt is a success by now, the second one not yet
    await platform.answers(layer, 503, 503)
    circuit = layer.circuits.snapshot()["default"]
    assert (circuit["state"], circuit["failures"]) == ("closed", 2)
    world.clock.advance(2.0)  # now nothing of the first one is left in the window
    await platform.answers(layer, 503)
    assert await platform.refuses(layer)
    await close(answer, world)


async def test_a_hundred_streams_that_the_caller_abandons_count_as_nothing(world, platform):
    """Neither as failures, nor as successes that would dilute them."""
    layer = platform.breaker(failure_threshold=5, failure_rate=1.0)
    client = world.client(layer)
    await platform.answers(layer, *[503] * 4)
    platform.answer = Reply(body=(b"one", b"two"))
    for _ in range(100):
        await close(await opened(client, world), world)
    assert layer.circuits.snapshot()["default"]["failures"] == 4
    await platform.answers(layer, 503)
    assert await platform.refuses(layer)


async def test_the_body_of_a_probe_that_dies_in_the_same_era_opens_the_circuit(world, platform):
    layer = platform.breaker(failure_threshold=1, success_threshold=2)
    await platform.answers(layer, 503)
    world.clock.advance(60.0)
    client = world.client(layer)
    platform.answer = Reply(body=b"some", then=world.httpx.ReadError)
    answer = await opened(client, world)  # a success, at its headers; one more is wanted
    with pytest.raises(world.httpx.ReadError):
        await read(answer, world)
    assert await platform.refuses(layer)


async def test_the_body_of_a_probe_that_dies_after_the_circuit_closed_is_void(world, platform):
    layer = platform.breaker(failure_threshold=1)
    await platform.answers(layer, 503)
    world.clock.advance(60.0)
    client = world.client(layer)
    platform.answer = Reply(body=b"some", then=world.httpx.ReadError)
    answer = await opened(client, world)
    with pytest.raises(world.httpx.ReadError):
        await read(answer, world)
    assert not await platform.refuses(layer)


async def test_a_probe_whose_body_is_read_to_its_end_counts_once(world, platform):
    """At its headers, and not a second time at the end of its body."""
    layer = platform.breaker(failure_threshold=1, success_threshold=2)
    await platform.answers(layer, 503)
    world.clock.advance(60.0)
    await platform.answers(layer, Reply(body=b"some"))
    assert layer.circuits.snapshot()["default"]["state"] == "half-open"


async def test_a_body_that_another_task_reads_counts_for_its_attempt(async_world, platform):
    world = async_world
    layer = platform.breaker(failure_threshold=1)
    platform.answer = Reply(body=b"some", then=world.httpx.ReadError)
    caught = []

    async def reader(answer):
        with pytest.raises(world.httpx.ReadError) as error:
            await answer.aread()
        caught.append(error)

    async with world.client(layer) as client:
        answer = await opened(client, world)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader, answer)
    assert caught
    assert await platform.refuses(layer)


async def test_a_reader_that_is_cancelled_says_nothing_about_the_platform(async_world, platform):
    world = async_world
    layer = platform.breaker(failure_threshold=1)
    platform.answer = Reply(body=b"some", stall=True)
    async with world.client(layer) as client:
        answer = await opened(client, world)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer.aread)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await answer.aclose()
    assert not await platform.refuses(layer)
