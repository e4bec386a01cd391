"""Cancellation at every switch of a call: whatever the call had taken is back, and the next call works."""

from __future__ import annotations

import asyncio
import contextlib

import anyio
import httpx
import pytest

from aragora_transport import BreakerPolicy, RateLimitPolicy, RetryBudget, RetryPolicy, resilient
from aragora_transport.testing import Reply, ScriptedTransport
from aragora_transport.testing._faults import Answer, Wire, stalled_body, stalled_headers
from aragora_transport.testing._server import FaultServer

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

TOKENS = 10.0
FINE = Answer(body=b"fine")
LATER = Answer(status=429, body=b"later", headers={"Retry-After": "0.02"})
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
            except BaseException as error:  # noqa: BLE001 - thrown on into the coroutine
                resume, value = self.coroutine.throw, error


async def cancelled_at(k, coroutine, way):
    """Run it, cancelled at its k-th switch; true when it was, false when it had ended before."""
    if way == "scope":
        with anyio.CancelScope() as scope:
            await Switches(coroutine, k, scope.cancel)
        return scope.cancelled_caught
    task = asyncio.current_task()
    try:
        await Switches(coroutine, k, task.cancel, late=way == "task, late")
    except asyncio.CancelledError:
        assert task.uncancel() == 0
        return True
    assert task.cancelling() == 0
    return False


class Counted(httpx.AsyncBaseTransport):
    """Counts the sends that were handed to the transport below."""

    def __init__(self, below):
        self.below = below
        self.sends = 0

    async def handle_async_request(self, request):
        self.sends += 1
        return await self.below.handle_async_request(request)

    async def aclose(self):
        await self.below.aclose()


def policy_of(tools):
    return tools.quick(
        retry=RetryPolicy(
            base_delay=0.002, budget=RetryBudget(per_success=0.0, per_second=0.0, cap=TOKENS)
        ),
        breaker=BreakerPolicy(failure_threshold=1, failure_rate=1.0, min_attempts=3, cooldown=0.0),
        rate_limit=RateLimitPolicy(max_waiters=1),
    )


async def get(client, url):
    await client.get(url)


async def stream(client, url):
    async with client.stream("GET", url) as response:
        async with contextlib.aclosing(response.aiter_raw()) as chunks:
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
                network = Counted(async_sockets.network())
                policy = policy_of(tools)
                async with async_sockets.caller(network.below, below=network, policy=policy) as caller:
                    url = f"{server.url}/{way.replace(', ', '-')}/{k}"
                    cancelled = await cancelled_at(k, make(caller.client, url), way)
                    assert caller.taken == [], f"{way}, switch {k}"
                    # What was paid for a retry that was not sent is back.
                    tokens = caller.stack.state.budget.tokens
                    assert tokens == TOKENS - max(0, network.sends - 1), f"{way}, switch {k}"
                    assert (await caller.get(f"{server.url}/after")).status_code == 200
                    assert caller.taken == []
                return cancelled

            assert await at_every_switch(once) >= 3


@EVERY_SCENARIO
async def test_a_task_cancelled_at_any_switch_closes_every_answer(async_world, tools, script, make):
    """The same over a scripted network, where httpcore's own losses are out of the way."""
    replies = [Reply(status=one.status, headers=dict(one.headers), after=0.0005, body=(b"a", b"b")) for one in script]
    for way in ("scope", *(NATIVE if async_world.kind == "asyncio" else ())):

        async def once(k, way=way):
            network = ScriptedTransport(*replies, Reply(body=b"fine"), flavor=async_world.flavor_name)
            transport = resilient("test", network, policy=policy_of(tools))
            async with async_world.client(transport) as client:
                cancelled = await cancelled_at(k, make(client, URL), way)
                assert network.open_responses == 0, f"{way}, switch {k}"
                assert transport.state.budget.tokens == TOKENS - max(0, len(network.sent) - 1)
                assert (await client.get(URL)).status_code == 200
            return cancelled

        assert await at_every_switch(once) >= 1


@pytest.mark.parametrize("way", NATIVE)
@EVERY_SCENARIO
async def test_a_cancelled_task_loses_no_more_connections_than_without_us(asyncio_sockets, tools, script, make, way):
    """httpx's own httpcore loses its connection by `Task.cancel()` at some switches of each send."""
    with script_server(script) as with_us, script_server(script[-1:]) as without_us:

        async def lost(client, network, url):
            switches = []

            async def once(k):
                network = sockets.network()
                async with sockets.world.client(stacked(network)) as client:
                    cancelled = await cancelled_at(k, make(client, f"{url}/{k}"), way)


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

            assert await at_every_switch(once) >= 3
