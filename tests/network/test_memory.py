"""A hundred thousand calls leave memory flat, and so do those that fail, are refused or are cancelled."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import sys
import weakref

import anyio
import pytest

from aragora_transport import (
    BreakerPolicy,
    DeadlineExceededError,
    Policy,
    RetryPolicy,
    TimeoutPolicy,
    resilient,
)
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"
EACH_ONCE = ["asyncio-httpx", "trio-httpx2", "blocking-httpx"]  # every kind of client, and both flavours


@pytest.fixture(autouse=True)
def no_records():
    """pytest keeps every log record of a test."""
    logger = logging.getLogger("aragora_transport")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


class Body:
    """A body in one chunk, that may die instead; an iterator of either kind."""

    def __init__(self, error, *, silent):
        self.error = error
        self.silent = silent
        self.given = False

    def _next(self, end):
        if self.error is not None:
            raise self.error("dead")
        if self.given:
            raise end
        self.given = True
        return b"fine"

    def __iter__(self):
        return self

    def __next__(self):
        return self._next(StopIteration)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.error is None and self.silent:
            await anyio.sleep_forever()
        return self._next(StopAsyncIteration)

    def close(self):
        pass

    async def aclose(self):
        pass


class Answer:
    """As much of a response as layers look at: httpx's own would take longer than all of the stack."""

    def __init__(self, status, error=None, *, silent=False):
        self.status_code = status
        self.headers = {}
        self.extensions = {}
        self.stream = Body(error, silent=silent)
        self.is_closed = False


def null(world, steps):
    """A network that answers at once, or by None never, by the steps in turn.

    These are statuses, the names of errors, and "silent body" or "body " and the name of its error.
    """
    steps = itertools.cycle(steps)

    def answer():
        step = next(steps)
        if step is None:
            return None
        if isinstance(step, int):
            return Answer(step)
        if step == "silent body":
            return Answer(200, silent=True)
        if step.startswith("body "):
            return Answer(200, getattr(world.httpx, step.removeprefix("body ")))
        raise getattr(world.httpx, step)("scripted")

    class Null(world.httpx.BaseTransport if world.blocking else world.httpx.AsyncBaseTransport):
        def handle_request(self, request):
            return answer()

        async def handle_async_request(self, request):
            given = answer()
            if given is None:
                await anyio.sleep_forever()
            return given

    return Null()


async def one_call(world, stack, request):
    if world.blocking:
        answer = stack.handle_request(request)
        for _ in answer.stream:
            pass
        answer.stream.close()
    else:
        answer = await stack.handle_async_request(request)
        async for _ in answer.stream:
            pass
        await answer.stream.aclose()


async def calls(world, stack, count):
    request = world.httpx.Request("GET", URL)
    for _ in range(count):
        with contextlib.suppress(world.httpx.TransportError):
            await one_call(world, stack, request)


async def growth(world, stack, run, count):
    """By how many blocks of memory the interpreter holds more after so many calls, warmed up before."""

    def blocks():
        list(world.registry.collect())  # numbers are kept in short, and added up when somebody looks
        stack.circuits()
        gc.collect()
        return sys.getallocatedblocks()

    await run(max(count // 100, 300))
    before = blocks()
    await run(count)
    return blocks() - before


@pytest.mark.parametrize("async_world", ["asyncio-httpx"], indirect=True)
async def test_a_hundred_thousand_calls_leave_memory_flat(async_world):
    stack = async_world.stack(null(async_world, [200]), on_event=())
    assert await growth(async_world, stack, lambda count: calls(async_world, stack, count), 100_000) < 1_000


@pytest.mark.parametrize("world", EACH_ONCE, indirect=True)
async def test_calls_that_fail_leave_memory_flat(world):
    """Retried, given up, and with bodies that die; with waits."""
    retry = RetryPolicy(max_attempts=3, base_delay=0.5, budget=None)
    policy = Policy(retry=retry, breaker=BreakerPolicy(failure_rate=1.0))
    steps = [200, 503, 200, "ConnectError", 200, 503, 503, 503, "body ReadError"]
    stack = world.stack(null(world, steps), policy=policy, on_event=())
    assert await growth(world, stack, lambda count: calls(world, stack, count), 300) < 150


@pytest.mark.parametrize("world", EACH_ONCE, indirect=True)
async def test_calls_that_are_refused_leave_memory_flat(world):
    stack = world.stack(null(world, [200]), on_event=())
    stack.isolate()
    assert await growth(world, stack, lambda count: calls(world, stack, count), 300) < 150


async def test_calls_that_are_cancelled_leave_memory_flat(async_world):
    stack = async_world.stack(null(async_world, [None]), on_event=())
    request = async_world.httpx.Request("GET", URL)

    async def cancelled(count):
        for _ in range(count):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one_call, async_world, stack, request)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()

    assert await growth(async_world, stack, cancelled, 300) < 150


# --- with the collector off: errors of ours, which could refer to themselves by their tracebacks ---


@pytest.fixture
def collector_off():
    gc.disable()
    yield
    gc.enable()


async def silent(world, stack, extensions):
    """A call whose body falls silent; what is left of its error and its request."""
    request = world.httpx.Request("GET", URL, extensions=extensions)
    with pytest.raises(DeadlineExceededError) as caught:
        await one_call(world, stack, request)
    kept = [weakref.ref(request), weakref.ref(caught.value)]
    del caught
    return kept


async def test_a_silent_body_leaves_nothing_behind(world, collector_off):
    policy = Policy(timeout=TimeoutPolicy(attempt=6.0, body_idle=5.0))
    stack = world.stack(world.scripted(Reply(body=b"fi", stall=True)), policy=policy)
    kept = [*await silent(world, stack, {}), *await silent(world, stack, {})]
    await silent(world, stack, {})  # asyncio keeps a task's last cancellation until the next one
    assert [one() for one in kept] == [None] * 4


@pytest.mark.parametrize("async_world", ["asyncio-httpx", "asyncio-httpx2"], indirect=True)
async def test_a_silent_body_leaves_nothing_behind_in_real_time(async_world, collector_off):
    """There one alarm goes on from the attempt to its body, when a client's timeouts are the same again."""
    policy = Policy(timeout=TimeoutPolicy(attempt=0.05, body_idle=0.05), retry=None)
    network = null(async_world, ["silent body"])
    stack = resilient("test", network, policy=policy, registry=async_world.registry)
    timeouts = {"timeout": async_world.httpx.Timeout(0.01).as_dict()}
    await silent(async_world, stack, dict(timeouts))
    kept = [
        *await silent(async_world, stack, dict(timeouts)),
        *await silent(async_world, stack, dict(timeouts)),
    ]
    await silent(async_world, stack, dict(timeouts))  # as above
    assert [one() for one in kept] == [None] * 4
