"""The clock that tests own, in threads: blocking clients, several event loops, and both at once."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest

from aragora_transport import DeadlineExceededError, RetryPolicy, TimeoutPolicy, call_options
from aragora_transport.layers import RetryTransport, TimeoutTransport
from aragora_transport.sync import Driven, Driver
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport

URL = "http://platform.test/"


def retrying(below, clock, *, wait=1.0):
    """A blocking retry layer with a fixed wait."""
    policy = RetryPolicy(max_attempts=5, wait=lambda state: wait, budget=None)
    return Driver(RetryTransport(Driven(below), policy=policy, clock=clock))


def get(transport):
    with httpx.Client(transport=transport, trust_env=False) as client:
        return client.get(URL)


def seconds(network):
    """From the first attempt to the last."""
    return network.sent[-1].at - network.sent[0].at


class Held(httpx.BaseTransport):
    """A blocking transport whose answer comes when the test says so."""

    def __init__(self):
        self.entered = threading.Event()
        self.go = threading.Event()

    def handle_request(self, request):
        self.entered.set()
        assert self.go.wait(10)
        return httpx.Response(200)


def test_threads_that_wait_take_exactly_their_time():
    clock = ManualClock()
    waits = [float(1 + number % 7) for number in range(12)]

    def call(wait):
        network = ScriptedTransport(503, 503, 503, 503, 200, clock=clock)
        assert get(retrying(network, clock, wait=wait)).status_code == 200
        return seconds(network)

    with ThreadPoolExecutor(12) as pool:
        took = list(pool.map(call, waits, timeout=30))
    assert took == [4 * wait for wait in waits]


def test_a_thread_inside_a_real_transport_holds_time_still():
    clock = ManualClock()
    held = Held()
    network = ScriptedTransport(503, 200, clock=clock)
    with ThreadPoolExecutor(2) as pool:
        real = pool.submit(get, retrying(held, clock))
        assert held.entered.wait(10)
        waiting = pool.submit(get, retrying(network, clock))
        nothing_happens(lambda: clock.monotonic() > 0.0, "time moved")
        held.go.set()
        assert real.result(10).status_code == waiting.result(10).status_code == 200
    assert network.sent[1].at == 1.0


def test_a_thread_that_reads_a_body_from_a_real_transport_holds_time_still():
    clock = ManualClock()
    reading = threading.Event()
    go = threading.Event()

    class Body(httpx.SyncByteStream):
        def __iter__(self):
            reading.set()
            assert go.wait(10)
            yield b"ok"

    streaming = httpx.MockTransport(lambda request: httpx.Response(200, stream=Body()))
    layer = Driver(TimeoutTransport(Driven(streaming), policy=TimeoutPolicy(), clock=clock))
    network = ScriptedTransport(503, 200, clock=clock)
    with ThreadPoolExecutor(2) as pool:
        real = pool.submit(get, layer)
        assert reading.wait(10)
        waiting = pool.submit(get, retrying(network, clock))
        nothing_happens(lambda: clock.monotonic() > 0.0, "time moved")
        go.set()
        assert real.result(10).content == b"ok"
        assert waiting.result(10).status_code == 200
    assert network.sent[1].at == 1.0


def nothing_happens(condition, what):
    """Give other threads their turn, many times over what they would need."""
    for _ in range(100):
        assert not condition(), what
        time.sleep(0.0005)


def somebody_parks(clock):
    while "1 parked" not in repr(clock):
        time.sleep(0.0005)


def test_advance_moves_threads_by_hand():
    clock = ManualClock(auto=False)
    network = ScriptedTransport(503, 200, clock=clock)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(get, retrying(network, clock, wait=10.0))
        somebody_parks(clock)
        clock.advance(9.0)
        nothing_happens(waiting.done, "it ended its wait too early")
        clock.advance(1.0)
        assert waiting.result(10).status_code == 200


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_event_loops_in_several_threads_share_one_clock(backend):
    clock = ManualClock()

    async def call(wait, times):
        network = ScriptedTransport(503, 503, 503, 503, 200, clock=clock)
        policy = RetryPolicy(max_attempts=5, wait=lambda state: wait, budget=None)
        async with httpx.AsyncClient(transport=RetryTransport(network, policy=policy, clock=clock)) as client:
            assert (await client.get(URL)).status_code == 200
        times.append((4 * wait, seconds(network)))

    async def main(first):
        times = []
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(call, float(first + number), times)
        return times

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(anyio.run, main, first, backend=backend) for first in (1, 2, 3, 4)]
        times = [pair for future in futures for pair in future.result(30)]
    assert len(times) == 40
    for expected, took in times:
        assert took == expected


def test_a_blocking_call_inside_a_running_event_loop_moves_the_clock_past_the_tasks_that_it_holds_up():
    """The task's time comes first, but its event loop is blocked: it goes on as soon as it can."""
    clock = ManualClock()

    async def main():
        sleeper = asyncio.create_task(clock.sleep(1.0))
        await asyncio.sleep(0)
        network = ScriptedTransport(503, 200, clock=clock)
        assert get(retrying(network, clock, wait=5.0)).status_code == 200
        assert clock.monotonic() == 5.0
        await asyncio.wait_for(sleeper, 10)

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_moves_the_clock_ends_the_limits_of_an_event_loop(backend):
    clock = ManualClock(auto=False)
    hanging = httpx.MockTransport(lambda request: clock.sleep(float("inf")))  # heeds no timeout of httpx's
    layer = TimeoutTransport(hanging, clock=clock)
    started = threading.Event()
    ended = queue.Queue()

    async def call(client, seconds):
        with pytest.raises(DeadlineExceededError):
            await client.get(URL, extensions=call_options(attempt_timeout=seconds))
        ended.put(seconds)

    async def main():
        async with httpx.AsyncClient(transport=layer, timeout=httpx.Timeout(None)) as client:
            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    for seconds in (30.0, 10.0, 20.0):
                        tasks.start_soon(call, client, seconds)
                    await anyio.wait_all_tasks_blocked()
                    started.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(anyio.run, main, backend=backend)
        assert started.wait(10)
        for seconds in (10.0, 20.0, 30.0):
            clock.advance(10.0)
            assert ended.get(timeout=10) == seconds
        running.result(10)


def test_an_event_loop_that_is_blocked_does_not_keep_threads_from_moving_the_clock():
    """It parked a task last of all, and can do nothing for anybody until the threads are through."""
    clock = ManualClock()
    held = Held()
    network = ScriptedTransport(503, 200, clock=clock)

    async def main():
        real = pool.submit(get, retrying(held, clock))
        assert held.entered.wait(10)
        waiting = pool.submit(get, retrying(network, clock))
        somebody_parks(clock)
        sleeper = asyncio.create_task(clock.sleep(100.0))
        for _ in range(5):
            await asyncio.sleep(0)
        assert "2 parked" in repr(clock)
        held.go.set()
        assert waiting.result(10).status_code == real.result(10).status_code == 200
        await sleeper

    with ThreadPoolExecutor(2) as pool:
        asyncio.run(main())
    assert network.sent[1].at == 1.0


def test_a_thread_that_is_parked_uses_no_processor():
    clock = ManualClock()
    network = ScriptedTransport(Reply(after=3.0), clock=clock)
    held = Held()
    with ThreadPoolExecutor(2) as pool:
        real = pool.submit(get, retrying(held, clock))
        assert held.entered.wait(10)
        ident = pool.submit(threading.get_ident).result(10)  # the second thread, which is parked next
        waiting = pool.submit(get, retrying(network, clock))
        somebody_parks(clock)
        cpu = time.pthread_getcpuclockid(ident)
        before = time.clock_gettime(cpu)
        time.sleep(0.05)
        used = time.clock_gettime(cpu) - before
        held.go.set()
        real.result(10)
        waiting.result(10)
    assert used < 0.02
