"""Waits before a retry that end early: the call ends with the outcome it had, and nothing is left open."""

from __future__ import annotations

import threading

import anyio
import pytest

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    Policy,
    RetryBudget,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
)
from aragora_transport.events import RetryRefused, RetryScheduled
from aragora_transport.testing import Hang, ManualClock, Reply

pytestmark = pytest.mark.anyio

DOWN = Reply(status=503, body=(b"not ", b"yet"))
NARROW = BreakerPolicy(failure_threshold=2)


def policy(**fields):
    fields.setdefault("retry", RetryPolicy(max_attempts=9))
    fields.setdefault("breaker", NARROW)
    return Policy(**fields)


def retries(world):
    return [event for event in world.events if isinstance(event, RetryScheduled)]


def reasons(world):
    return [event.reason for event in world.events if isinstance(event, RetryRefused)]


class Calls:
    """Calls in tasks of their own, and what became of them."""

    def __init__(self, world, transport, tasks):
        self.world = world
        self.transport = transport
        self.tasks = tasks
        self.ended = []

    async def start(self, network, **keywords):
        """Begin a call, and come back when it was sent."""
        before = len(network.sent)
        self.tasks.start_soon(self._call, keywords)
        await self.world.until(lambda: len(network.sent) > before)

    async def end(self, count):
        """Come back when so many calls have ended."""
        await self.world.until(lambda: len(self.ended) >= count)

    async def _call(self, keywords):
        try:
            answer = await self.world.get(self.transport, **keywords)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            self.ended.append(error)
        else:
            self.ended.append((answer.status_code, answer.content))


@pytest.fixture
def held(async_world):
    """A world whose time stands still until told."""
    async_world.clock = ManualClock(auto=False)
    return async_world


# --- a circuit opens ---


async def test_a_circuit_that_opens_ends_the_waits_of_its_calls_with_the_outcomes_they_had(held):
    network = held.scripted(
        Reply(status=503, body=b"first"), Reply(status=503, body=b"second"), Reply(status=503, body=b"third")
    )
    stack = held.stack(network, policy=policy(breaker=BreakerPolicy(failure_threshold=3)))
    async with anyio.create_task_group() as tasks:
        calls = Calls(held, stack, tasks)
        await calls.start(network)
        await calls.start(network)
        await held.until(lambda: len(retries(held)) == 2)
        assert calls.ended == []
        await calls.start(network)
    assert sorted(calls.ended) == [(503, b"first"), (503, b"second"), (503, b"third")]
    assert held.clock.monotonic() == 0.0
    assert len(network.sent) == 3
    assert network.open_responses == 0
    assert reasons(held) == ["circuit_open"] * 3


async def test_an_error_that_was_waited_for_is_raised_as_it_was(held):
    lost = held.httpx.ReadError("lost")
    network = held.scripted(lost, DOWN)
    async with anyio.create_task_group() as tasks:
        calls = Calls(held, held.stack(network, policy=policy()), tasks)
        await calls.start(network)
        await calls.start(network)
    assert set(calls.ended) == {lost, (503, b"not yet")}


async def test_a_call_that_waits_for_a_rate_limit_is_woken_too(held):
    limited = Reply(status=429, headers={"retry-after": "30"}, body=b"slow down")
    network = held.scripted(limited, DOWN, DOWN)
    stack = held.stack(network, policy=policy(rate_limit=None))
    async with anyio.create_task_group() as tasks:
        calls = Calls(held, stack, tasks)
        await calls.start(network)
        await calls.start(network)
        await calls.start(network)
    assert sorted(calls.ended) == [(429, b"slow down"), (503, b"not yet"), (503, b"not yet")]


async def test_a_retry_that_waits_at_a_gate_is_woken_too(held):
    limited = Reply(status=429, headers={"retry-after": "30"}, body=b"slow down")
    network = held.scripted(limited, DOWN, DOWN)
    stack = held.stack(network, policy=policy())
    async with anyio.create_task_group() as tasks:
        calls = Calls(held, stack, tasks)
        await calls.start(network)
        await calls.start(network, extensions=call_options(rate_key="another gate"))
        await calls.start(network, extensions=call_options(rate_key="another gate"))
    assert sorted(calls.ended) == [(429, b"slow down"), (503, b"not yet"), (503, b"not yet")]
    assert len(network.sent) == 3


async def test_the_circuit_of_another_key_wakes_nobody(held):
    network = held.scripted(DOWN, DOWN, DOWN, 200)
    stack = held.stack(network, policy=policy(breaker=BreakerPolicy(failure_threshold=2, key="operation")))
    async with anyio.create_task_group() as tasks:
        calls = Calls(held, stack, tasks)
        await calls.start(network, extensions=call_options(operation="mine"))
        await calls.start(network, extensions=call_options(operation="another"))
        await calls.start(network, extensions=call_options(operation="another"))
        await calls.end(2)
        assert [status for status, _ in calls.ended] == [503, 503]
        held.clock.advance(2.0)
    assert calls.ended[-1] == (200, b"")


async def test_a_circuit_past_its_cooldown_lets_a_waiting_retry_be_the_probe(held):
    network = held.scripted(Reply(status=503, after=100.0), DOWN, DOWN, 200)
    stack = held.stack(network, policy=policy(breaker=BreakerPolicy(failure_threshold=2), timeout=None))
    async with anyio.create_task_group() as tasks:
        calls = Calls(held, stack, tasks)
        await calls.start(network)
        await calls.start(network)
        await calls.start(network)
        await calls.end(2)
        held.clock.advance(100.0)  # its own answer comes long after the circuit could be probed
        await held.until(lambda: len(retries(held)) == 2)
        held.clock.advance(2.0)
    assert calls.ended[-1] == (200, b"")
    assert stack.circuits()["test"]["state"] == "closed"


async def test_a_circuit_that_opens_before_the_wait_begins_ends_it_as_well(world):
    network = world.scripted(DOWN, 200)
    stack = world.stack(network, policy=policy(), on_event=lambda event: opens_at_a_retry(stack, event))
    answer = await world.get(stack)
    assert (answer.status_code, answer.content) == (503, b"not yet")
    assert world.clock.monotonic() == 0.0
    assert len(network.sent) == 1
    (attempt,) = answer.extensions["aragora_transport"].attempts
    assert (attempt.status, attempt.wait) == (503, 0.0)


async def test_a_retry_without_a_wait_that_finds_its_circuit_open_ends_with_the_outcome_it_had(world):
    network = world.scripted(DOWN, 200)
    narrow = policy(retry=RetryPolicy(base_delay=0))
    stack = world.stack(network, policy=narrow, on_event=lambda event: opens_at_a_retry(stack, event))
    answer = await world.get(stack)
    assert (answer.status_code, answer.content) == (503, b"not yet")
    assert len(network.sent) == 1
    record = answer.extensions["aragora_transport"]
    assert [(attempt.status, attempt.wait) for attempt in record.attempts] == [(503, 0.0)]


def opens_at_a_retry(stack, event):
    if isinstance(event, RetryScheduled):
        stack.isolate()


def test_a_thread_that_waits_is_woken_from_another_one(blocking_world):
    world = blocking_world
    world.clock = ManualClock(auto=False)
    waits = threading.Event()
    network = world.scripted(DOWN, 200)
    stack = world.stack(network, policy=policy(), on_event=lambda event: waits.set())
    client = world.client(stack)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.get("http://platform.test/")), daemon=True)
    thread.start()
    assert waits.wait(10.0)
    stack.isolate()
    thread.join(10.0)
    assert [(answer.status_code, answer.content) for answer in answers] == [(503, b"not yet")]


async def test_a_first_attempt_that_is_refused_is_an_error(world):
    network = world.scripted(DOWN)
    stack = world.stack(network, policy=policy())
    stack.isolate()
    with pytest.raises(CircuitOpenError):
        await world.get(stack)
    assert len(network.sent) == 0


# --- a gate ---


@pytest.mark.parametrize(
    ("told", "limits"),
    [
        pytest.param("50", TimeoutPolicy(total=20.0), id="past the deadline"),
        pytest.param("61", TimeoutPolicy(), id="for too long"),
    ],
)
async def test_a_gate_that_is_closed_anew_ends_the_wait_at_once(held, told, limits):
    network = held.scripted(
        Reply(status=429, headers={"retry-after": told}, body=b"of another", after=2.0),
        Reply(status=429, headers={"retry-after": "5"}, body=b"its own"),
    )
    stack = held.stack(network, policy=policy(timeout=limits))
    async with anyio.create_task_group() as tasks:
        calls = Calls(held, stack, tasks)
        await calls.start(network)
        await calls.start(network)
        await held.until(lambda: retries(held))
        held.clock.advance(2.0)
    assert sorted(calls.ended) == [(429, b"its own"), (429, b"of another")]
    assert held.clock.monotonic() == 2.0
    assert network.open_responses == 0


async def test_who_cannot_leave_a_gate_in_time_keeps_the_outcome_it_had(async_world):
    world = async_world
    limited = Reply(status=429, headers={"retry-after": "1"}, body=b"slow down", after=0.1)
    network = world.scripted(*[limited] * 20, 200)
    stack = world.stack(network, policy=policy(timeout=TimeoutPolicy(total=1.2)))
    async with anyio.create_task_group() as tasks:
        calls = Calls(world, stack, tasks)
        for _ in range(20):
            await calls.start(network)
    assert set(calls.ended) == {(200, b""), (429, b"slow down")}
    assert world.clock.monotonic() <= 1.2
    assert network.open_responses == 0


def test_a_thread_at_a_gate_that_is_closed_anew_ends_its_wait(blocking_world):
    world = blocking_world
    world.clock = ManualClock(auto=False)
    sent, waits = threading.Event(), threading.Event()

    def slow(request):
        sent.set()
        return Reply(status=429, headers={"retry-after": "50"}, body=b"of another", after=2.0)

    network = world.scripted(slow, Reply(status=429, headers={"retry-after": "5"}, body=b"its own"))
    limits = {"timeout": TimeoutPolicy(total=20.0)}
    stack = world.stack(network, policy=policy(**limits), on_event=lambda event: waits.set())
    client = world.client(stack)
    answers = []

    def call():
        answers.append(client.get("http://platform.test/").content)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(2)]
    threads[0].start()
    assert sent.wait(10.0)
    threads[1].start()
    assert waits.wait(10.0)
    world.clock.advance(2.0)
    for thread in threads:
        thread.join(10.0)
    assert sorted(answers) == [b"its own", b"of another"]


# --- the caller goes away ---


LIMITED = Reply(status=429, headers={"retry-after": "9"}, body=b"slow down")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([DOWN], id="in the wait"),
        pytest.param([LIMITED], id="at the gate"),
        pytest.param([Reply(status=503, body=b"x", stall=True)], id="while it is drained"),
        pytest.param([Reply(status=429, headers={"retry-after": "0"}), Hang()], id="in the second attempt"),
    ],
)
async def test_a_cancelled_call_ends_at_once_and_leaves_nothing_behind(held, steps):
    network = held.scripted(*steps, 200)
    budget = RetryBudget(per_success=0, per_second=0, cap=10)
    stack = held.stack(network, policy=policy(retry=RetryPolicy(base_delay=5.0, budget=budget)))

    async def far_enough():
        await held.until(lambda: retries(held) and len(network.sent) == len(steps))
        held.clock.advance(0.5)
        for _ in range(50):  # wherever it gets by itself
            await anyio.lowlevel.checkpoint()

    await held.cancelled(far_enough, held.get, stack)
    assert len(network.sent) == len(steps)
    assert network.open_responses == 0
    held.clock.advance(60.0)
    assert (await held.get(stack)).status_code == 200
