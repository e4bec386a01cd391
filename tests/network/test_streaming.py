"""Streams: in time, readable by whoever wants to, and let go of when they are abandoned."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from aragora_transport import DeadlineExceededError, call_options
from aragora_transport.testing import Answer, FaultServer, stalled_body, truncated_body

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]


async def lines(caller, response):
    if caller.world.blocking:
        for line in response.iter_lines():
            yield line
    else:
        async for line in response.aiter_lines():
            yield line


async def test_a_chunked_answer_comes_as_it_was_sent(sockets):
    with FaultServer(Answer(body=(b"one ", b"two ", b"three"))) as server:
        async with sockets.caller() as caller:
            response = await caller.open("GET", server.url)
            content = b"".join([chunk async for chunk in caller.chunks(response)])
            assert content == b"one two three"
            assert response.num_bytes_downloaded == len(content)
            assert caller.taken == []


async def test_each_event_is_seen_before_the_next_one_is_sent(sockets, tools):
    seen = [threading.Event() for _ in range(3)]

    def converse(connection):
        tools.head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number, event in enumerate(seen):
            connection.sendall(b"data: %d\n\n" % number)
            tools.happens(event)

    with tools.serving(converse) as url:
        async with sockets.caller() as caller:
            response = await caller.open("GET", url)
            async for line in lines(caller, response):
                if line:
                    seen[int(line.removeprefix("data: "))].set()
            assert all(event.is_set() for event in seen)
            assert caller.taken == []


async def test_a_stream_that_is_abandoned_early_is_let_go_and_counts_as_nothing(sockets):
    endless = Answer(body=(b"x" * 1000,) * 1000, interval=0.001)
    with FaultServer(endless, then=Answer(body=b"fine")) as server:
        async with sockets.caller() as caller:
            response = await caller.open("GET", server.url)
            async with contextlib.aclosing(caller.chunks(response)) as chunks:
                assert await anext(chunks)
            await caller.close(response)
            assert caller.taken == []
            assert caller.stack.circuits()["test"]["failures"] == 0
            assert (await caller.get(server.url)).content == b"fine"
    sample = sockets.registry.get_sample_value
    counted = {"platform": "test", "operation": "GET", "status": "200"}
    assert sample("platform_requests_total", counted) == 2
    assert sample("platform_attempts_total", counted) == 2


async def test_an_answer_that_is_closed_unread_is_let_go(sockets):
    with FaultServer(Answer(body=b"x" * 300_000), then=Answer(body=b"fine")) as server:
        async with sockets.caller() as caller:
            response = await caller.open("GET", server.url)
            await caller.close(response)
            assert caller.taken == []
            assert (await caller.get(server.url)).content == b"fine"


# --- a body that is read elsewhere than where it was asked for ---


@contextlib.asynccontextmanager
async def elsewhere(sockets):
    """Runs a coroutine function in another task, or another thread, to its result or its error."""
    if sockets.blocking:
        with ThreadPoolExecutor(1) as pool:

            async def run(function):
                return pool.submit(lambda: anyio.run(function)).result(10)

            yield run
    else:
        async with anyio.create_task_group() as tasks:

            async def run(function):
                result = []
                done = anyio.Event()

                async def outcome():
                    try:
                        result.append((await function(), None))
                    except Exception as error:  # noqa: BLE001  # raised again below
                        result.append((None, error))
                    done.set()

                tasks.start_soon(outcome)
                with anyio.fail_after(10):
                    await done.wait()
                value, error = result[0]
                if error is not None:
                    raise error
                return value

            yield run


async def test_a_body_can_be_read_by_another_task_or_thread(sockets):
    with FaultServer(503, Answer(body=(b"one ", b"two"))) as server:
        async with sockets.caller() as caller, elsewhere(sockets) as run:
            response = await caller.open("GET", server.url)
            assert await run(lambda: caller.read(response)) == b"one two"
            assert caller.taken == []


async def test_the_deadline_finds_the_task_that_reads(sockets):
    """And not the one that had sent the request, which has long gone on to something else."""
    with FaultServer(stalled_body(body=b"abc"), then=Answer(body=b"fine")) as server:
        async with sockets.caller(timeout=None) as caller, elsewhere(sockets) as run:
            options = call_options(total_timeout=0.5)
            response = await caller.open("GET", server.url, extensions=options)
            with pytest.raises(DeadlineExceededError) as caught:
                await run(lambda: caller.read(response))
            assert caught.value.limit == "total"
            assert caught.value.request is response.request
            assert caller.taken == []
            assert (await caller.get(server.url)).content == b"fine"


async def test_a_verdict_reaches_the_circuit_from_the_task_that_reads(sockets):
    with FaultServer(truncated_body(), then=Answer(body=b"fine")) as server:
        async with sockets.caller() as caller, elsewhere(sockets) as run:
            response = await caller.open("GET", server.url)
            assert caller.stack.circuits()["test"]["failures"] == 0
            with pytest.raises(sockets.httpx.RemoteProtocolError):
                await run(lambda: caller.read(response))
            assert caller.stack.circuits()["test"]["failures"] == 1


async def test_cancelling_the_task_that_reads_leaves_the_one_that_sent_alone(async_sockets):
    with FaultServer(stalled_body(body=b"abc"), then=Answer(body=b"fine")) as server:
        async with async_sockets.caller() as caller:
            response = await caller.open("GET", server.url)
            reading = anyio.Event()

            async def read():
                async for _ in caller.chunks(response):
                    reading.set()

            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read)
                    await reading.wait()
                    tasks.cancel_scope.cancel()
            await caller.close(response)
            assert caller.taken == []
            assert (await caller.get(server.url)).content == b"fine"
