"""Long lines and many buckets: what each caller costs does not grow with how many others there are."""

from __future__ import annotations

import anyio
import httpx
import pytest

from aragora_transport import RateLimitPolicy, call_options
from aragora_transport._gate import Gate
from aragora_transport.layers import RateLimitTransport
from aragora_transport.testing import Reply, ScriptedTransport, VirtualTime

URL = "http://platform.test/"


class CountingTime(VirtualTime):
    """Counts how often it is read: whoever wakes in a line looks at the clock."""

    reads = 0

    def monotonic(self):
        self.reads += 1
        return super().monotonic()


def reads_for_each_of(callers):
    clock = CountingTime()
    limited = Reply(status=429, headers={"retry-after": "1"})
    network = ScriptedTransport(*([limited, *[200] * 9] * (callers // 10)), limited, clock=clock)
    layer = RateLimitTransport(network, policy=RateLimitPolicy(max_waiters=callers), clock=clock)
    statuses = []

    async def main():
        async with httpx.AsyncClient(transport=layer) as client, anyio.create_task_group() as tasks:
            await client.get(URL)
            clock.reads = 0

            async def call():
                statuses.append((await client.get(URL)).status_code)

            for _ in range(callers):
                tasks.start_soon(call)

    clock.run(main())
    assert statuses.count(429) == callers // 10
    return clock.reads / callers


def test_a_429_wakes_nobody_in_a_long_line_whose_turn_can_still_come():
    assert reads_for_each_of(400) < 1.2 * reads_for_each_of(100)


@pytest.mark.anyio
async def test_a_new_bucket_looks_at_no_more_than_two_others_to_forget_one(world, monkeypatch):
    looked = 0
    idle = Gate.idle

    def counted(gate):
        nonlocal looked
        looked += 1
        return idle.fget(gate)

    monkeypatch.setattr(Gate, "idle", property(counted))
    policy = RateLimitPolicy(rate=100.0, max_keys=20)
    layer = world.layer(RateLimitTransport, world.scripted(200), policy=policy)
    for number in range(60):
        await world.get(layer, extensions=call_options(rate_key=f"bucket {number}"))
    assert looked <= 2 * 40
