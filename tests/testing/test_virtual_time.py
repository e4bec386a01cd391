"""The clock that jumps: asyncio's own timers and ours in one time, without waiting."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time

import anyio
import anyio.to_thread
import httpx
import pytest

from aragora_transport import Policy, resilient, resilient_sync
from aragora_transport.testing import Hang, Reply, ScriptedTransport, VirtualTime

URL = "http://platform.test/"


def test_hours_of_sleep_take_no_time_and_are_read_to_the_second():
    clock = VirtualTime(now=100.0, wall=5000.0)

    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(3 * 3600.0)
        await anyio.sleep(3 * 86400.0)  # a selector is never asked to wait for more than a day at once
        return loop.time()

    began = time.monotonic()
    end = clock.run(main())
    assert time.monotonic() - began < 10.0  # of three days
    assert end == clock.monotonic() == pytest.approx(100.0 + 3 * 3600.0 + 3 * 86400.0)
    assert clock.time() == pytest.approx(5000.0 + 3 * 3600.0 + 3 * 86400.0)


def test_a_second_run_goes_on_where_the_first_one_ended():
    clock = VirtualTime()
    clock.run(asyncio.sleep(60.0))
    clock.run(asyncio.sleep(60.0))
    assert clock.monotonic() == 120.0
    assert repr(clock) == "<VirtualTime 120 s>"


def test_tasks_wake_in_the_order_of_their_times_and_time_stands_while_one_can_run():
    clock, seen = VirtualTime(), []

    async def one(name, *naps):
        for nap in naps:
            await asyncio.sleep(nap)
            for _ in range(100):
                await asyncio.sleep(0)
            seen.append((name, clock.monotonic()))

    async def main():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one("a", 5.0, 5.0))
            tasks.create_task(one("b", 3.0, 4.0))

    clock.run(main())
    assert seen == [("b", 3.0), ("a", 5.0), ("b", 7.0), ("a", 10.0)]


def test_timeouts_of_asyncio_and_anyio_end_at_their_time():
    clock = VirtualTime()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600.0):
                await asyncio.Event().wait()
        with anyio.move_on_after(30.0):
            await anyio.sleep_forever()

    clock.run(main())
    assert clock.monotonic() == pytest.approx(630.0)


def outage(seed):
    """An hour of calls to a platform that is down for half of it, and hangs now and then."""
    clock = VirtualTime(seed=seed)

    def answer(_):
        if 1200.0 <= clock.monotonic() < 3000.0:
            return 503
        return Hang() if clock.rng.random() < 0.01 else Reply(after=clock.rng.expovariate(10.0))

    network = ScriptedTransport(answer, clock=clock)
    stack = resilient("a", network, policy=Policy(log=False, metrics=False), clock=clock, rng=clock.rng)
    outcomes = []

    async def call():
        async with httpx.AsyncClient(transport=stack, trust_env=False) as client:
            try:
                outcome = (await client.get(URL)).status_code
            except httpx.TransportError as error:
                outcome = type(error).__name__
        outcomes.append((clock.monotonic(), outcome))

    async def main():
        async with asyncio.TaskGroup() as tasks:
            for _ in range(360):
                tasks.create_task(call())
                await asyncio.sleep(10.0)

    clock.run(main())
    return [sent.at for sent in network.sent], outcomes


def test_the_same_seed_is_the_same_hour_to_the_last_digit():
    sent, outcomes = outage(1)
    assert (sent, outcomes) == outage(1)
    assert sent != outage(2)[0]
    assert {outcome for _, outcome in outcomes} >= {200, 503, "CircuitOpenError"}
    assert not [at for at, outcome in outcomes if outcome == "CircuitOpenError" and not 1200 < at < 3070]


def test_its_rng_is_that_of_its_seed():
    assert VirtualTime(seed=7).rng.random() == random.Random(7).random()


def test_a_real_socket_is_refused():
    ours, theirs = socket.socketpair()

    async def main():
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_recv(ours, 1)

    with ours, theirs, pytest.raises(RuntimeError, match="looks as idle as a sleeping task"):
        VirtualTime().run(main())


@pytest.mark.parametrize("threads", [0, 1])
def test_tasks_that_nothing_can_wake_are_an_error_and_are_cleaned_up(threads):
    cleaned, release = [], threading.Event()
    others = [threading.Thread(target=release.wait) for _ in range(threads)]  # of somebody else
    for other in others:
        other.start()

    async def main():
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    try:
        with pytest.raises(RuntimeError, match="nothing could ever wake them"):
            VirtualTime(patience=0.05).run(main())
    finally:
        release.set()
        for other in others:
            other.join()
    assert cleaned == [True]


def test_another_thread_can_wake_a_task_while_no_timer_runs():
    clock, release = VirtualTime(), threading.Event()

    async def main():
        waiting = asyncio.get_running_loop().run_in_executor(None, release.wait)
        asyncio.get_running_loop().call_soon(release.set)
        return await waiting, await anyio.to_thread.run_sync(time.sleep, 0.01)

    assert clock.run(main()) == (True, None)
    assert clock.monotonic() == 0.0


@pytest.mark.parametrize("step", [503, Hang()], ids=["a wait", "a limit"])
def test_in_a_loop_of_others_it_says_so_instead_of_waiting_for_ever(step):
    clock = VirtualTime()
    stack = resilient("a", ScriptedTransport(step, clock=clock), clock=clock)

    async def main():
        async with httpx.AsyncClient(transport=stack, trust_env=False) as client:
            await client.get(URL)

    with pytest.raises(RuntimeError, match=r"use clock\.run\(main\(\)\)"):
        asyncio.run(main())


def test_a_blocking_client_is_told_so_too():
    clock = VirtualTime()
    stack = resilient_sync("a", ScriptedTransport(503, clock=clock), clock=clock)
    with (
        httpx.Client(transport=stack, trust_env=False) as client,
        pytest.raises(RuntimeError, match="for blocking clients ManualClock"),
    ):
        client.get(URL)
