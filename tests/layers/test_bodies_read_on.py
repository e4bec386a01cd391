"""How a body ended is told once, whatever is asked of it afterwards or by another task meanwhile."""

from __future__ import annotations

import contextlib

import anyio
import pytest

from aragora_transport import DeadlineExceededError, Policy, TimeoutPolicy
from aragora_transport.events import BodyFailed, CallFinished
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio

POLICY = Policy(retry=None, timeout=TimeoutPolicy(total=60.0))


@pytest.fixture
def async_world(every_async_world):
    return every_async_world


async def read(stream):
    async for _ in stream:
        pass


async def fails(world, stream):
    with pytest.raises(world.httpx.ReadError):
        await read(stream)


async def closed_early(_world, stream):
    async with contextlib.aclosing(aiter(stream)) as chunks:
        await anext(chunks)
        await stream.aclose()


async def ends(_world, stream):
    await read(stream)


async def ends_and_its_time_is_over(world, stream):
    await read(stream)
    world.clock.advance(60.0)


async def opened(world, client):
    """An answer by the second request of a client: see test_usual_timeouts."""
    await client.get("http://platform.test/")
    world.events.clear()
    request = client.build_request("GET", "http://platform.test/")
    return await client.send(request, stream=True)


def requests_counted(world):
    samples = [sample for family in world.registry.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == "platform_requests_total")


@pytest.mark.parametrize("ended", [ends, ends_and_its_time_is_over, closed_early, fails])
async def test_who_reads_on_after_the_end_changes_no_count(async_world, ended):
    world = async_world
    then = world.httpx.ReadError if ended is fails else None
    network = world.scripted(200, Reply(body=(b"a", b"b"), then=then))
    client = world.client(world.stack(network, policy=POLICY), timeout=5.0)
    answer = await opened(world, client)
    await ended(world, answer.stream)
    told = [type(event) for event in world.events]
    assert (told.count(CallFinished), told.count(BodyFailed)) == (1, int(ended is fails))
    try:
        await read(answer.stream)
    except DeadlineExceededError:
        assert ended is ends_and_its_time_is_over
    await answer.aclose()
    assert [type(event) for event in world.events] == told
    assert requests_counted(world) == 2


class Stoppable:
    """A body without an end, until somebody closes it."""

    def __init__(self, *, lingers):
        self.closed = anyio.Event()
        self.lingers = lingers

    async def __aiter__(self):
        yield b"a"
        await self.closed.wait()

    async def aclose(self):
        self.closed.set()
        if self.lingers:
            await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("lingers", [False, True], ids=["the closer is first", "the reader is first"])
async def test_one_task_closes_what_another_one_reads(async_world, lingers):
    """It is told of once, and each of the calls that follow has a time limit of its own."""
    world = async_world
    stream = type("Stream", (Stoppable, world.httpx.AsyncByteStream), {})
    hanging = 0

    async def platform(request):
        nonlocal hanging
        if request.url.path == "/":
            return world.httpx.Response(200, stream=stream(lingers=lingers))
        hanging += 1
        return await anyio.sleep_forever()

    stack = world.stack(world.httpx.MockTransport(platform), policy=Policy(retry=None))
    client = world.client(stack, timeout=5.0)
    for _ in range(2):
        answer = await client.send(client.build_request("GET", "http://platform.test/"), stream=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, answer.stream)
            await anyio.wait_all_tasks_blocked()
            await answer.aclose()
    assert [type(event) for event in world.events].count(CallFinished) == 2
    assert requests_counted(world) == 2

    async def too_late():
        with pytest.raises(DeadlineExceededError):
            await client.get("http://platform.test/hangs")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(too_late)
            tasks.start_soon(too_late)
            await world.until(lambda: hanging == 2)
            await anyio.wait_all_tasks_blocked()
            world.clock.advance(30.0)
