"""Our limits beside those of the caller: each sees its own exception, also when both are over at once."""

from __future__ import annotations

import asyncio

import anyio
import pytest
import trio

from aragora_transport import DeadlineExceededError, Policy, RetryPolicy, TimeoutPolicy, call_options
from aragora_transport.layers import DeadlineTransport, TimeoutTransport
from aragora_transport.testing import Hang, Reply

pytestmark = pytest.mark.anyio

SILENT = Reply(stall=True)


@pytest.fixture
def async_world(every_async_world):
    return every_async_world


@pytest.fixture
def held(async_world):
    """A world whose time stands still until told."""
    async_world.clock = type(async_world.clock)(auto=False)
    return async_world


def attempt_limit(world, network):
    return world.layer(TimeoutTransport, network, policy=TimeoutPolicy(attempt=30.0))


def total_limit(world, network):
    return world.layer(DeadlineTransport, network, policy=TimeoutPolicy(total=30.0))


def whole_stack(world, network):
    return world.stack(network, policy=Policy(timeout=TimeoutPolicy(attempt=30.0, total=30.0)))


def body_limit(world, network):
    return world.layer(TimeoutTransport, network, policy=TimeoutPolicy(body_idle=30.0))


LIMITS = [
    pytest.param(attempt_limit, Hang(), id="attempt"),
    pytest.param(total_limit, Hang(), id="total"),
    pytest.param(whole_stack, Hang(), id="stack"),
    pytest.param(body_limit, SILENT, id="body"),
]


class AnyioScope:
    """A scope of anyio around a call; `end` says that its time is over."""

    def __init__(self):
        self.scope = anyio.CancelScope()

    def end(self):
        self.scope.cancel()

    async def around(self, call):
        with self.scope:
            await call()
        return "scope" if self.scope.cancelled_caught else "nothing"


class NativeScope:
    """asyncio.timeout or trio.fail_after, whichever the world has."""

    def __init__(self, world):
        self.trio = world.kind == "trio"
        self.scope = trio.CancelScope() if self.trio else asyncio.timeout(None)

    def end(self):
        if self.trio:
            self.scope.cancel()
        else:
            self.scope.reschedule(asyncio.get_running_loop().time())

    async def around(self, call):
        if self.trio:
            with self.scope:
                await call()
            return "scope" if self.scope.cancelled_caught else "nothing"
        try:
            async with self.scope:
                await call()
        except TimeoutError:
            return "scope"
        return "nothing"


def scope_of(world, kind):
    return NativeScope(world) if kind == "native" else AnyioScope()


async def what_ends(world, transport, network, scope, *endings):
    """What a call under a scope ends in, when `endings` happen in one go after it was sent."""
    seen = []

    async def watched():
        try:
            seen.append(await scope.around(lambda: world.get(transport)))
        except DeadlineExceededError:
            seen.append("ours")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watched)
        await world.until(lambda: network.sent)
        for _ in range(20):  # so far that a body is waited for
            await anyio.lowlevel.checkpoint()
        assert seen == []
        for end in endings:
            end()
    assert network.open_responses == 0
    return seen


@pytest.mark.parametrize(("limit", "step"), LIMITS)
@pytest.mark.parametrize("kind", ["native", "anyio"])
async def test_the_callers_limit_is_the_callers(held, kind, limit, step):
    network = held.heedless(step)
    scope = scope_of(held, kind)
    assert await what_ends(held, limit(held, network), network, scope, scope.end) == ["scope"]


@pytest.mark.parametrize(("limit", "step"), LIMITS)
@pytest.mark.parametrize("kind", ["native", "anyio"])
async def test_our_limit_is_ours(held, kind, limit, step):
    network = held.heedless(step)
    scope = scope_of(held, kind)
    ours = lambda: held.clock.advance(31.0)  # noqa: E731  # beside scope.end
    assert await what_ends(held, limit(held, network), network, scope, ours) == ["ours"]


@pytest.mark.parametrize(("limit", "step"), LIMITS)
@pytest.mark.parametrize("kind", ["native", "anyio"])
@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_when_both_are_over_at_once_the_callers_goes_first(held, first, kind, limit, step):
    network = held.heedless(step)
    scope = scope_of(held, kind)
    endings = [lambda: held.clock.advance(31.0), scope.end]
    if first == "theirs":
        endings.reverse()
    assert await what_ends(held, limit(held, network), network, scope, *endings) == ["scope"]


async def test_a_task_goes_on_after_our_limit_as_if_it_had_never_been_cancelled(held):
    network = held.heedless(Hang())
    layer = attempt_limit(held, network)
    requests = []

    async def calls():
        for _ in range(3):
            with pytest.raises(DeadlineExceededError):
                await held.get(layer)
            await anyio.lowlevel.checkpoint()
            requests.append(0 if held.kind == "trio" else asyncio.current_task().cancelling())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(calls)
        for count in (1, 2, 3):
            await held.until(lambda: len(network.sent) == count)  # noqa: B023  # awaited within the turn
            held.clock.advance(31.0)
    assert requests == [0, 0, 0]


async def test_an_answer_that_is_there_when_the_limit_rings_disturbs_nobody_later(held):
    class Network:
        flavor = held.scripted(200).flavor
        sent = anyio.Event()
        answers = anyio.Event()

        async def handle_async_request(self, request):
            self.sent.set()
            await self.answers.wait()
            return self.flavor.module.Response(200, content=b"good")

    network = Network()
    rest = anyio.Event()
    went_on = []

    async def call():
        try:
            await held.get(attempt_limit(held, network))
        except DeadlineExceededError:
            pass  # as good
        await rest.wait()
        went_on.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await network.sent.wait()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        held.clock.advance(31.0)
        network.answers.set()
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        rest.set()
    assert went_on == [True]


async def test_limits_of_many_tasks_end_each_its_own(held):
    network = held.heedless(Hang())
    ended = {}

    layer = attempt_limit(held, network)

    async def call(seconds):
        with pytest.raises(DeadlineExceededError):
            await held.get(layer, extensions=call_options(attempt_timeout=seconds))
        ended[seconds] = held.clock.monotonic()

    async with anyio.create_task_group() as tasks:
        for seconds in (5.0, 1.0, 3.0, 2.0, 4.0):
            tasks.start_soon(call, seconds)
        await held.until(lambda: len(network.sent) == 5)
        for passed in range(1, 6):
            held.clock.advance(1.0)
            await held.until(lambda: len(ended) == passed)  # noqa: B023  # awaited within the turn
    assert list(ended) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert list(ended.values()) == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_the_callers_limit_ends_a_retrying_call_between_its_attempts(held):
    network = held.scripted(503)
    stack = held.stack(network, policy=Policy(retry=RetryPolicy(base_delay=10.0), breaker=None))
    scope = scope_of(held, "native")
    assert await what_ends(held, stack, network, scope, scope.end) == ["scope"]
    assert len(network.sent) == 1
