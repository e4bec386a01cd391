"""pybreaker's own surface: listeners hear what they always did, storages keep the counts; nothing leaks."""

from __future__ import annotations

import contextlib
import gc
import weakref
from datetime import UTC, datetime, timedelta

import anyio
import pybreaker
import pytest

from aragora_transport import BreakerPolicy, CircuitOpenError, Policy
from aragora_transport.events import CircuitChanged
from aragora_transport.layers import BreakerTransport
from aragora_transport.state import State
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio

POLICY = Policy(
    timeout=None, retry=None, rate_limit=None, breaker=BreakerPolicy(failure_threshold=2, cooldown=60.0)
)


class Recorder(pybreaker.CircuitBreakerListener):
    """Keeps what it is told, as words."""

    def __init__(self):
        self.told = []

    def before_call(self, cb, func, *args, **kwargs):
        self.told.append("before_call")

    def success(self, cb):
        self.told.append("success")

    def failure(self, cb, exc):
        self.told.append(f"failure: {type(exc).__name__}: {exc}")

    def state_change(self, cb, old_state, new_state):
        self.told.append(f"{cb.name}: {old_state.name} -> {new_state.name}")


class Raiser(pybreaker.CircuitBreakerListener):
    """Fails at everything."""

    def before_call(self, cb, func, *args, **kwargs):
        raise RuntimeError("before_call")

    def success(self, cb):
        raise RuntimeError("success")

    def failure(self, cb, exc):
        raise RuntimeError("failure")

    def state_change(self, cb, old_state, new_state):
        raise RuntimeError("state_change")


def with_state(world, platform, **keywords):
    state = State(POLICY, clock=world.clock, **keywords)
    return world.stack(platform.network, policy=POLICY, state=state)


@pytest.fixture(params=["layer", "state"])
def listened(request, world, platform):
    """Makes what has these listeners: a layer, or a whole stack by its state."""

    def make(*listeners):
        if request.param == "state":
            return with_state(world, platform, listeners=listeners)
        return world.layer(
            BreakerTransport,
            platform.network,
            policy=POLICY.breaker,
            listeners=listeners,
            platform="test",
        )

    return make


async def test_listeners_hear_every_outcome_and_every_change(world, platform, listened):
    recorder = Recorder()
    breaker = listened(recorder)
    await platform.answers(breaker, 200, 404, 503, world.httpx.ConnectError("refused"))
    assert await platform.refuses(breaker)
    world.clock.advance(60.0)
    await platform.answers(breaker, 200)
    assert recorder.told == [
        *["before_call", "success"] * 2,
        "before_call",
        "failure: FailedAnswerError: 503",
        "before_call",
        "failure: ConnectError: refused",
        "test: closed -> open",
        "test: open -> half-open",
        "before_call",
        "test: half-open -> closed",
        "success",
    ]


async def test_what_tells_nothing_is_not_told_to_listeners(world, platform, listened):
    recorder = Recorder()
    breaker = listened(recorder)
    await platform.answers(breaker, 429, world.httpx.PoolTimeout, KeyError)
    assert recorder.told == []


async def test_listeners_that_raise_change_nothing(world, platform, listened):
    recorder = Recorder()
    breaker = listened(Raiser(), recorder)
    assert not await platform.refuses(breaker)
    platform.answer = 503
    assert (await world.get(breaker)).status_code == 503
    platform.answer = world.httpx.ConnectError("mine")
    with pytest.raises(world.httpx.ConnectError, match="mine"):
        await world.get(breaker)
    assert await platform.refuses(breaker)
    world.clock.advance(60.0)
    assert not await platform.refuses(breaker)
    assert not await platform.refuses(breaker)
    changes = [told for told in recorder.told if "->" in told]
    assert changes == ["test: closed -> open", "test: open -> half-open", "test: half-open -> closed"]


async def test_listeners_that_raise_are_counted(world, platform):
    stack = with_state(world, platform, listeners=[Raiser()])
    assert stack.observer_failures == 0
    await platform.answers(stack, 200, 503)
    assert stack.observer_failures == 4  # told before each attempt's outcome, and the outcome


async def test_observers_that_raise_neither_stop_a_change_nor_reach_the_caller(world, platform):
    def observer(event):
        raise RuntimeError("mine")

    stack = world.stack(platform.network, policy=POLICY, on_event=observer)
    await platform.answers(stack, 503, 503)
    assert await platform.refuses(stack)
    assert stack.observer_failures >= 3
    world.clock.advance(60.0)
    assert not await platform.refuses(stack)
    assert stack.circuits()["test"]["state"] == "closed"


async def test_a_listener_may_look_at_the_breaker_it_is_told_of(world, platform, listened):
    seen = []

    class Curious(pybreaker.CircuitBreakerListener):
        def state_change(self, cb, old_state, new_state):
            seen.append((cb.name, new_state.name, cb.fail_counter))

    breaker = listened(Curious())
    await platform.answers(breaker, 503, 503)
    assert seen == [("test", "open", 2)]


# --- storages ---


async def test_a_storage_of_pybreakers_can_be_plugged_in(world, platform):
    made = []

    def storage(key):
        made.append((key, pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)))
        return made[-1][1]

    stack = with_state(world, platform, storage=storage)
    await platform.answers(stack, 503)
    ((key, memory),) = made
    assert (key, memory.counter, memory.state) == ("test", 1, "closed")
    await platform.answers(stack, 200)
    assert memory.counter == 0  # it counts failures in a row, as pybreaker's always do
    await platform.answers(stack, 503, 503)
    assert memory.state == "open"
    assert await platform.refuses(stack)
    world.clock.advance(60.0)
    assert not await platform.refuses(stack)
    assert memory.state == "closed"


async def test_a_storage_that_says_open_at_the_start_is_believed(world, platform):
    stack = with_state(
        world, platform, storage=lambda key: pybreaker.CircuitMemoryStorage(pybreaker.STATE_OPEN)
    )
    assert stack.circuits() == {} or stack.circuits()["test"]["state"] == "open"
    assert not await platform.refuses(stack)  # whoever opened it, and when: it may be probed
    assert stack.circuits()["test"]["state"] == "closed"


async def test_stacks_that_share_a_storage_open_and_close_together(world, platform):
    shared = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    one = with_state(world, platform, storage=lambda key: shared)
    other = with_state(world, platform, storage=lambda key: shared)
    assert not await platform.refuses(other)
    await platform.answers(one, 503, 503)
    assert await platform.refuses(other)
    world.clock.advance(60.0)
    assert not await platform.refuses(one)
    assert not await platform.refuses(other)
    assert shared.state == "closed"


async def test_the_first_refusal_tells_of_a_circuit_that_a_listener_opened(world, platform):
    class Guard(pybreaker.CircuitBreakerListener):
        def success(self, cb):
            cb.open()

    stack = with_state(world, platform, listeners=[Guard()])
    await platform.answers(stack, 200)
    assert [await platform.refuses(stack), await platform.refuses(stack)] == [True, True]
    changes = [event for event in world.events if isinstance(event, CircuitChanged)]
    assert [(change.old, change.new) for change in changes] == [("closed", "open")]


async def test_what_one_has_isolated_another_may_reset(world, platform):
    shared = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    one = with_state(world, platform, storage=lambda key: shared)
    other = with_state(world, platform, storage=lambda key: shared)
    one.isolate()
    assert await platform.refuses(other)
    other.reset()
    await platform.answers(one, 200, 503, 503)
    assert one.circuits()["test"]["next_probe_in"] == 60.0


async def test_a_late_success_does_not_close_what_another_has_opened(async_world, platform):
    """It began while both were closed, and ends after the other one has opened what they share."""
    world = async_world
    shared = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    one = with_state(world, platform, storage=lambda key: shared)
    other = with_state(world, platform, storage=lambda key: shared)
    platform.answer = Reply(after=5.0)
    async with world.client(other) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, "http://platform.test/")
        await world.until(lambda: platform.sent == 1)
        await platform.answers(one, 503, 503)
    assert world.clock.monotonic() == 5.0
    assert shared.state == "open"


class Contended(pybreaker.CircuitMemoryStorage):
    """After so many looks at its state another process, whose clock is ahead, opens the circuit."""

    looks = 1_000_000

    @property
    def state(self):
        self.looks -= 1
        if self.looks < 0:
            self._state = pybreaker.STATE_OPEN
            self._opened_at = datetime.now(UTC) + timedelta(hours=1)
        return self._state

    @state.setter
    def state(self, state):
        self._state = state


@pytest.mark.parametrize("answer", [200, 503])
@pytest.mark.parametrize("looks", [0, 1, 2])
async def test_a_circuit_that_others_open_at_any_moment_changes_no_outcome(world, platform, answer, looks):
    storage = Contended(pybreaker.STATE_CLOSED)
    stack = with_state(world, platform, storage=lambda key: storage)
    platform.answer = answer
    await world.get(stack)
    storage.looks = looks
    try:
        assert (await world.get(stack)).status_code == answer
    except CircuitOpenError:
        assert platform.sent == 1
    assert stack.circuits()["test"]["state"] == "open"


async def test_an_error_of_the_storage_is_not_hidden(world, platform):
    class Broken(pybreaker.CircuitMemoryStorage):
        def increment_counter(self):
            raise OSError("no storage")

    stack = with_state(world, platform, storage=lambda key: Broken(pybreaker.STATE_CLOSED))
    platform.answer = 503
    with pytest.raises(OSError, match="no storage"):
        await world.get(stack)


# --- nothing is kept ---


async def test_no_error_is_kept_alive_by_a_circuit(world, platform):
    watched = []

    class WatchedError(world.httpx.ConnectError):
        def __init__(self):
            super().__init__("refused")
            watched.append(weakref.ref(self))

    class Dead(world.httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            raise WatchedError

    # Without a client, whose own frames keep errors in cycles of theirs.
    layer = platform.breaker(Dead(), failure_threshold=3)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with contextlib.suppress(WatchedError):
                await layer.handle_async_request(world.httpx.Request("GET", "http://platform.test/"))
        assert [error() for error in watched] == [None] * 3
    finally:
        gc.enable()
    assert await platform.refuses(layer)
