"""The clock that tests own stands still for calls that it cannot see into: a socket looks idle as well."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import httpx
import pytest

from aragora_transport import TimeoutPolicy, call_options
from aragora_transport.layers import RetryTransport, TimeoutTransport
from aragora_transport.testing import ManualClock, ScriptedTransport

pytestmark = pytest.mark.anyio
URL = "http://platform.test/"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def clock():
    return ManualClock()


async def get(transport, url=URL, extensions=None):
    async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(None), trust_env=False) as client:
        return await client.get(url, extensions=extensions)


async def until(condition):
    """Let the other tasks run until it holds."""
    while not condition():
        await anyio.lowlevel.checkpoint()


async def rounds(number):
    """Let the event loop go round so often: time for a clock that would move to do so."""
    for _ in range(number):
        await anyio.lowlevel.checkpoint()


class Held(httpx.AsyncBaseTransport):
    """A transport whose answers come when the test says so: the clock cannot know that it waits."""

    def __init__(self):
        self.entered = 0
        self.go = anyio.Event()

    async def handle_async_request(self, request):
        self.entered += 1
        await self.go.wait()
        return httpx.Response(200)


@pytest.mark.parametrize("options", [{}, call_options(operation="search")], ids=["as usual", "with options"])
async def test_a_call_inside_a_real_transport_holds_time_still(clock, options):
    held = Held()
    network = ScriptedTransport(503, 200, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, RetryTransport(held, clock=clock), URL, options)
        await until(lambda: held.entered == 1)
        tasks.start_soon(get, RetryTransport(network, clock=clock))
        await until(lambda: len(network.sent) == 1)
        await rounds(200)
        assert clock.monotonic() == 0.0
        held.go.set()
    assert network.sent[1].at >= 1.0


async def test_a_call_that_begins_while_time_is_about_to_move_holds_it_and_lets_it_go_again(clock):
    held = Held()
    network = ScriptedTransport(503, 200, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, RetryTransport(network, clock=clock))
        await until(lambda: len(network.sent) == 1)
        await rounds(3)  # the first call has parked, and the clock is looking round
        tasks.start_soon(get, RetryTransport(held, clock=clock))
        await until(lambda: held.entered == 1)
        await rounds(200)
        assert clock.monotonic() == 0.0
        held.go.set()
    assert network.sent[1].at >= 1.0


async def test_a_socket_on_loopback_holds_time_still(clock):
    """One call waits for a server's bytes, which nobody here can see coming, another in its backoff."""
    network = ScriptedTransport(503, 200, clock=clock)
    accepted = anyio.Event()
    answer = anyio.Event()

    async def serve(stream):
        async with stream:
            await stream.receive()
            accepted.set()
            await answer.wait()
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/"  # noqa: S610  # no Django
    real = httpx.AsyncHTTPTransport()
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        async with anyio.create_task_group() as calls:
            calls.start_soon(get, RetryTransport(real, clock=clock), url)
            await accepted.wait()
            calls.start_soon(get, RetryTransport(network, clock=clock))
            await until(lambda: len(network.sent) == 1)
            await rounds(200)
            assert clock.monotonic() == 0.0
            answer.set()
        tasks.cancel_scope.cancel()
    assert network.sent[1].at >= 1.0


@pytest.mark.parametrize("limit", [None, 30.0])
async def test_a_body_that_comes_from_a_real_transport_holds_time_still(clock, limit):
    go = anyio.Event()
    reading = anyio.Event()

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self):
            reading.set()
            await go.wait()
            yield b"ok"

    streaming = httpx.MockTransport(lambda request: httpx.Response(200, stream=Body()))
    network = ScriptedTransport(503, 200, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, TimeoutTransport(streaming, policy=TimeoutPolicy(body_idle=limit), clock=clock))
        await reading.wait()
        tasks.start_soon(get, RetryTransport(network, clock=clock))
        await until(lambda: len(network.sent) == 1)
        await rounds(200)
        assert clock.monotonic() == 0.0
        go.set()
    assert network.sent[1].at >= 1.0


async def test_a_sleep_of_the_tests_own_does_not_stand_for_a_call_that_is_not_parked(clock):
    held = Held()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, RetryTransport(held, clock=clock))
        await until(lambda: held.entered == 1)
        tasks.start_soon(clock.sleep, 5.0)
        await rounds(200)
        assert clock.monotonic() == 0.0
        held.go.set()
    assert clock.monotonic() == 5.0


async def test_a_call_made_within_a_call_parks_for_both(clock):
    """As when a token is fetched in the middle of a call, through layers with the same clock."""
    network = ScriptedTransport(503, 200, clock=clock)
    inner = RetryTransport(network, clock=clock)

    async def with_a_token(request):
        return httpx.Response((await get(inner)).status_code)

    with anyio.fail_after(10):
        answer = await get(RetryTransport(httpx.MockTransport(with_a_token), clock=clock))
    assert answer.status_code == 200
    assert network.sent[1].at >= 1.0
