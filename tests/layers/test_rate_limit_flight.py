"""The cap on requests under way: a place is held until the body has ended, and never lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    Policy,
    RateLimitedError,
    RateLimitPolicy,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
)
from aragora_transport.layers import DeadlineTransport, RateLimitTransport
from aragora_transport.testing import Hang, Reply

pytestmark = pytest.mark.anyio
URL = "http://platform.test/"


def capped(number, **others):
    return Policy(retry=None, rate_limit=RateLimitPolicy(max_in_flight=number), **others)


def in_flight(stack):
    return {key: gate.in_flight for key, gate in stack.state.gates.items()}


async def test_never_more_are_under_way_and_all_are_served_in_order(async_world):
    world = async_world
    network = world.scripted(Reply(body=(b"a", b"b"), after=1.0, between=0.5))
    stack = world.stack(network, policy=capped(3))
    under_way, most, came = 0, 0, []

    async def call(number):
        nonlocal under_way, most
        came.append(str(number))  # trio starts tasks in an order of its own
        async with client.stream("GET", f"{URL}{number}") as answer:
            under_way += 1
            most = max(most, under_way)
            assert await answer.aread() == b"ab"
            under_way -= 1

    async with world.client(stack) as client, anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(call, number)
    assert [sent.url.removeprefix(URL) for sent in network.sent] == came
    assert [sent.at for sent in network.sent] == [0.0] * 3 + [2.0] * 3 + [4.0] * 3 + [6.0]
    assert most == 3
    assert in_flight(stack) == {"test": 0}


async def read(client):
    await client.get(URL)


async def leave_early(client):
    async with client.stream("GET", URL) as answer:
        assert answer.status_code == 200


async def fail(client):
    with pytest.raises(Exception, match=r"scripted|limit|decod"):
        await client.get(URL)


HALF = Reply(body=(b"a", b"b"), between=1.0)
ENDS = {
    "read": (read, 200),
    "closed early": (leave_early, Reply(body=b"abc", stall=True)),
    "a status": (read, 503),
    "a refusal": (read, Reply(status=429, headers={"retry-after": "0"})),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_place_is_free_when_its_answer_is_done_with(async_world, end):
    way, step = ENDS[end]
    network = async_world.scripted(step)
    stack = async_world.stack(network, policy=capped(1))
    async with async_world.client(stack) as client:
        for _ in range(3):
            await way(client)
            assert in_flight(stack) == {"test": 0}
    assert len(network.sent) == 3


async def test_a_place_is_free_after_an_error_before_and_after_the_headers(world):
    dies = Reply(body=b"a", then=world.httpx.ReadError)
    network = world.scripted(world.httpx.ConnectError, dies, Hang(), Reply(body=b"a", stall=True), 200)
    stack = world.stack(network, policy=capped(1, timeout=TimeoutPolicy(attempt=5.0, body_idle=5.0)))
    for _ in range(4):
        with pytest.raises(world.httpx.TransportError):
            await world.get(stack)
        assert in_flight(stack) == {"test": 0}
    assert (await world.get(stack)).status_code == 200


async def test_a_retry_waits_without_the_place_of_the_attempt_that_failed(async_world):
    world = async_world
    network = world.scripted(503, 200)
    limits = {"retry": RetryPolicy(base_delay=10.0), "rate_limit": RateLimitPolicy(max_in_flight=1)}
    stack = world.stack(network, policy=Policy(**limits))
    async with world.client(stack) as client, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(client.get, URL)
    assert [sent.at >= 10.0 for sent in network.sent] == [False, False, True]
    assert in_flight(stack) == {"test": 0}


async def test_a_wait_strategy_that_raises_frees_the_place(world):
    def strategy(state):
        raise LookupError("a strategy of the user's")

    policy = Policy(retry=RetryPolicy(wait=strategy), rate_limit=RateLimitPolicy(max_in_flight=1))
    stack = world.stack(world.scripted(503), policy=policy)
    for _ in range(2):
        with pytest.raises(LookupError):
            await world.get(stack)
        assert in_flight(stack) == {"test": 0}


@pytest.mark.parametrize("at", ["the gate", "the network", "the body", "its turn"])
async def test_a_cancelled_call_frees_its_place(async_world, still, at):
    world = async_world
    slow = Reply(body=(b"a", b"b"), between=5.0, after=5.0)
    network = world.scripted(slow, slow, 200)
    stack = world.stack(network, policy=capped(1))
    scope = anyio.CancelScope()
    victim = 1 if at in {"the gate", "its turn"} else 0
    done = []

    async def call(number):
        with scope if number == victim else anyio.CancelScope():
            await client.get(f"{URL}{number}")
            done.append(number)

    async with world.client(stack) as client, anyio.create_task_group() as tasks, still():
        for number in range(3):
            tasks.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()
        if at == "the body":
            world.clock.advance(6.0)
            await anyio.wait_all_tasks_blocked()
        if at == "its turn":
            # The place is free, and it has been told so, when it is cancelled.
            stack.state.gates["test"].line[0].waiter.wake()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
    assert done == [number for number in range(3) if number != victim]
    assert in_flight(stack) == {"test": 0}


async def test_who_waits_for_a_place_that_nobody_frees_is_refused_in_the_end(async_world):
    world = async_world
    network = world.scripted(Hang(), 200)
    policy = Policy(
        timeout=None, retry=RetryPolicy(max_retry_after=20.0), rate_limit=RateLimitPolicy(max_in_flight=1)
    )
    stack = world.stack(network, policy=policy)
    async with world.client(stack) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, URL)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RateLimitedError, match="none ended in time") as caught:
            await client.get(URL)
        assert (caught.value.reason, world.clock.monotonic()) == ("in_flight", 20.0)
        with pytest.raises(RateLimitedError) as caught:
            await client.get(URL, extensions=call_options(max_gate_wait=0))
        assert (caught.value.reason, world.clock.monotonic()) == ("max_gate_wait", 20.0)
        answer = await client.get(URL, extensions=call_options(rate_key="another"))
        assert answer.status_code == 200
        tasks.cancel_scope.cancel()


async def test_a_layer_of_others_that_raises_for_an_answer_frees_its_place(async_world):
    class Strict(httpx.AsyncBaseTransport):
        def __init__(self, below):
            self.below = below

        async def handle_async_request(self, request):
            answer = await self.below.handle_async_request(request)
            await answer.stream.aclose()
            raise PermissionError(f"status {answer.status_code}")

    world = async_world
    network = world.scripted(Reply(status=403, body=b"no"))
    layer = world.layer(RateLimitTransport, network, policy=RateLimitPolicy(max_in_flight=1))
    outer = world.layer(DeadlineTransport, Strict(layer))
    async with world.client(outer) as client:
        for _ in range(3):
            with pytest.raises(PermissionError):
                await client.get(URL)
    assert len(network.sent) == 3


async def test_without_a_limit_on_the_wait_it_waits_for_as_long_as_it_takes(async_world):
    world = async_world
    network = world.scripted(Reply(after=5000.0), 200)
    layer = world.layer(
        RateLimitTransport, network, policy=RateLimitPolicy(max_in_flight=1), max_retry_after=float("inf")
    )
    async with world.client(layer) as client, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(client.get, URL)
    assert [sent.at for sent in network.sent] == [0.0, 5000.0]


async def test_a_circuit_that_opens_lets_those_go_who_wait_for_a_place(async_world, still):
    world = async_world
    network = world.scripted(Reply(status=503, after=1.0), Reply(status=503, after=9.0))
    stack = world.stack(network, policy=capped(2, breaker=BreakerPolicy(failure_threshold=1)))
    errors = []

    async def call():
        try:
            await client.get(URL)
        except CircuitOpenError as error:
            errors.append(error)

    async with world.client(stack) as client, anyio.create_task_group() as tasks, still():
        for _ in range(4):
            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
    assert len(network.sent) == 2
    assert len(errors) == 2
    assert in_flight(stack) == {"test": 0}


def test_threads_share_the_places(blocking_world):
    world = blocking_world
    network = world.scripted(Reply(after=1.0))
    stack = world.stack(network, policy=capped(2))
    start = threading.Barrier(8)
    with world.client(stack) as client:

        def call():
            start.wait(10)
            return client.get(URL).status_code

        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(call) for _ in range(8)]
            assert [future.result(20) for future in calls] == [200] * 8
    times = [sent.at for sent in network.sent]
    assert all(later - sooner >= 1.0 for sooner, later in zip(times, times[2:], strict=False))
    assert in_flight(stack.stack) == {"test": 0}


async def test_the_gate_of_a_request_under_way_is_kept(async_world, still):
    world = async_world
    network = world.scripted(Reply(after=5.0), 200)
    policy = Policy(retry=None, rate_limit=RateLimitPolicy(max_in_flight=1, max_keys=1))
    stack = world.stack(network, policy=policy)
    async with world.client(stack) as client, anyio.create_task_group() as tasks:

        async def call(key):
            await client.get(URL, extensions=call_options(rate_key=key))

        async with still():
            tasks.start_soon(call, "busy")
            await anyio.wait_all_tasks_blocked()
            for key in ("one", "two"):
                await call(key)
            assert list(stack.state.gates) == ["busy", "two"]
