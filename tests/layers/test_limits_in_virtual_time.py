"""Attempt, body and total limits as one alarm keeps them in a real event loop; time alone is virtual."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from aragora_transport import DeadlineExceededError, Policy, TimeoutPolicy, resilient
from aragora_transport.testing import Hang, Reply, ScriptedTransport, VirtualTime

URL = "http://platform.test/"
LIMITS = TimeoutPolicy(attempt=1.0, total=10.0, body_idle=3.0)
STALLS = Reply(body=(b"one", b"two"), between=2.0, stall=True)


class Drip(ScriptedTransport):
    """Like a server that sends a byte now and then, it satisfies httpx's own timeouts for ever."""

    async def handle_async_request(self, request):
        return await super().handle_async_request(httpx.Request(request.method, request.url))


def client_of(network, policy, clock):
    """One whose own timeouts are shorter than all limits, as httpx's are by default."""
    stack = resilient("a", network, policy=policy, clock=clock)
    return httpx.AsyncClient(transport=stack, timeout=0.5)


def ended(step, *, pauses=(), limits=LIMITS):
    """The limit that ended a call, when it did, and what had been read; the caller pauses after chunks."""
    clock = VirtualTime()
    network = Drip(200, step, clock=clock)
    policy = Policy(timeout=limits, retry=None, metrics=False)

    async def main():
        async with client_of(network, policy, clock) as client:
            await client.get(URL)  # after it the limits of such a request are known, as for nearly all
            began, read, waits = clock.monotonic(), b"", iter(pauses)
            try:
                async with client.stream("GET", URL) as answer:
                    async for chunk in answer.aiter_raw():
                        read += chunk
                        await asyncio.sleep(next(waits, 0.0))
            except DeadlineExceededError as error:
                assert not read or answer.is_closed
                return error.limit, clock.monotonic() - began, read

    limit, seconds, read = clock.run(main())
    return limit, pytest.approx(seconds), read


@pytest.mark.parametrize(
    ("step", "pauses", "expected"),
    [
        pytest.param(Hang(), (), ("attempt", 1.0, b""), id="no answer"),
        pytest.param(STALLS, (), ("body_idle", 7.0, b"onetwo"), id="silence"),
        pytest.param(
            STALLS, (5.0,), ("total", 10.0, b"onetwo"), id="the deadline comes before the silence ends"
        ),
        pytest.param(STALLS, (9.0,), ("total", 11.0, b"one"), id="the caller takes longer than the deadline"),
        pytest.param(
            Reply(body=(b"1", b"2")),
            (11.0,),
            ("total", 11.0, b"1"),
            id="so, and the next chunk is there at once",
        ),
        pytest.param(
            Reply(body=(b"x",) * 20, between=2.4), (), ("total", 10.0, b"xxxx"), id="a chunk now and then"
        ),
    ],
)
def test_the_first_limit_to_run_out_ends_the_call_at_its_time(step, pauses, expected):
    assert ended(step, pauses=pauses) == expected


def test_a_limit_that_is_met_leaves_nothing_behind_that_rings_later():
    """One alarm serves many calls: that it rang for one must not end the next one."""
    clock = VirtualTime()
    steps = [200, Hang(), Reply(after=0.9, body=(b"1", b"2"), between=2.9), STALLS] * 25
    network = Drip(*steps, clock=clock)
    policy = Policy(timeout=LIMITS, retry=None, breaker=None, metrics=False)
    outcomes = []

    async def main():
        async with client_of(network, policy, clock) as client:
            for _ in steps:
                began = clock.monotonic()
                try:
                    outcomes.append((await client.get(URL)).content)
                except DeadlineExceededError as error:
                    outcomes.append((error.limit, round(clock.monotonic() - began, 6)))
            assert asyncio.current_task().cancelling() == 0

    clock.run(main())
    assert outcomes == [b"", ("attempt", 1.0), b"12", ("body_idle", 7.0)] * 25
