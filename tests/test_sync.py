from __future__ import annotations

import asyncio
import gc
import threading

import anyio
import httpx
import httpx2
import pytest
from prometheus_client import CollectorRegistry

from aragora_transport import BreakerPolicy, Policy, RetryPolicy, resilient, resilient_sync, wrap_client
from aragora_transport._drive import drive
from aragora_transport.layers import BreakerTransport, DeadlineTransport, RetryTransport, TimeoutTransport
from aragora_transport.sync import Driven, Driver
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport

URL = "http://platform.test/"
AT_ONCE = Policy(retry=RetryPolicy(base_delay=0.0, budget=None), breaker=None)
IDS = ("httpx", "httpx2")


@pytest.fixture(params=IDS)
def name(request):
    return request.param


class Suspending(httpx.AsyncBaseTransport):
    """A layer of a user's that waits as async code does."""

    def __init__(self, below, wait):
        self.below = below
        self.wait = wait

    async def handle_async_request(self, request):
        await self.pause()
        return await self.below.handle_async_request(request)

    async def pause(self):
        await self.wait()


class Awaitable:
    def __await__(self):
        yield "suspended"


async def an_awaitable():
    await Awaitable()


def test_a_layer_that_suspends_is_an_error_at_once_that_says_where():
    network = ScriptedTransport(200)
    circuits = BreakerTransport(Suspending(Driven(network), an_awaitable))
    with httpx.Client(transport=Driver(circuits)) as client:
        with pytest.raises(
            RuntimeError, match=r"^an_awaitable awaits something that needs an event loop"
        ) as caught:
            client.get(URL)
        assert "clock.sleep(..., blocking=True)" in str(caught.value)
        assert "httpx.AsyncClient" in str(caught.value)
    assert network.sent == []


def test_what_a_layer_cleans_up_when_it_is_ended_is_cleaned_up():
    seen = []

    async def wait():
        try:
            await Awaitable()
        finally:
            seen.append("cleaned up")

    client = httpx.Client(transport=Driver(Suspending(Driven(ScriptedTransport(200)), wait)))
    with client, pytest.raises(RuntimeError, match=r"^test_what_.*wait awaits something"):
        client.get(URL)
    gc.collect()  # a coroutine that was left half way would warn here
    assert seen == ["cleaned up"]


@pytest.mark.parametrize("library", ["asyncio", "anyio"])
def test_a_sleep_of_an_async_library_is_an_error_too(library):
    wait = {"asyncio": lambda: asyncio.sleep(60), "anyio": lambda: anyio.sleep(60)}[library]
    client = httpx.Client(transport=Driver(Suspending(Driven(ScriptedTransport(200)), wait)))
    with client, pytest.raises(Exception, match=r"event loop|async library"):
        client.get(URL)


def test_a_layer_that_suspends_inside_a_running_loop_is_the_same_error():
    async def main():
        transport = Driver(Suspending(Driven(ScriptedTransport(200)), lambda: asyncio.sleep(60)))
        with httpx.Client(transport=transport) as client, pytest.raises(RuntimeError, match="sleep awaits"):
            client.get(URL)  # noqa: ASYNC212  # that it blocks is what is tested
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_probe_that_a_suspending_layer_lost_is_given_back():
    clock = ManualClock()
    waits = [an_awaitable]

    async def wait():
        if waits:
            await waits.pop()()

    network = ScriptedTransport(503, 200, clock=clock)
    policy = BreakerPolicy(failure_threshold=1, cooldown=5.0)
    suspending = Suspending(Driven(network), wait)
    with httpx.Client(transport=Driver(BreakerTransport(suspending, policy=policy, clock=clock))) as client:
        waits.clear()
        client.get(URL)
        clock.advance(5.0)
        waits.append(an_awaitable)
        with pytest.raises(RuntimeError, match="an_awaitable"):
            client.get(URL)
        assert client.get(URL).status_code == 200


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_blocking_stack_works_inside_a_running_event_loop(name, backend):
    clock = ManualClock()
    network = ScriptedTransport(
        503, Reply(status=429, headers={"retry-after": "5"}), 200, clock=clock, flavor=name
    )
    module = network.flavor.module

    async def main():
        stack = resilient_sync("test", network, clock=clock, registry=CollectorRegistry())
        with module.Client(transport=stack) as client:
            return client.post(URL, content=b"x")

    answer = anyio.run(main, backend=backend)
    assert (answer.status_code, len(network.sent)) == (200, 3)
    assert clock.monotonic() >= 6.0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_with_the_systems_clock_too(backend):
    network = ScriptedTransport(503, Reply(body=(b"a", b"b")))

    async def main():
        with httpx.Client(
            transport=resilient_sync("test", network, policy=AT_ONCE, registry=CollectorRegistry())
        ) as client:
            return client.get(URL)  # noqa: ASYNC212  # as above

    assert anyio.run(main, backend=backend).content == b"ab"


def test_threads_are_in_the_network_side_by_side(name):
    together = threading.Barrier(8, timeout=30)

    def meet(request):
        together.wait()
        return 200

    network = ScriptedTransport(meet, flavor=name)
    module = network.flavor.module
    stack = resilient_sync("test", network, registry=CollectorRegistry())
    statuses = []

    def work():
        with module.Client(transport=stack) as client:
            statuses.extend(client.get(URL).status_code for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40


def test_a_thread_that_waits_holds_no_other_thread_up():
    waiting = threading.Event()

    def limited(request):
        if request.url.path == "/slow":
            return Reply(status=503, headers={"retry-after": "50"})
        return 200

    clock = ManualClock(auto=False)
    stack = resilient_sync(
        "test",
        ScriptedTransport(limited, clock=clock),
        clock=clock,
        registry=CollectorRegistry(),
        on_event=lambda event: waiting.set() if hasattr(event, "told") else None,
    )
    statuses = []
    with httpx.Client(transport=stack, timeout=None) as client:  # noqa: S113  # virtual time
        thread = threading.Thread(target=lambda: statuses.append(client.get(f"{URL}slow").status_code))
        thread.start()
        assert waiting.wait(30)
        assert client.get(URL).status_code == 200
        while thread.is_alive():
            clock.advance(10.0)
            thread.join(0.001)
    assert statuses == [503]


def test_layers_by_hand_under_a_blocking_client(name):
    clock = ManualClock()
    network = ScriptedTransport(503, 200, clock=clock, flavor=name)
    layers = RetryTransport(TimeoutTransport(Driven(network), clock=clock), clock=clock, platform="by-hand")
    with network.flavor.module.Client(transport=Driver(layers)) as client:
        answer = client.get(URL)
    assert (answer.status_code, answer.extensions["aragora_transport"].platform) == (200, "by-hand")
    assert network.open_responses == 0


def test_a_wrapped_client_that_blocks_is_driven(name):
    network = ScriptedTransport(503, 200, flavor=name)
    with network.flavor.module.Client(transport=network) as client:
        wrap_client(client, "test", policy=AT_ONCE, registry=CollectorRegistry())
        assert client.get(URL).status_code == 200


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: Driven(httpx.AsyncHTTPTransport()),
            r"is no blocking transport; it is an async one: use resilient\(\)",
        ),
        (lambda: Driven(None), "None is no blocking transport$"),
        (lambda: Driver(httpx.HTTPTransport()), "it drives async layers: wrap it in Driven first"),
        (lambda: Driver(None), r"Driver\(None\): it drives async layers$"),
        (
            lambda: Driver(DeadlineTransport(RetryTransport(httpx.AsyncHTTPTransport()))),
            r"the innermost transport is async, .*; put a blocking one there",
        ),
        (
            lambda: Driver(RetryTransport(httpx2.AsyncHTTPTransport())),
            r"the innermost transport is async, .*; put a blocking one there",
        ),
    ],
    ids=[
        "driven async",
        "driven nothing",
        "driver blocking",
        "driver nothing",
        "driver async",
        "driver async httpx2",
    ],
)
def test_what_cannot_be_driven_is_refused_when_it_is_made(make, says):
    with pytest.raises(TypeError, match=says):
        make()


def test_a_transport_that_holds_itself_can_be_driven():
    loop = Suspending(None, None)
    loop.below = loop
    assert Driver(loop).top.top is loop


def test_a_coroutine_that_does_not_suspend_is_driven_to_its_end():
    async def two():
        return 2

    async def four():
        return await two() + await two()

    assert drive(four()) == 4

    async def fail():
        raise KeyError("as it is")

    with pytest.raises(KeyError, match="as it is"):
        drive(fail())


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_a_stack_under_a_client_of_the_other_kind_says_which_one_it_is_for(name):
    module = pytest.importorskip(name)
    stack = resilient("x", flavor=name)
    for_blocking = "Stack is for an AsyncClient; for a blocking Client make the stack by resilient_sync"
    with pytest.raises(AttributeError, match=for_blocking):
        module.Client(transport=stack).get("http://platform.test/")
    with pytest.raises(AttributeError, match=for_blocking), module.Client(transport=stack):
        pass
    assert not hasattr(stack, "handle_request")


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
async def test_a_blocking_stack_under_an_async_client_says_so_too(name):
    module = pytest.importorskip(name)
    stack = resilient_sync("x", flavor=name)
    for_async = "BlockingStack is for a blocking Client; for an AsyncClient make the stack by resilient"
    with pytest.raises(AttributeError, match=for_async):
        await module.AsyncClient(transport=stack).get("http://platform.test/")
    with pytest.raises(AttributeError, match=for_async):
        async with module.AsyncClient(transport=stack):
            pass
    assert not hasattr(stack, "handle_async_request")
    stack.close()
