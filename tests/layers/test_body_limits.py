"""The limit on the silence of a body, and what it does not count."""

from __future__ import annotations

import anyio
import pytest

from aragora_transport import DeadlineExceededError, Policy, TimeoutPolicy, call_options
from aragora_transport.events import CallFinished
from aragora_transport.layers import DeadlineTransport, TimeoutTransport
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio

STALLS = Reply(body=(b"one ", b"two"), between=1.0, stall=True)


@pytest.fixture
def world(every_world):
    return every_world


@pytest.fixture
def async_world(every_async_world):
    return every_async_world


def limited(world, network, **limits):
    policy = TimeoutPolicy(**limits)
    transport = world.layer(TimeoutTransport, network, policy=policy)
    return transport if policy.total is None else world.layer(DeadlineTransport, transport, policy=policy)


class Reading:
    """An answer that is read chunk by chunk, by a client of either kind."""

    def __init__(self, world, answer):
        self.world = world
        self.answer = answer
        self.chunks = answer.iter_raw() if world.blocking else answer.aiter_raw()
        self.read = b""

    async def next(self):
        chunk = next(self.chunks, None) if self.world.blocking else await anext(self.chunks, None)
        self.read += chunk or b""
        return chunk

    async def rest(self):
        while await self.next() is not None:
            pass
        return self.read

    async def pause(self, seconds):
        """What the caller does between two chunks, in its own time."""
        await self.world.clock.sleep(seconds, blocking=self.world.blocking)

    async def close(self):
        if self.world.blocking:
            self.chunks.close()
            self.answer.close()
        else:
            await self.chunks.aclose()
            await self.answer.aclose()


async def opened(world, transport, **keywords):
    client = world.client(transport)
    request = client.build_request("GET", "http://platform.test/", **keywords)
    answer = client.send(request, stream=True) if world.blocking else await client.send(request, stream=True)
    return Reading(world, answer)


async def ends_late(reading):
    with pytest.raises(reading.world.httpx.TimeoutException) as caught:
        await reading.rest()
    await reading.close()
    return caught.value


async def test_a_body_that_stalls_ends_at_the_limit_on_its_silence(world):
    network = world.heedless(STALLS)
    reading = await opened(world, limited(world, network, body_idle=8.0))
    error = await ends_late(reading)
    assert isinstance(error, DeadlineExceededError)
    assert (error.limit, error.seconds, error.attempt) == ("body_idle", 8.0, 1)
    assert error.elapsed == pytest.approx(10.0)
    assert error.request.url.host == "platform.test"
    assert reading.read == b"one two"
    assert world.clock.monotonic() == pytest.approx(10.0)
    assert network.open_responses == 0


async def test_the_first_chunk_is_waited_for_no_longer_than_the_others(world):
    reading = await opened(world, limited(world, world.heedless(Reply(stall=True)), body_idle=8.0))
    assert isinstance(await ends_late(reading), DeadlineExceededError)
    assert world.clock.monotonic() == pytest.approx(8.0)


async def test_the_default_limit_on_silence_is_30_seconds(world):
    reading = await opened(world, world.layer(TimeoutTransport, world.heedless(STALLS)))
    await ends_late(reading)
    assert world.clock.monotonic() == pytest.approx(32.0)


async def test_a_body_that_drips_may_take_as_long_as_it_likes(world):
    network = world.scripted(Reply(body=(b"x",) * 40, between=7.9))
    reading = await opened(world, limited(world, network, body_idle=8.0))
    assert await reading.rest() == b"x" * 40


async def test_without_a_limit_a_body_may_pause_for_ever(world):
    network = world.scripted(Reply(body=(b"a", b"b"), between=100_000.0))
    reading = await opened(world, limited(world, network, body_idle=None))
    assert await reading.rest() == b"ab"


async def test_the_pauses_of_the_caller_are_not_silence_of_the_platform(world):
    network = world.heedless(Reply(body=(b"one ", b"two ", b"three"), between=1.0))
    reading = await opened(world, limited(world, network, body_idle=2.0))
    await reading.next()
    await reading.pause(500.0)
    await reading.next()
    await reading.pause(500.0)
    assert await reading.rest() == b"one two three"


async def test_a_body_that_came_too_late_between_two_chunks_is_closed_to_its_innermost_generator(async_world):
    world = async_world

    async def pieces():
        yield b"one "
        yield b"two"

    kept = pieces()  # else it would be ended as garbage, by whoever collects it

    class Stream(world.httpx.AsyncByteStream):
        def __aiter__(self):
            return kept

    network = world.httpx.MockTransport(lambda request: world.httpx.Response(200, stream=Stream()))
    layer = limited(world, network, attempt=None, body_idle=None, total=5.0)
    reading = await opened(world, layer)
    assert await reading.next() == b"one "
    await reading.pause(6.0)
    assert (await ends_late(reading)).limit == "total"
    assert kept.ag_frame is None


async def test_the_pauses_of_the_caller_count_for_the_call_but_end_with_the_next_chunk(world):
    network = world.scripted(Reply(body=(b"one ", b"two "), between=1.0))
    reading = await opened(world, limited(world, network, total=10.0))
    await reading.next()
    await reading.pause(500.0)  # nobody interrupts this
    assert world.clock.monotonic() == pytest.approx(501.0)
    error = await ends_late(reading)
    assert (error.limit, error.seconds) == ("total", 10.0)
    assert reading.read == b"one "
    assert world.clock.monotonic() == pytest.approx(501.0)


async def test_the_limit_of_the_call_ends_a_body_that_never_does(world):
    network = world.heedless(Reply(body=(b"x",) * 1000, between=1.0))
    reading = await opened(world, limited(world, network, total=10.5))
    error = await ends_late(reading)
    assert error.limit == "total"
    # A thread looks at the clock before each chunk, so the last one may come a little late.
    assert len(reading.read) == (11 if world.blocking else 10)
    assert world.clock.monotonic() == pytest.approx(11.0 if world.blocking else 10.5)


async def test_whichever_limit_is_first_is_the_one_that_is_told(world):
    reading = await opened(world, limited(world, world.heedless(STALLS), body_idle=8.0, total=9.0))
    assert (await ends_late(reading)).limit == "total"
    assert world.clock.monotonic() == pytest.approx(10.0 if world.blocking else 9.0)


async def test_an_explicit_httpx_timeout_that_is_longer_raises_the_limit_on_silence(world):
    network = world.scripted(Reply(body=(b"a", b"b"), between=40.0))
    timeout = world.httpx.Timeout(50.0)
    reading = await opened(world, world.layer(TimeoutTransport, network), timeout=timeout)
    assert await reading.rest() == b"ab"


async def test_a_shorter_httpx_timeout_ends_a_body_as_ever(world):
    reading = await opened(world, world.layer(TimeoutTransport, world.scripted(STALLS)), timeout=3.0)
    assert type(await ends_late(reading)) is world.httpx.ReadTimeout
    assert world.clock.monotonic() == pytest.approx(5.0)


async def test_an_error_of_the_body_is_raised_as_it_came(world):
    died = world.httpx.RemoteProtocolError("died")
    reading = await opened(world, world.layer(TimeoutTransport, world.scripted(Reply(body=b"x", then=died))))
    with pytest.raises(world.httpx.RemoteProtocolError) as caught:
        await reading.rest()
    assert caught.value is died


async def test_reading_a_body_leaves_httpxs_timeouts_as_they_were(world):
    network = world.scripted(Reply(body=(b"one ", b"two")))
    reading = await opened(world, limited(world, network, body_idle=8.0, total=9.0), timeout=None)
    request = reading.answer.request
    dictionary = request.extensions["timeout"]
    await reading.next()
    assert request.extensions["timeout"] is dictionary
    await reading.rest()
    assert request.extensions["timeout"] is dictionary
    assert set(dictionary.values()) == {None}


async def test_a_body_that_stalls_is_told_with_the_call(world):
    network = world.heedless(STALLS)
    stack = world.stack(network, policy=Policy(timeout=TimeoutPolicy(body_idle=8.0)))
    reading = await opened(world, stack, extensions=call_options(operation="read"))
    await ends_late(reading)
    (finished,) = [event for event in world.events if isinstance(event, CallFinished)]
    assert (finished.status, finished.error, finished.complete) == (200, "DeadlineExceededError", False)


async def test_a_body_may_be_read_by_another_task_than_the_one_that_sent_the_request(async_world):
    world = async_world
    network = world.heedless(STALLS)
    reading = await opened(world, limited(world, network, body_idle=8.0, total=20.0))
    errors = []

    async def another():
        errors.append(await ends_late(reading))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(another)
        # The task that sent the request waits for something else all the while, and is not disturbed.
        await world.clock.sleep(500.0)
    assert [error.limit for error in errors] == ["body_idle"]
    assert errors[0].elapsed == pytest.approx(10.0)


async def test_a_reader_that_is_cancelled_is_cancelled_and_its_limit_rings_no_more(async_world):
    world = async_world
    network = world.heedless(STALLS)
    reading = await opened(world, limited(world, network, body_idle=8.0))
    await reading.next()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await reading.rest()
    assert scope.cancelled_caught
    await world.clock.sleep(500.0)
    await reading.close()
    assert network.open_responses == 0


async def test_time_that_is_over_ends_a_body_whose_next_chunk_is_there(world):
    reading = await opened(world, limited(world, world.scripted(Reply(body=(b"one ", b"two"))), total=10.0))
    await reading.next()
    await reading.pause(500.0)
    assert (await ends_late(reading)).limit == "total"
    assert reading.read == b"one "


async def test_time_that_is_over_before_a_body_is_asked_for_leaves_httpxs_timeouts_as_they_were(world):
    reading = await opened(world, limited(world, world.scripted(Reply(body=b"x")), total=10.0))
    dictionary = reading.answer.request.extensions["timeout"]
    await reading.pause(500.0)
    assert (await ends_late(reading)).limit == "total"
    assert reading.answer.request.extensions["timeout"] is dictionary


async def test_a_body_that_is_closed_early_leaves_no_generator_to_be_cleaned_up(async_world):
    world = async_world
    layer = limited(world, world.scripted(STALLS), body_idle=8.0)
    # Without a client: httpx's own generators are not for closing early.
    answer = await layer.handle_async_request(world.httpx.Request("GET", "http://platform.test/"))
    assert await anext(aiter(answer.stream)) == b"one "
    await answer.aclose()
    del answer  # trio would warn of it here
