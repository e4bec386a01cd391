"""The clock that tests own, in one event loop: when it moves, when it must not, and in which order."""

from __future__ import annotations

import asyncio
import random
import selectors
import time

import anyio
import anyio.lowlevel
import httpx
import pytest
import trio

from aragora_transport import DeadlineExceededError, RetryPolicy, TimeoutPolicy, call_options
from aragora_transport.layers import DeadlineTransport, RetryTransport, TimeoutTransport
from aragora_transport.testing import Hang, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio
URL = "http://platform.test/"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def clock():
    return ManualClock()


async def get(transport, url=URL, **keywords):
    async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(None), trust_env=False) as client:
        return await client.get(url, **keywords)


async def until(condition):
    """Let the other tasks run until it holds."""
    while not condition():
        await anyio.lowlevel.checkpoint()


async def rounds(number):
    """Let the event loop go round so often: time for a clock that would move to do so."""
    for _ in range(number):
        await anyio.lowlevel.checkpoint()


# --- by hand ---


async def test_it_stands_still_until_it_is_moved():
    clock = ManualClock(now=100.0, wall=5000.0)
    assert (clock.monotonic(), clock.time()) == (100.0, 5000.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (102.5, 5002.5)


async def test_a_step_of_the_wall_clock_leaves_monotonic_time_alone(clock):
    before = clock.time()
    clock.wall -= 3600.0
    assert (clock.monotonic(), clock.time()) == (0.0, before - 3600.0)


async def test_time_does_not_go_back(clock):
    with pytest.raises(ValueError, match=r"advance\(-1\): time does not go back"):
        clock.advance(-1)


async def test_without_auto_only_advance_moves_it():
    clock = ManualClock(auto=False)
    network = ScriptedTransport(Reply(status=503, headers={"retry-after": "10"}), 200, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, RetryTransport(network, clock=clock, rng=random.Random(1)))
        await until(lambda: len(network.sent) == 1)
        await rounds(100)
        assert clock.monotonic() == 0.0
        clock.advance(9.9)
        await rounds(100)
        assert len(network.sent) == 1
        clock.advance(1.2)
        await until(lambda: len(network.sent) == 2)
    assert clock.monotonic() == pytest.approx(11.1)


async def test_advance_ends_what_falls_due_on_the_way():
    clock = ManualClock(auto=False)
    network = ScriptedTransport(Hang(), clock=clock)
    layer = TimeoutTransport(network, policy=TimeoutPolicy(attempt=30.0), clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ends_with, DeadlineExceededError, layer)
        await until(lambda: len(network.sent) == 1)
        clock.advance(31.0)


async def ends_with(error, layer):
    with pytest.raises(error):
        await get(layer)


# --- by itself ---


async def test_an_hour_of_retries_takes_next_to_no_real_time(clock):
    network = ScriptedTransport(*[503] * 60, 200, clock=clock)
    policy = RetryPolicy(max_attempts=61, base_delay=60.0, max_delay=60.0, budget=None)
    began = time.monotonic()
    answer = await get(RetryTransport(network, policy=policy, clock=clock))
    assert answer.status_code == 200
    assert clock.monotonic() >= 3600.0
    assert time.monotonic() - began < 10.0


async def test_sleepers_wake_by_their_time_and_then_in_the_order_in_which_they_parked(clock):
    rng = random.Random(7)
    naps = [rng.choice((1.0, 2.0, 3.0, 5.5)) for _ in range(40)]
    woken = []

    async def nap(number):
        await clock.sleep(naps[number])
        woken.append((clock.monotonic(), number))

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(nap, number)
            await anyio.lowlevel.checkpoint()  # trio starts tasks in an order of its own
    assert woken == sorted((nap, number) for number, nap in enumerate(naps))


async def test_advance_wakes_sleepers_in_the_same_order():
    clock = ManualClock(auto=False)
    naps = [3.0, 1.0, 2.0, 1.0, 2.0, 3.0, 1.0]
    woken = []

    async def nap(number):
        await clock.sleep(naps[number])
        woken.append((naps[number], number))

    async with anyio.create_task_group() as tasks:
        for number in range(len(naps)):
            tasks.start_soon(nap, number)
            await anyio.lowlevel.checkpoint()
        await rounds(10)
        clock.advance(5.0)
    assert woken == sorted((nap, number) for number, nap in enumerate(naps))


async def test_a_sleeper_that_is_cancelled_in_line_lets_those_behind_it_go(clock):
    woken = []

    async def nap(number):
        with anyio.CancelScope() as scopes[number]:
            await clock.sleep(1.0)
            woken.append(number)
            if number == 0:
                scopes[1].cancel()

    scopes = {}
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(nap, number)
            await anyio.lowlevel.checkpoint()
    assert woken == [0, 2, 3]


async def test_who_is_woken_gets_to_its_next_wait_before_time_goes_on(clock):
    seen = []

    async def walk():
        for _ in range(10):
            await clock.sleep(1.0)
            await rounds(3)
            seen.append(clock.monotonic())

    async def stride():
        await clock.sleep(0.25)
        for _ in range(10):
            await clock.sleep(1.0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(walk)
        tasks.start_soon(stride)
    assert seen == [float(second) for second in range(1, 11)]


async def test_limits_end_calls_at_their_very_time(clock):
    network = ScriptedTransport(Hang(), clock=clock)
    layer = TimeoutTransport(network, policy=TimeoutPolicy(attempt=30.0), clock=clock)
    layer = DeadlineTransport(layer, policy=TimeoutPolicy(total=20.0), clock=clock)
    with pytest.raises(DeadlineExceededError) as caught:
        await get(layer)
    assert (caught.value.limit, caught.value.elapsed, clock.monotonic()) == ("total", 20.0, 20.0)


async def test_each_of_several_limits_ends_its_call_at_its_very_time(clock):
    network = ScriptedTransport(Hang(), clock=clock)
    ended = []

    async def call(seconds):
        with pytest.raises(DeadlineExceededError) as caught:
            await get(layer, extensions=call_options(attempt_timeout=seconds))
        ended.append((seconds, caught.value.elapsed))

    layer = TimeoutTransport(network, clock=clock)  # one, so that the limits share a timer
    async with anyio.create_task_group() as tasks:
        for seconds in (30.0, 10.0, 20.0):
            tasks.start_soon(call, seconds)
    assert ended == [(10.0, 10.0), (20.0, 20.0), (30.0, 30.0)]


async def test_a_sleep_without_end_does_not_keep_others_from_theirs(clock):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, float("inf"))
        await clock.sleep(5.0)
        assert clock.monotonic() == 5.0
        tasks.cancel_scope.cancel()


async def test_a_cancelled_sleeper_hands_the_clock_on(clock):
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel_soon, scope)
            await clock.sleep(float("inf"))
        await clock.sleep(5.0)
    assert clock.monotonic() == 5.0


async def cancel_soon(scope):
    await rounds(3)
    scope.cancel()


# --- what it leaves behind ---


class CountingSelector(selectors.SelectSelector):
    """Counts how often its event loop went round."""

    rounds = 0

    def select(self, timeout=None):
        self.rounds += 1
        return super().select(timeout)


class CountingInstrument(trio.abc.Instrument):
    rounds = 0

    def before_io_wait(self, timeout):
        self.rounds += 1


def test_a_clock_with_nothing_due_does_not_keep_the_event_loop_busy(anyio_backend):
    clock = ManualClock()
    network = ScriptedTransport(Hang(), clock=clock)
    counter = CountingSelector() if anyio_backend == "asyncio" else CountingInstrument()

    async def main():
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(get, RetryTransport(network, clock=clock))
            await until(lambda: len(network.sent) == 3)
            await rounds(100)
            before = counter.rounds
            await anyio.sleep(0.05)  # real time, in which a busy loop would go round thousands of times
            tasks.cancel_scope.cancel()
            return counter.rounds - before

    if anyio_backend == "asyncio":
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(counter)) as runner:
            went_round = runner.run(main())
    else:
        went_round = trio.run(main, instruments=[counter])
    assert went_round < 50


def test_it_outlives_the_event_loops_that_it_was_used_in(anyio_backend, clock):
    network = ScriptedTransport(200, Hang(), 200, Hang(), clock=clock)
    layer = TimeoutTransport(network, policy=TimeoutPolicy(attempt=30.0), clock=clock)
    for run in (1, 2):
        # An answer in time leaves a timer behind, in an event loop that is closed when it falls due.
        assert anyio.run(get, layer, backend=anyio_backend).status_code == 200
        anyio.run(ends_with, DeadlineExceededError, layer, backend=anyio_backend)
        assert clock.monotonic() == 30.0 * run


def test_it_says_where_it_stands(clock):
    clock.advance(1.5)
    assert repr(clock) == "<ManualClock 1.5 s, 0 calls, 0 parked>"
