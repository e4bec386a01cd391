"""With the garbage collector off nothing of a call outlives it: no answer, request or exception."""

from __future__ import annotations

import gc
import weakref

import anyio.lowlevel
import pytest

from aragora_transport import BreakerPolicy, Policy, RetryPolicy, TimeoutPolicy
from aragora_transport.events import RetryScheduled
from aragora_transport.testing import Hang, Reply

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(every_world):
    return every_world


@pytest.fixture
def async_world(every_async_world):
    return every_async_world


class Seen:
    """Weak references to all that passes a network."""

    def __init__(self, below):
        self.below = below
        self.flavor = below.flavor
        self.seen = []

    def note(self, thing):
        self.seen.append(weakref.ref(thing))
        return thing

    @property
    def alive(self):
        return [thing() for thing in self.seen if thing() is not None]

    async def handle_async_request(self, request):
        self.note(request)
        try:
            return self.note(await self.below.handle_async_request(request))
        except Exception as error:
            self.note(error)
            raise

    def handle_request(self, request):
        self.note(request)
        try:
            return self.note(self.below.handle_request(request))
        except Exception as error:
            self.note(error)
            raise


@pytest.fixture
def no_collector():
    """Whatever is still there at the end was kept by a reference, or by a cycle."""
    gc.disable()
    yield
    gc.enable()


def stalled(status):
    return Reply(status=status, body=b"x", stall=True)


CALLS = {
    "a success": ([Reply(body=b"good")], "GET", None),
    "an answer that is final": ([404], "GET", None),
    "retried, then a success": ([503, 502, 200], "GET", None),
    "retried until exhausted": ([Reply(status=503, body=b"down")], "GET", None),
    "errors, then a success": (["ConnectError", "ReadError", 200], "GET", None),
    "errors until exhausted": (["ReadError", "ConnectError", "ReadTimeout"], "GET", None),
    "an answer, then an error": ([503, "ReadError"], "GET", None),
    "an error that is not retried": (["LocalProtocolError"], "GET", None),
    "no answer in time": ([Hang()], "GET", None),
    "no answer in time at first": ([Hang(), Hang(), 200], "GET", None),
    "a body that stalls": ([stalled(200)], "GET", None),
    "a body that dies": ([Reply(body=b"x", then="ReadError")], "GET", None),
    "a failed answer that stalls": ([stalled(503), stalled(503), 200], "GET", None),
    "a failed answer that dies": ([Reply(status=503, body=b"x", then="ReadError"), 200], "GET", None),
    "an answer whose retry is refused": ([Reply(status=503, body=b"x")], "REFUSED", None),
    "an answer that dies and whose retry is refused": (
        [Reply(status=503, body=b"x", then="ReadError")],
        "REFUSED",
        None,
    ),
    "an error whose retry is refused": (["ReadError"], "REFUSED", None),
    "a post": ([503, 200], "POST", b"x"),
    "a post that may have arrived": (["ReadError"], "POST", b"x"),
    "a post that was never sent": (["ConnectError", 200], "POST", b"x"),
    "a body that is read once": ([503], "PUT", "generator"),
}


def script(world, steps):
    """The steps for a scripted network; errors by their classes: one that it held would outlive the call."""

    def step(value):
        if isinstance(value, Reply) and value.then is not None:
            return Reply(status=value.status, body=value.body, then=getattr(world.httpx, value.then))
        return getattr(world.httpx, value) if isinstance(value, str) else value

    return [step(value) for value in steps]


def generator(world):
    async def async_chunks():
        yield b"x"

    return iter((b"x",)) if world.blocking else async_chunks()


async def settle():
    """Tasks and loops drop what they held of the step before."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def read(world, transport, request):
    """Send it and read the answer, without a client: httpx's own answers refer to themselves."""
    if world.blocking:
        answer = transport.handle_request(request)
        try:
            for _ in answer.stream:
                pass
        finally:
            answer.close()
        return answer
    answer = await transport.handle_async_request(request)
    try:
        async for _ in answer.stream:
            pass
    finally:
        await answer.aclose()
    return answer


async def call(world, transport, seen, method, content, *, seconds=None):
    """One call, of which nothing is left but what it says."""
    content = generator(world) if content == "generator" else content
    timeouts = {"timeout": world.httpx.Timeout(seconds).as_dict()}
    request = world.httpx.Request(method, "http://platform.test/", content=content, extensions=timeouts)
    try:
        answer = seen.note(await read(world, transport, request))
    except Exception as error:  # noqa: BLE001  # what it is, is no question here
        seen.note(error)
        return None
    return answer.extensions["aragora_transport"]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("limits", ["attempt", "total", "usual"])
async def test_nothing_of_a_call_outlives_it_but_its_record(world, no_collector, name, limits):
    steps, method, content = CALLS[name]
    refused = method == "REFUSED"

    def refuse(event):
        if refused and isinstance(event, RetryScheduled):
            transport.isolate()

    if limits == "usual":  # the second of two requests with the same timeouts
        steps = [200, *steps]
    network = world.heedless(*script(world, steps))
    seen = Seen(network)
    policy = Policy(
        timeout=TimeoutPolicy(attempt=7.0, body_idle=7.0, total=500.0 if limits == "total" else None),
        # A retry that does not wait meets its open circuit below, as an error.
        retry=RetryPolicy(budget=None, base_delay=0.0 if refused else 1.0),
        breaker=BreakerPolicy(failure_threshold=100),
    )
    transport = world.stack(seen, policy=policy, on_event=[world.events.append, refuse])
    seconds = 5.0 if limits == "usual" else None
    if limits == "usual":
        await call(world, transport, seen, "GET", None, seconds=seconds)
    record = await call(world, transport, seen, "GET" if refused else method, content, seconds=seconds)
    network.sent.clear()  # what a scripted network remembers for its test
    await settle()
    assert len(seen.seen) > 1
    assert seen.alive == []
    assert record is None or record.attempts
    assert world.events


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([Hang()], id="in the first attempt"),
        pytest.param([503], id="in the wait"),
        pytest.param([stalled(503)], id="while it is drained"),
        pytest.param([Reply(status=429, headers={"retry-after": "9"})], id="at the gate"),
        pytest.param([Reply(status=503, headers={"retry-after": "0"}), Hang()], id="in the second attempt"),
        pytest.param([stalled(200)], id="in the body"),
    ],
)
async def test_nothing_of_a_cancelled_call_outlives_it(async_world, no_collector, steps):
    world = async_world
    world.clock = type(world.clock)(auto=False)
    network = world.heedless(*steps)
    seen = Seen(network)
    transport = world.stack(seen)

    async def far_enough():
        await world.until(lambda: network.sent)
        for _ in range(50):  # as far as it gets by itself
            await anyio.lowlevel.checkpoint()
        world.clock.advance(0.5)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert len(network.sent) == len(steps)

    await world.cancelled(far_enough, call, world, transport, seen, "GET", None)
    network.sent.clear()
    await settle()
    assert len(seen.seen) >= len(steps)
    assert seen.alive == []
