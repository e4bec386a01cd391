"""Cancellation at every switch of a call: whatever the call had taken is back, and the next call works."""

from __future__ import annotations

import asyncio
import contextlib
import re
import traceback

import anyio
import anyio.lowlevel
import pytest

from aragora_transport import (
    BreakerPolicy,
    DeadlineExceededError,
    RateLimitPolicy,
    RetryBudget,
    RetryPolicy,
    TimeoutPolicy,
    resilient,
)
from aragora_transport._clock import Clock
from aragora_transport.testing import Answer, FaultServer, Reply, ScriptedTransport

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

TOKENS = 10.0
FINE = Answer(body=b"fine")
LATER = Answer(status=429, body=b"later", headers={"Retry-After": "0.02"})
URL = "http://platform.test/"
MOST = 200  # switches; no call here has so many


class Switches:
    """Runs a coroutine in the task that awaits this, and calls `cancel` at its k-th switch to the event loop.

    Either before the loop goes on with other tasks, or `late`: in the moment in which what the coroutine
    awaits is done, but before it is resumed.
    """

    def __init__(self, coroutine, k, cancel, *, late=False):
        self.coroutine = coroutine
        self.k = k
        self.cancel = cancel
        self.late = late
        self.count = 0

    def __await__(self):
        resume, value = self.coroutine.send, None
        while True:
            try:
                awaited = resume(value)
            except StopIteration as done:
                return done.value
            self.count += 1
            if self.count == self.k:
                if self.late and isinstance(awaited, asyncio.Future):
                    awaited.add_done_callback(lambda _: self.cancel())
                else:
                    self.cancel()
            try:
                resume, value = self.coroutine.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001  # thrown on into the coroutine
                resume, value = self.coroutine.throw, error


async def cancelled_at(k, coroutine, way):
    """Run it, cancelled at its k-th switch; false when it had ended before.

    Else, after `Task.cancel()`, where that was: the functions of httpx and httpcore, the innermost last.
    """
    if way == "scope":
        with anyio.CancelScope() as scope:
            await Switches(coroutine, k, scope.cancel)
        return scope.cancelled_caught
    task = asyncio.current_task()
    try:
        await Switches(coroutine, k, task.cancel, late=way == "task, late")
    except asyncio.CancelledError as error:
        assert task.uncancel() == 0
        frames = traceback.extract_tb(error.__traceback__)
        return [frame.name for frame in frames if re.search(r"/http(x|core)2?/", frame.filename)] or [""]
    assert task.cancelling() == 0
    return False


def policy_of(tools):
    return tools.quick(
        retry=RetryPolicy(base_delay=0.002, budget=RetryBudget(per_success=0.0, per_second=0.0, cap=TOKENS)),
        breaker=BreakerPolicy(failure_threshold=1, failure_rate=1.0, min_attempts=3, cooldown=0.0),
        rate_limit=RateLimitPolicy(max_waiters=1),
    )


async def get(client, url):
    await client.get(url)


async def stream(client, url):
    async with client.stream("GET", url) as response, contextlib.aclosing(response.aiter_raw()) as chunks:
        async for _ in chunks:
            pass


async def upload(client, url):
    async def body():
        for _ in range(3):
            yield b"piece"
            await anyio.lowlevel.checkpoint()

    async with contextlib.aclosing(body()) as content:
        await client.put(url, content=content)


# What the server says to the call that is cancelled, and how the call is made.
SCENARIOS = {
    "success": ([FINE], get),
    "retry": ([Answer(status=503, body=b"busy"), FINE], get),
    "gate": ([LATER, FINE], get),
    "streamed_body": ([Answer(body=(b"a", b"b", b"c"), interval=0.001)], stream),
    "streamed_upload": ([FINE], upload),
}
EVERY_SCENARIO = pytest.mark.parametrize(("script", "make"), SCENARIOS.values(), ids=SCENARIOS.keys())
NATIVE = ("task", "task, late")


def script_server(script):
    """Each call by a path of its own: the script from its beginning, then success."""
    calls = {}

    def step(request):
        if request.path == "/after":
            return FINE
        rest = calls.setdefault(request.path, list(script))
        return rest.pop(0) if rest else FINE

    return FaultServer(step)


def ways(world):
    """By scopes, and where httpcore survives it by `Task.cancel()`: httpx's loses connections by that."""
    native = world.kind == "asyncio" and world.flavor_name == "httpx2"
    return ("scope", *NATIVE) if native else ("scope",)


async def settled():
    """A drained answer is closed in the background when its task is cancelled meanwhile: without any wait."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def at_every_switch(once):
    """Cancel at the first switch, at the second, and so on until the call ends first; returns how many."""
    for k in range(1, MOST):
        if not await once(k):
            return k - 1
    raise AssertionError(f"still not over after {MOST} switches")


@EVERY_SCENARIO
async def test_after_a_cancellation_at_any_switch_the_next_call_works(async_sockets, tools, script, make):
    with script_server(script) as server:
        for way in ways(async_sockets.world):

            async def once(k, way=way):
                network = async_sockets.network()
                watched = async_sockets.watched(network)
                async with async_sockets.caller(network, below=watched, policy=policy_of(tools)) as caller:
                    url = f"{server.url}/{way.replace(', ', '-')}/{k}"
                    cancelled = await cancelled_at(k, make(caller.client, url), way)
                    await settled()
                    assert caller.taken == [], f"{way}, switch {k}"
                    # What was paid for a retry that was not sent is back.
                    tokens = caller.stack.state.budget.tokens
                    assert tokens == TOKENS - max(0, len(watched.requests) - 1), f"{way}, switch {k}"
                    assert (await caller.get(f"{server.url}/after")).status_code == 200
                    assert caller.taken == []
                return cancelled

            assert await at_every_switch(once) >= 2


class Scripted(ScriptedTransport):
    """It gives others a turn before each answer, and counts how often it was asked for one."""

    sends = 0

    async def handle_async_request(self, request):
        self.sends += 1
        await anyio.lowlevel.checkpoint()
        return await super().handle_async_request(request)


@EVERY_SCENARIO
async def test_a_task_cancelled_at_any_switch_closes_every_answer(async_world, tools, script, make):
    """The same over a scripted network, where httpcore's own losses are out of the way."""
    replies = [
        Reply(status=one.status, headers=dict(one.headers), after=0.0005, body=(b"a", b"b")) for one in script
    ]
    for way in ("scope", *(NATIVE if async_world.kind == "asyncio" else ())):

        async def once(k, way=way):
            network = Scripted(*replies, Reply(body=b"fine"), flavor=async_world.flavor_name)
            transport = resilient("test", network, policy=policy_of(tools))
            async with async_world.client(transport) as client:
                cancelled = await cancelled_at(k, make(client, URL), way)
                assert network.open_responses == 0, f"{way}, switch {k}"
                assert transport.state.budget.tokens == TOKENS - max(0, network.sends - 1)
                assert (await client.get(URL)).status_code == 200
            return cancelled

        assert await at_every_switch(once) >= 1


@pytest.mark.parametrize("async_world", ["asyncio-httpx", "asyncio-httpx2"], indirect=True)
@pytest.mark.parametrize("way", NATIVE)
@pytest.mark.parametrize("script", [SCENARIOS[name][0] for name in ("success", "retry", "gate")])
async def test_a_cancelled_task_loses_connections_only_where_a_bare_send_does(
    async_sockets, tools, way, script
):
    """httpx's own httpcore loses its connection by `Task.cancel()` at some switches; retries add none."""

    async def lost(server, stack):
        places = set()

        async def once(k):
            network = async_sockets.network()
            async with async_sockets.world.client(stack(network)) as client:
                cancelled = await cancelled_at(k, get(client, f"{server.url}/{k}"), way)
                await settled()
                if tools.taken(network):
                    places.add(tuple(cancelled))
            return cancelled

        assert await at_every_switch(once) >= 2
        return places

    with script_server(script) as with_us, script_server(script[-1:]) as without_us:
        ours = await lost(with_us, lambda network: async_sockets.stack(network, policy=policy_of(tools)))
        bare = await lost(without_us, lambda network: network)
    assert ours <= bare
    assert bool(bare) == (async_sockets.world.flavor_name == "httpx")


class Stopped(Clock):
    """A clock that stands still until its timers ring, before anything else gets its turn."""

    now = 0.0

    def __init__(self):
        self.timers = []

    def monotonic(self):
        return self.now

    def call_at(self, due, callback):
        self.timers.append(callback)
        return lambda: self.timers.remove(callback)

    def ring(self):
        self.now += 6.0
        for callback in self.timers:
            asyncio.get_running_loop().call_soon(callback)
        self.timers.clear()


@pytest.mark.parametrize("async_world", ["asyncio-httpx", "asyncio-httpx2"], indirect=True)
async def test_an_attempt_limit_that_rings_at_any_switch_loses_no_connection(async_sockets, tools):
    """Ours is gentler than `Task.cancel()`: it waits for the task to wait, which httpcore survives."""
    policy = tools.quick(timeout=TimeoutPolicy(attempt=5.0), retry=None)
    with FaultServer(FINE) as server:

        async def once(k):
            clock = Stopped()
            async with async_sockets.caller(policy=policy, clock=clock, timeout=None) as caller:
                switches = Switches(caller.get(server.url), k, clock.ring)
                with contextlib.suppress(DeadlineExceededError):
                    await switches
                assert caller.taken == [], f"switch {k}"
                assert (await caller.get(server.url)).content == b"fine"
            return switches.count >= k

        assert await at_every_switch(once) >= 3


async def test_a_probe_that_is_cancelled_at_any_switch_lets_the_next_one_through(async_sockets, tools):
    policy = tools.quick(
        breaker=BreakerPolicy(failure_threshold=1, cooldown=0.0, probe_lease=3600.0), retry=None
    )
    with FaultServer(lambda request: 503 if request.path == "/failing" else FINE) as server:
        for way in ways(async_sockets.world):

            async def once(k, way=way):
                async with async_sockets.caller(policy=policy) as caller:
                    await caller.get(f"{server.url}/failing")
                    assert caller.stack.circuits()["test"]["state"] == "open"
                    cancelled = await cancelled_at(k, get(caller.client, server.url), way)
                    assert (await caller.get(server.url)).content == b"fine"
                    assert caller.stack.circuits()["test"]["state"] == "closed"
                return cancelled

            assert await at_every_switch(once) >= 2
