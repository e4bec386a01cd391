"""The metrics tell of every request that the server got, and of no other."""

from __future__ import annotations

import random

import anyio
import pytest

from aragora_transport import BreakerPolicy, CircuitOpenError, RateLimitedError, RetryPolicy
from aragora_transport.testing import (
    Answer,
    FaultServer,
    close_before_headers,
    garbage,
    half_headers,
    reset_after_headers,
    reset_before_headers,
    stalled_headers,
    truncated_body,
    wrong_length,
)

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

CALLS = 40
MIX = [
    *[Answer(body=b"fine")] * 6,
    *[503] * 4,
    404,
    Answer(status=429, headers={"Retry-After": "0.01"}),
    Answer(status=503, body=(b"bu", b"sy"), close=True),
    close_before_headers(),
    reset_before_headers(),
    half_headers(),
    garbage(),
    reset_after_headers(),
    wrong_length(status=503),
    truncated_body(),
]


def total(sockets, family):
    """The sum of a counter over all of its labels."""
    samples = (sample for metric in sockets.registry.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name == family)


async def one(caller, url, number):
    method = ("GET", "PUT", "POST")[number % 3]
    try:
        await caller.request(method, url, content=b"a body" if method != "GET" else None)
    except caller.world.httpx.TransportError:
        return 0
    return 1


def policy_of(tools):
    return tools.quick(retry=RetryPolicy(max_attempts=4, base_delay=0.001, max_delay=0.001))


async def test_the_attempts_counted_are_the_requests_that_arrived(sockets, tools):
    luck = random.Random(7)
    with FaultServer(lambda _: luck.choice(MIX)) as server:
        async with sockets.caller(policy=policy_of(tools)) as caller:
            for number in range(CALLS):
                await one(caller, server.url, number)
            assert caller.taken == []
        assert total(sockets, "platform_attempts_total") == len(server.requests)
        assert total(sockets, "platform_retry_total") == len(server.requests) - CALLS > 10
        assert total(sockets, "platform_requests_total") == CALLS


async def test_they_are_for_calls_that_run_at_once_too(async_sockets, tools):
    luck = random.Random(8)
    with FaultServer(lambda _: luck.choice(MIX)) as server:
        network = async_sockets.network(connections=10)
        async with async_sockets.caller(network, policy=policy_of(tools), timeout=30) as caller:
            async with anyio.create_task_group() as tasks:
                for number in range(CALLS):
                    tasks.start_soon(one, caller, server.url, number)
            assert caller.taken == []
        assert total(async_sockets, "platform_attempts_total") == len(server.requests)
        assert total(async_sockets, "platform_retry_total") == len(server.requests) - CALLS > 10
        assert total(async_sockets, "platform_requests_total") == CALLS


async def test_a_call_that_times_out_or_is_cancelled_was_sent_as_often_as_it_arrived(async_sockets, tools):
    with FaultServer(503, stalled_headers()) as server:
        async with async_sockets.caller(policy=policy_of(tools)) as caller:
            timeout = async_sockets.httpx.Timeout(10, read=0.05)
            with pytest.raises(async_sockets.httpx.ReadTimeout):
                await caller.get(server.url, timeout=timeout)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(caller.get, server.url)
                await async_sockets.wait(server.wait_for_requests, 5)
                tasks.cancel_scope.cancel()
        assert total(async_sockets, "platform_attempts_total") == len(server.requests) == 5


async def test_what_circuits_and_gates_refuse_is_counted_as_no_attempt(sockets, tools):
    """Neither where it would have been the first attempt of its call nor the second."""
    policy = tools.quick(
        retry=RetryPolicy(base_delay=0.001),
        breaker=BreakerPolicy(failure_threshold=1, failure_rate=0.0, cooldown=50.0),
    )
    with FaultServer(Answer(status=429, headers={"Retry-After": "1000"}), then=503) as server:
        async with sockets.caller(policy=policy) as caller:
            assert (await caller.get(server.url)).status_code == 429
            with pytest.raises(RateLimitedError):
                await caller.get(server.url)
        assert total(sockets, "platform_attempts_total") == len(server.requests) == 1
        async with sockets.caller(policy=policy) as caller:
            assert (await caller.get(server.url)).status_code == 503
            with pytest.raises(CircuitOpenError):
                await caller.get(server.url)
        assert total(sockets, "platform_attempts_total") == len(server.requests) == 2
        assert total(sockets, "platform_requests_total") == 4
        assert total(sockets, "platform_retry_total") == 0


async def test_a_call_that_is_cancelled_at_a_gate_is_counted_as_no_attempt(async_sockets, tools):
    with FaultServer(Answer(status=429, headers={"Retry-After": "50"})) as server:
        async with async_sockets.caller(policy=policy_of(tools)) as caller:
            with anyio.move_on_after(0.1) as scope:
                await caller.get(server.url)
            assert scope.cancelled_caught
        server.wait_for_idle()
        assert total(async_sockets, "platform_attempts_total") == len(server.requests) == 1
