"""One transport in several clients, event loops and threads; and nothing of it left when it is dropped."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import httpx
import pytest
import trio

from aragora_transport import BreakerPolicy, CircuitOpenError, RetryPolicy, TimeoutPolicy, resilient_sync
from aragora_transport.events import RetryScheduled
from aragora_transport.testing import Answer, FaultServer, stalled_headers

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

FINE = Answer(body=b"fine")


@pytest.fixture
def server():
    """A 503 on the first request of each path, then success."""
    seen = set()

    def flaky(request):
        if request.path in seen:
            return FINE
        seen.add(request.path)
        return 503

    with FaultServer(flaky) as server:
        yield server


async def test_one_transport_serves_several_clients(sockets, server):
    async with sockets.caller(sockets.network(connections=10)) as caller:
        clients = [caller.client, *(sockets.world.client(caller.stack) for _ in range(2))]
        for number, client in enumerate(clients):
            answer = client.get(f"{server.url}/{number}")
            answer = answer if sockets.blocking else await answer
            assert answer.content == b"fine"
        assert caller.taken == []


async def test_calls_of_several_clients_may_run_at_once(async_sockets, server):
    async with async_sockets.caller(async_sockets.network(connections=10)) as caller:
        clients = [caller.client, async_sockets.world.client(caller.stack)]
        contents = []

        async def call(client, path):
            contents.append((await client.get(f"{server.url}/{path}")).content)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(call, clients[number % 2], number)
        assert contents == [b"fine"] * 20
        assert caller.taken == []


# --- several event loops; httpx's own transports belong to one, so there is one for each ---


class PerLoop:
    """A network transport for each event loop, as a user with several would have beneath one stack."""

    def __init__(self, sockets):
        self.sockets = sockets
        self.networks = {}
        self.lock = threading.Lock()

    def network(self):
        token = anyio.lowlevel.current_token()
        with self.lock:
            if token not in self.networks:
                self.networks[token] = self.sockets.network(connections=10)
            return self.networks[token]

    async def handle_async_request(self, request):
        return await self.network().handle_async_request(request)

    async def aclose(self):
        await self.network().aclose()


def per_loop(sockets):
    return type("PerLoop", (PerLoop, sockets.httpx.AsyncBaseTransport), {})(sockets)


def test_one_transport_lives_through_several_event_loops_one_after_another(async_sockets, server):
    stack = async_sockets.stack(async_sockets.network())

    async def call(path):
        async with async_sockets.world.client(stack, timeout=10) as client:
            return (await client.get(f"{server.url}/{path}")).content

    for number in range(4):
        assert anyio.run(call, number, backend=async_sockets.world.backend) == b"fine"


BACKENDS = ("asyncio", "trio", "asyncio", "trio")


@pytest.mark.parametrize("async_world", ["asyncio-httpx", "asyncio-httpx2"], indirect=True)
def test_one_transport_serves_several_event_loops_at_once(async_sockets, tools, server):
    """asyncio and trio side by side in threads, with every timer, wait and lock in use."""
    policy = tools.quick(timeout=TimeoutPolicy(attempt=5.0, total=10.0))
    stack = async_sockets.stack(per_loop(async_sockets), policy=policy)
    start = threading.Barrier(len(BACKENDS))

    async def calls(loop):
        contents = []

        async def call(path):
            contents.append((await client.get(f"{server.url}/{path}")).content)

        start.wait(10)
        async with async_sockets.world.client(stack) as client, anyio.create_task_group() as tasks:
            for number in range(25):
                tasks.start_soon(call, f"{loop}/{number}")
        return contents

    with ThreadPoolExecutor(len(BACKENDS)) as pool:
        running = [
            pool.submit(anyio.run, calls, loop, backend=backend) for loop, backend in enumerate(BACKENDS)
        ]
        for one in running:
            assert one.result(30) == [b"fine"] * 25
    assert len(server.requests) == 2 * 25 * len(BACKENDS)
    labels = {"platform": "test", "operation": "GET"}
    retries = async_sockets.registry.get_sample_value("platform_retry_total", labels)
    assert retries == 25 * len(BACKENDS)


@pytest.mark.parametrize("async_world", ["asyncio-httpx", "asyncio-httpx2"], indirect=True)
def test_a_circuit_that_opens_in_one_loop_ends_the_waits_in_all_others(async_sockets, tools):
    policy = tools.quick(
        retry=RetryPolicy(base_delay=50.0, max_delay=50.0), breaker=BreakerPolicy(failure_threshold=100)
    )
    events = []
    stack = async_sockets.stack(per_loop(async_sockets), policy=policy, on_event=events.append)
    waiting = threading.Barrier(len(BACKENDS) + 1)

    async def call():
        async with async_sockets.world.client(stack) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(ready)
            answer = await client.get(server.url)
            with pytest.raises(CircuitOpenError):
                await client.get(server.url)
        return answer.status_code

    async def ready():
        with anyio.fail_after(10):
            while len([one for one in events if isinstance(one, RetryScheduled)]) < len(BACKENDS):  # noqa: ASYNC110  # what it waits for comes from other threads
                await anyio.sleep(0.001)
        await anyio.to_thread.run_sync(waiting.wait, 10)

    with FaultServer(503) as server, ThreadPoolExecutor(len(BACKENDS)) as pool:
        running = [pool.submit(anyio.run, call, backend=backend) for backend in BACKENDS]
        waiting.wait(10)
        stack.isolate()
        assert [one.result(10) for one in running] == [503] * len(BACKENDS)
        assert len(server.requests) == len(BACKENDS)


def test_blocking_clients_share_one_transport_between_threads(tools, server):
    network = httpx.HTTPTransport(trust_env=False, verify=False)
    stack = resilient_sync("test", network, policy=tools.quick())
    with httpx.Client(transport=stack, trust_env=False) as client, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda number: client.get(f"{server.url}/{number}"), range(100))
        assert {answer.content for answer in answers} == {b"fine"}
    assert len(server.requests) == 200


# --- nothing is left ---


async def use(caller, server):
    """A call with a retry, a body that is read, one that is closed early, and one that times out."""
    assert (await caller.get(f"{server.url}/x")).content == b"fine"
    response = await caller.open("GET", f"{server.url}/x")
    await caller.close(response)
    with pytest.raises(caller.world.httpx.TimeoutException):
        await caller.get(f"{server.url}/stalled", timeout=caller.world.httpx.Timeout(10, read=0.02))


async def test_no_task_is_left_behind(async_sockets, tools):
    def step(request):
        return stalled_headers() if request.path == "/stalled" else FINE

    def tasks():
        if async_sockets.world.kind == "trio":
            return trio.lowlevel.current_statistics().tasks_living
        return len(asyncio.all_tasks())

    with FaultServer(503, step) as server:
        before = tasks()
        policy = tools.quick(timeout=TimeoutPolicy(attempt=5.0, total=60.0))
        async with async_sockets.caller(policy=policy) as caller:
            await use(caller, server)
            assert tasks() == before
        assert tasks() == before


async def test_a_stack_that_is_dropped_is_collected(sockets, tools):
    """In the middle of its event loop, with timers that have yet to come due, and circuits that are open."""

    def step(request):
        return stalled_headers() if request.path == "/stalled" else FINE

    policy = tools.quick(timeout=TimeoutPolicy(attempt=5.0, total=60.0))
    with FaultServer(503, step) as server:
        async with sockets.caller(policy=policy) as caller:
            await use(caller, server)
            caller.stack.isolate()
            with pytest.raises(CircuitOpenError):
                await caller.get(server.url)
            kept = [weakref.ref(one) for one in (caller.stack, caller.stack.state, caller.network)]
    del caller
    sockets.events.clear()
    gc.collect()
    assert [one() for one in kept] == [None, None, None]
