"""Time limits around a call on real sockets: the caller's own, wherever the call is when they are over."""

from __future__ import annotations

import asyncio
import contextlib

import anyio
import anyio.lowlevel
import pytest
import trio

from aragora_transport import RetryPolicy
from aragora_transport.testing import Answer, FaultServer, stalled_body, stalled_headers

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

NEVER = {
    "headers": stalled_headers(),
    "body": stalled_body(),
    "backoff": Answer(status=503),
    "gate": Answer(status=429, headers={"Retry-After": "50"}),
}


@contextlib.asynccontextmanager
async def limited(kind):
    """The time limit of the event loop's own library."""
    if kind == "asyncio":
        async with asyncio.timeout(0.02):
            yield
    else:
        with trio.fail_after(0.02):
            yield


@pytest.mark.parametrize("answer", NEVER.values(), ids=NEVER.keys())
async def test_a_time_limit_around_a_call_sees_its_own_exception(async_sockets, tools, answer):
    kind = async_sockets.world.kind
    policy = tools.quick(retry=RetryPolicy(base_delay=50.0, max_delay=50.0))
    with FaultServer(answer) as server:
        async with async_sockets.caller(policy=policy, timeout=None) as caller:
            with pytest.raises(trio.TooSlowError if kind == "trio" else TimeoutError):
                async with limited(kind):
                    await caller.get(server.url)
            if kind == "asyncio":
                assert asyncio.current_task().cancelling() == 0
            await anyio.lowlevel.checkpoint()  # a cancellation that was left over would show here
            with anyio.move_on_after(0.02) as around:
                await caller.get(server.url)
            assert around.cancelled_caught
