"""After the cooldown: exactly so many probes, whoever asks, and nobody can wedge or stampede it."""

from __future__ import annotations

import contextlib
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest

from aragora_transport import BreakerPolicy, CircuitOpenError
from aragora_transport.layers import BreakerTransport
from aragora_transport.profile import Profile
from aragora_transport.sync import Driven, Driver
from aragora_transport.testing import Hang, ManualClock, Reply

pytestmark = pytest.mark.anyio
URL = "http://platform.test/"


async def half_opened(platform, **fields):
    """A breaker whose cooldown of a minute has just ended."""
    layer = platform.breaker(failure_threshold=1, **fields)
    await platform.answers(layer, 503)
    platform.world.clock.advance(60.0)
    platform.network.sent.clear()
    return layer


# --- exactly N ---


@pytest.mark.parametrize(("probes", "status"), [(1, 200), (1, 503), (3, 200), (3, 503)])
@pytest.mark.parametrize("async_world", ["asyncio-httpx", "trio-httpx2"], indirect=True)
async def test_of_a_thousand_tasks_exactly_so_many_are_probes(async_world, platform, probes, status):
    layer = await half_opened(platform, half_open_probes=probes)
    platform.answer = Reply(status=status, after=1.0)
    answers, refusals = [], []

    async def call(client):
        try:
            answers.append((await client.get(URL)).status_code)
        except CircuitOpenError as error:
            refusals.append(error.retry_after)

    async with async_world.client(layer) as client, anyio.create_task_group() as tasks:
        for _ in range(1000):
            tasks.start_soon(call, client)
    assert platform.sent == len(answers) == probes
    assert answers == [status] * probes
    assert refusals == [0.0] * (1000 - probes)


@pytest.mark.parametrize("probes", [1, 3])
async def test_callers_that_keep_asking_get_no_further_probes_through(async_world, platform, probes):
    """They ask again while some probes have come back and others have not."""
    replies = [Reply(after=1.0), Reply(after=2.0), Reply(after=3.0)]
    platform.network = async_world.scripted(503, *replies, 200)
    layer = await half_opened(platform, half_open_probes=probes, success_threshold=3)
    clock = async_world.clock
    began = clock.monotonic()

    async def call(client):
        while clock.monotonic() < began + 7.0:
            try:
                await client.get(URL)
            except CircuitOpenError:
                pass
            await clock.sleep(0.3)

    async with async_world.client(layer) as client, anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(call, client)
    times = [sent.at - began for sent in platform.network.sent]
    closed = 3.0 if probes == 3 else 6.0  # the probes at once, or one after the other
    assert sum(time < closed for time in times) == 3
    assert sum(time >= closed for time in times) > 10


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("status", [200, 503])
def test_of_many_threads_exactly_so_many_are_probes(probes, status):
    clock = ManualClock(auto=False)
    go = threading.Event()
    sent = []
    refused = threading.Semaphore(0)

    def answer(request):
        if clock.monotonic() < 60.0:
            return httpx.Response(503)
        sent.append(request)
        assert go.wait(10)
        return httpx.Response(status)

    layer = BreakerTransport(
        Driven(httpx.MockTransport(answer)),
        policy=BreakerPolicy(failure_threshold=1, half_open_probes=probes),
        clock=clock,
    )
    start = threading.Barrier(20)

    def caller():
        start.wait(10)
        for _ in range(50):
            try:
                assert client.get(URL).status_code == status
            except CircuitOpenError:
                refused.release()

    with httpx.Client(transport=Driver(layer)) as client, ThreadPoolExecutor(20) as pool:
        client.get(URL)
        clock.advance(60.0)
        callers = [pool.submit(caller) for _ in range(20)]
        for _ in range(50 * (20 - probes)):  # all requests of those threads that wait for no probe
            assert refused.acquire(timeout=10)
        assert len(sent) == probes
        go.set()
        for future in callers:
            future.result(10)
    if status == 503:
        assert len(sent) == probes


@pytest.mark.parametrize("probes", [1, 3])
def test_a_storm_of_threads_finds_exactly_so_many_places_every_time(probes):
    """Attempts driven by hand, which stand still in the transport below, so that many rounds take no time."""
    clock = ManualClock(auto=False)
    policy = BreakerPolicy(failure_threshold=1, half_open_probes=probes)
    layer = BreakerTransport(Suspended(), policy=policy, clock=clock)
    start = threading.Barrier(8)

    def storm(number):
        start.wait(10)
        return [call for call in [ask(layer) for _ in range(number)] if call is not None]

    def fail(call):
        with contextlib.suppress(StopIteration):
            call.send(httpx.Response(503))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        fail(ask(layer))
        with ThreadPoolExecutor(8) as pool:
            for _ in range(100):
                clock.advance(60.0)
                running = [pool.submit(storm, 4) for _ in range(8)]
                let_through = [call for future in running for call in future.result(10)]
                assert len(let_through) == probes
                list(pool.map(fail, let_through))
    finally:
        sys.setswitchinterval(before)


class Suspended(httpx.AsyncBaseTransport):
    """Takes as its answer what is sent into the coroutine."""

    @types.coroutine
    def _wait(self):
        return (yield)

    async def handle_async_request(self, request):
        return await self._wait()


def ask(layer):
    """An attempt that was let through, as a coroutine; `None` where it was refused."""
    call = layer.handle_async_request(httpx.Request("GET", URL))
    try:
        call.send(None)
    except CircuitOpenError:
        return None
    return call


# --- settling ---


@pytest.mark.parametrize("threshold", [1, 2, 3])
async def test_so_many_successful_probes_close_it(world, platform, threshold):
    layer = await half_opened(platform, success_threshold=threshold)
    for number in range(threshold):
        # While half-open one failure would open it again; closed, with these counts, it would not matter.
        assert layer.circuits.snapshot()["default"]["state"] == ("open" if number == 0 else "half-open")
        assert not await platform.refuses(layer)
    assert layer.circuits.snapshot()["default"]["state"] == "closed"


async def test_a_failing_probe_opens_it_for_another_cooldown(world, platform):
    layer = await half_opened(platform)
    await platform.answers(layer, 503)
    world.clock.advance(59.9)
    assert await platform.refuses(layer)
    world.clock.advance(0.1)
    assert not await platform.refuses(layer)


async def test_after_it_closed_the_failures_from_before_are_forgotten(world, platform):
    layer = platform.breaker(failure_threshold=5, cooldown=1.0)
    await platform.answers(layer, *[503] * 5)
    world.clock.advance(1.0)
    await platform.answers(layer, 200, *[503] * 4)
    assert not await platform.refuses(layer)


async def test_the_cooldown_doubles_with_each_failed_probe_up_to_its_cap(world, platform):
    layer = platform.breaker(failure_threshold=1, cooldown=10.0, max_cooldown=35.0)
    for cooldown in (10.0, 20.0, 35.0, 35.0):
        await platform.answers(layer, 503)
        world.clock.advance(cooldown - 0.1)
        assert await platform.refuses(layer)
        world.clock.advance(0.1)
    await platform.answers(layer, 200, 503)
    world.clock.advance(10.0)
    assert not await platform.refuses(layer)


async def test_the_cooldown_is_spread_by_its_jitter(world, platform):
    """Several processes must not all probe at once."""
    layer = platform.breaker(failure_threshold=1, cooldown=10.0, cooldown_jitter=0.5)
    cooldowns = set()
    for _ in range(20):
        await platform.answers(layer, 503)
        with pytest.raises(CircuitOpenError) as caught:
            await world.get(layer)
        cooldowns.add(caught.value.retry_after)
        world.clock.advance(caught.value.retry_after)
    assert len(cooldowns) == 20
    assert min(cooldowns) >= 10.0
    assert max(cooldowns) <= 15.0


# --- cancelled and lost probes ---


async def test_probes_that_are_cancelled_free_their_places_time_and_again(async_world, platform):
    layer = await half_opened(platform)
    for _ in range(5):
        platform.answer = Hang()
        platform.network.sent.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(async_world.get, layer)
            await async_world.until(lambda: platform.sent == 1)
            assert await refused_now(async_world, layer)
            tasks.cancel_scope.cancel()
    assert not await platform.refuses(layer)
    assert layer.circuits.snapshot()["default"]["state"] == "closed"


async def refused_now(world, layer):
    """Whether a request is refused, where the platform's answer must not be touched."""
    try:
        await world.get(layer)
    except CircuitOpenError:
        return True
    return False


@pytest.mark.parametrize("answer", [429, "PoolTimeout", KeyError])
async def test_a_probe_that_tells_nothing_gives_its_place_to_the_next(world, platform, answer):
    layer = await half_opened(platform)
    answer = getattr(world.httpx, answer) if isinstance(answer, str) else answer
    await platform.answers(layer, *[answer] * 5)
    assert not await platform.refuses(layer)


async def test_a_probe_that_is_lost_holds_its_place_for_its_lease_and_not_longer(async_world, platform):
    layer = await half_opened(platform, probe_lease=10.0)
    platform.answer = Hang()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(async_world.get, layer)
        await async_world.until(lambda: platform.sent == 1)
        async_world.clock.advance(9.9)
        assert await refused_now(async_world, layer)
        async_world.clock.advance(0.1)
        assert not await platform.refuses(layer)
        tasks.cancel_scope.cancel()


async def test_a_lost_probe_that_comes_back_frees_no_place_but_its_own(async_world, platform):
    layer = await half_opened(platform, probe_lease=10.0)
    platform.answer = Hang()
    async with anyio.create_task_group() as others:
        async with anyio.create_task_group() as lost:
            lost.start_soon(async_world.get, layer)
            await async_world.until(lambda: platform.sent == 1)
            async_world.clock.advance(10.0)
            others.start_soon(async_world.get, layer)
            await async_world.until(lambda: platform.sent == 2)
            lost.cancel_scope.cancel()
        assert await refused_now(async_world, layer)
        others.cancel_scope.cancel()


async def test_a_stream_as_the_probe_holds_nobody_up(async_world, platform):
    """It is settled at its headers, however long its body goes on."""
    layer = await half_opened(platform)
    platform.answer = Reply(stall=True)
    async with async_world.client(layer) as client, client.stream("GET", URL) as stream:
        assert stream.status_code == 200
        assert not await platform.refuses(layer)


async def test_a_long_poll_as_the_probe_holds_nobody_up(async_world, platform):
    """The profile knows that its answer may take long, so that a short request may probe beside it."""
    profile = Profile(long_poll=lambda request: 50.0 if request.url.path == "/poll" else None)
    policy = BreakerPolicy(failure_threshold=1)
    layer = async_world.layer(BreakerTransport, platform.network, policy=policy, profile=profile)
    await platform.answers(layer, 503)
    async_world.clock.advance(60.0)
    platform.answer = Hang()
    async with async_world.client(layer) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, URL + "poll")
        await async_world.until(lambda: platform.sent == 2)
        with pytest.raises(CircuitOpenError):
            await client.get(URL + "poll")  # one long poll at a time, though
        for _ in range(3):
            assert not await platform.refuses(layer)
        tasks.cancel_scope.cancel()
