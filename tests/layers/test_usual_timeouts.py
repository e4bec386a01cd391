"""A client sends the same timeouts with every request: from the second one on layers take a shorter way."""

from __future__ import annotations

import asyncio

import anyio
import httpx
import pytest

from aragora_transport import DeadlineExceededError, Policy, RetryPolicy, TimeoutPolicy, call_options
from aragora_transport._alarm import Alarms
from aragora_transport._clock import SYSTEM
from aragora_transport.events import CallFinished
from aragora_transport.layers import DeadlineTransport, RetryTransport, TimeoutTransport
from aragora_transport.profile import PLAIN, Profile
from aragora_transport.testing import Hang, Reply

pytestmark = pytest.mark.anyio

DEFAULT = {"timeout": httpx.Timeout(5.0).as_dict()}
STALLS = Reply(body=(b"one ", b"two"), between=1.0, stall=True)


@pytest.fixture
def async_world(every_async_world):
    return every_async_world


@pytest.fixture(params=[6.0, 30.0])
def policy(request):
    """The attempt limit is shorter than that of the body, or longer."""
    return TimeoutPolicy(attempt=request.param, body_idle=8.0)


async def second(world, policy, *steps, profile=PLAIN, **retry):
    """A client that has sent its first request; `steps` follow."""
    network = world.heedless(200, *steps)
    transport = world.layer(TimeoutTransport, network, policy=policy, profile=profile)
    transport = world.layer(DeadlineTransport, transport)
    if retry:
        transport = world.layer(RetryTransport, transport.below, policy=RetryPolicy(**retry))
    world.transport = transport
    client = world.client(transport, timeout=5.0)
    assert (await client.get("http://platform.test/")).status_code == 200
    world.began = world.clock.monotonic()
    return client


def passed(world):
    return world.clock.monotonic() - world.began


async def opened(client, **keywords):
    request = client.build_request("GET", "http://platform.test/", **keywords)
    return await client.send(request, stream=True)


class Chunks(httpx.AsyncByteStream):
    async def __aiter__(self):
        for chunk in (b"one", b"two"):
            yield chunk


async def streaming(_):
    return httpx.Response(200, stream=Chunks())


async def late(awaitable):
    with pytest.raises(DeadlineExceededError) as caught:
        await awaitable
    return caught.value


async def test_an_attempt_ends_at_its_limit(async_world, policy):
    client = await second(async_world, policy, Hang())
    error = await late(client.get("http://platform.test/"))
    assert (error.limit, error.seconds) == ("attempt", policy.attempt)
    assert passed(async_world) == pytest.approx(policy.attempt)


async def test_a_body_ends_at_the_limit_on_its_silence(async_world, policy):
    client = await second(async_world, policy, STALLS)
    error = await late(client.get("http://platform.test/"))
    assert (error.limit, error.seconds) == ("body_idle", 8.0)
    assert passed(async_world) == pytest.approx(10.0)


async def test_a_body_that_drips_may_take_as_long_as_it_likes(async_world, policy):
    client = await second(async_world, policy, Reply(body=(b"x",) * 20, between=7.9))
    answer = await client.get("http://platform.test/")
    assert answer.content == b"x" * 20


@pytest.mark.parametrize("pause", [0.5, 7.0, 500.0])
async def test_the_pauses_of_the_caller_neither_end_nor_lift_the_limit(async_world, policy, pause):
    client = await second(async_world, policy, STALLS)
    answer = await opened(client)
    chunks = answer.aiter_raw()
    await async_world.clock.sleep(pause)  # nobody interrupts this
    assert await anext(chunks) == b"one "
    await async_world.clock.sleep(pause)
    assert await anext(chunks) == b"two"
    await async_world.clock.sleep(pause)
    error = await late(anext(chunks))
    assert error.limit == "body_idle"
    assert passed(async_world) == pytest.approx(1.0 + 1.0 + 8.0 + 3 * pause)
    await answer.aclose()


async def test_another_timeout_or_option_has_limits_of_its_own(async_world, policy):
    client = await second(async_world, policy, Hang())
    for keywords, seconds in (
        ({"timeout": 60.0}, 60.0),
        ({}, policy.attempt),
        ({"extensions": call_options(attempt_timeout=2.0)}, 2.0),
        ({}, policy.attempt),
        ({"extensions": call_options(attempt_timeout=50.0)}, 50.0),
        ({}, policy.attempt),
        ({"extensions": call_options(total_timeout=3.0)}, 3.0),
        ({}, policy.attempt),
    ):
        async_world.began = async_world.clock.monotonic()
        await late(client.get("http://platform.test/", **keywords))
        assert passed(async_world) == pytest.approx(seconds)


async def test_a_long_poll_keeps_its_limit_to_itself(async_world, policy):
    profile = Profile(long_poll=lambda request: 50.0 if request.url.path == "/poll" else None)
    client = await second(async_world, policy, Hang(), profile=profile)
    for path, seconds in (("/poll", 60.0), ("/", policy.attempt), ("/poll", 60.0)):
        async_world.began = async_world.clock.monotonic()
        await late(client.get(f"http://platform.test{path}"))
        assert passed(async_world) == pytest.approx(seconds)


async def test_the_limit_of_the_call_is_that_of_its_body_too(async_world, policy):
    client = await second(async_world, policy, Reply(body=(b"x",) * 20, between=3.0))
    error = await late(client.get("http://platform.test/", extensions=call_options(total_timeout=10.0)))
    assert error.limit == "total"
    assert passed(async_world) == pytest.approx(10.0)


async def test_a_body_that_stalls_is_told_with_the_call(async_world, policy):
    world = async_world
    network = world.heedless(200, STALLS)
    client = world.client(world.stack(network, policy=Policy(timeout=policy)), timeout=5.0)
    await client.get("http://platform.test/")
    await late(client.get("http://platform.test/"))
    finished = [event for event in world.events if isinstance(event, CallFinished)]
    assert [event.error for event in finished] == [None, "DeadlineExceededError"]


async def test_a_task_goes_on_undisturbed_after_whatever_became_of_its_body(async_world, policy):
    world = async_world
    dies = Reply(body=(b"x", b"y"), then=world.httpx.ReadError)
    client = await second(world, policy, STALLS, dies, STALLS, Reply(body=b"good"))
    # Without the client, whose own generators are not for closing early.
    answer = await world.transport.handle_async_request(client.build_request("GET", "http://platform.test/"))
    assert await anext(aiter(answer.stream)) == b"one "
    await answer.aclose()
    await world.clock.sleep(500.0)
    with pytest.raises(world.httpx.ReadError):
        await client.get("http://platform.test/")
    await world.clock.sleep(500.0)
    await late(client.get("http://platform.test/"))
    await world.clock.sleep(500.0)
    assert (await client.get("http://platform.test/")).content == b"good"
    await world.clock.sleep(500.0)
    if world.backend == "asyncio":
        assert asyncio.current_task().cancelling() == 0


async def test_the_wait_before_a_retry_is_no_silence_of_the_body_before_it(async_world, policy):
    client = await second(async_world, policy, Reply(status=503, body=b"down"), 200, base_delay=25.0)
    assert (await client.get("http://platform.test/")).status_code == 200
    assert 25.0 <= passed(async_world) <= 27.5


async def test_limits_of_calls_under_way_at_once_end_each_its_own(async_world, policy):
    world = async_world
    client = await second(world, policy, Hang(), STALLS, Reply(body=(b"x",) * 9, between=7.0))
    ended = {}

    async def call(name):
        try:
            ended[name] = (await client.get("http://platform.test/")).content
        except DeadlineExceededError as error:
            ended[name] = error.limit, passed(world)

    async with anyio.create_task_group() as tasks:
        for name in ("hangs", "stalls", "drips"):
            tasks.start_soon(call, name)
    assert sorted(ended.values(), key=str) == [
        ("attempt", pytest.approx(policy.attempt)),
        ("body_idle", pytest.approx(10.0)),
        b"x" * 9,
    ]


async def test_a_body_may_be_read_by_another_task_than_the_one_that_sent_the_request(async_world, policy):
    client = await second(async_world, policy, STALLS)
    answer = await opened(client)
    errors = []

    async def another():
        if async_world.backend == "asyncio":  # one that cleans up after it was cancelled
            asyncio.current_task().cancel()
            with pytest.raises(asyncio.CancelledError):
                await anyio.lowlevel.checkpoint()
        errors.append(await late(answer.aread()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(another)
        await async_world.clock.sleep(500.0)
    assert [error.limit for error in errors] == ["body_idle"]


async def test_a_reader_that_is_cancelled_is_cancelled_by_nobody_else_later(async_world, policy):
    client = await second(async_world, policy, STALLS, 200)
    answer = await opened(client)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await answer.aread()
    assert scope.cancelled_caught
    await async_world.clock.sleep(500.0)
    await answer.aclose()
    assert (await client.get("http://platform.test/")).status_code == 200


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("step", [Hang(), STALLS], ids=["attempt", "body"])
async def test_when_both_are_over_at_once_the_callers_limit_goes_first(async_world, policy, step, first):
    world = async_world
    world.clock = type(world.clock)(auto=False)
    client = await second(world, policy, step)
    scope = anyio.CancelScope()
    seen = []

    async def call():
        with scope:
            await client.get("http://platform.test/")
        seen.append(scope.cancelled_caught)

    def ours():
        world.clock.advance(100.0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        for _ in range(50):  # as far as it gets
            await anyio.lowlevel.checkpoint()
        for end in (ours, scope.cancel) if first == "ours" else (scope.cancel, ours):
            end()
    assert seen == [True]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("body_idle", [None, 60.0])
async def test_by_the_systems_clock_later_requests_are_as_the_first(anyio_backend, body_idle):
    async def body():
        yield b"some"
        yield b"thing"

    network = httpx.MockTransport(lambda _: httpx.Response(200, content=body()))
    policy = TimeoutPolicy(attempt=30.0, body_idle=body_idle)
    async with httpx.AsyncClient(transport=TimeoutTransport(network, policy=policy), timeout=5.0) as client:
        for _ in range(3):
            assert (await client.get("http://platform.test/")).content == b"something"


async def test_limits_that_hold_at_the_same_time_share_one_timer():
    alarms = Alarms(SYSTEM)
    several = [alarms.start(SYSTEM.monotonic() + 60.0) for _ in range(3)]
    assert len({id(alarm.bench) for alarm in several}) == 1
    for alarm in several:
        alarm.stop()
    assert alarms.start(SYSTEM.monotonic() + 60.0) in several


def test_one_call_after_the_other_makes_do_with_one_alarm():
    async def bodies():
        transport = TimeoutTransport(httpx.MockTransport(streaming))
        request = httpx.Request("GET", "http://platform.test/", extensions=DEFAULT)
        for read in [True] * 10 + [False] * 10 + [True]:
            response = await transport.handle_async_request(request)
            if read:
                assert [chunk async for chunk in response.stream] == [b"one", b"two"]
            await response.stream.aclose()
            assert response.extensions["aragora_transport"].alarm is None
        (bench,) = transport._scope.alarms._benches.values()
        return len(bench)

    assert asyncio.run(bodies()) == 1
