"""Streams and everything else that passes through us: in time, unchanged, and let go of when abandoned."""

from __future__ import annotations

import contextlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from aragora_transport import DeadlineExceededError, TimeoutPolicy, call_options
from aragora_transport.testing._faults import Answer, stalled_body, truncated_body
from aragora_transport.testing._server import FaultServer

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
    """Runs a coroutine function in another task, or another thread; returns its result or raises its error."""
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
                    except Exception as error:  # noqa: BLE001 - raised again below
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


# --- nothing is changed on the way ---


async def test_the_network_stream_is_there_for_who_needs_it(sockets):
    with FaultServer(Answer(body=b"fine")) as server:
        async with sockets.caller() as caller:
            response = await caller.open("GET", server.url)
            stream = response.extensions["network_stream"]
            assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
            assert response.extensions["http_version"] == b"HTTP/1.1"
            await caller.read(response)


async def test_a_connection_that_is_upgraded_can_be_talked_over_both_ways(sockets, tools):
    """As websocket libraries do: over the stream that comes with the answer."""

    def converse(connection):
        tools.head_of(connection)
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n"
        )
        for _ in range(3):
            connection.sendall(connection.recv(100).upper())

    headers = {"Connection": "upgrade", "Upgrade": "echo"}
    with tools.serving(converse) as url:
        async with sockets.caller() as caller:
            response = await caller.open("GET", url, headers=headers)
            assert response.status_code == 101
            stream = response.extensions["network_stream"]
            for word in (b"to", b"and", b"fro"):
                if sockets.blocking:
                    stream.write(word)
                    assert stream.read(100, timeout=10) == word.upper()
                else:
                    await stream.write(word)
                    assert await stream.read(100, timeout=10) == word.upper()
            await caller.close(response)
            assert caller.taken == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_trace_is_called_as_without_us(sockets, method):
    """A POST has a trace of ours as well, which hands on what it hears."""

    async def traced(stack):
        names = []

        async def trace_async(name, info):
            names.append(name)
            assert isinstance(info, dict)

        def trace(name, info):
            names.append(name)
            assert isinstance(info, dict)

        extensions = {"trace": trace if sockets.blocking else trace_async}
        network = sockets.network()
        async with sockets.caller(network) as caller:
            if stack:
                await caller.request(method, server.url, extensions=extensions)
            else:
                await sockets.bare(network, method, server.url, extensions=extensions)
        return names

    with FaultServer(Answer(body=b"fine")) as server:
        assert await traced(stack=True) == await traced(stack=False) != []


async def test_headers_keep_their_order_and_case_and_none_is_added(sockets):
    headers = [
        ("X-One", "1"),
        ("x-TWO", "2"),
        ("X-One", "again"),
        ("aCCept", "text/plain"),
        ("Zed", "é".encode()),
    ]
    with FaultServer(Answer(body=b"fine", headers=[("X-b", "1"), ("x-A", "2"), ("X-b", "3")])) as server:
        network = sockets.network()
        async with sockets.caller(network) as caller:
            ours = await caller.request("POST", server.url, headers=headers, content=b"body")
            bare = await sockets.bare(network, "POST", server.url, headers=headers, content=b"body")
        with_us, without_us = (request.headers.raw for request in server.requests)
        assert with_us == without_us
        assert [name for name, _ in ours.headers.raw][:3] == [b"X-b", b"x-A", b"X-b"]
        assert ours.headers.raw == bare.headers.raw


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_very_request_and_answer_pass_through(sockets, tools, method):
    """With all of their extensions; and nothing of ours is left on the request afterwards."""
    foreign = object()
    extensions = {"sni_hostname": "name.test", "foreign": foreign, "timeout": {"read": 5.0}}
    network = sockets.network()
    watched = sockets.watched(network)
    with FaultServer(503, Answer(body=b"fine")) as server:
        async with sockets.caller(network, below=watched) as caller:
            request = caller.client.build_request(method, server.url, extensions=extensions)
            before = dict(request.extensions)
            response = await caller.send(request)
            assert response is watched.responses[-1]
            assert response.request is request
            assert await caller.read(response) == b"fine"
        assert [sent is request for sent in watched.requests] == [True, True]
        for seen in watched.extensions:
            assert seen["sni_hostname"] == "name.test"
            assert seen["foreign"] is foreign
        assert request.extensions == before
        assert request.extensions["timeout"] is before["timeout"]


async def test_the_target_extension_decides_what_is_asked_for(sockets):
    with FaultServer(Answer(body=b"fine")) as server:
        async with sockets.caller() as caller:
            await caller.request("OPTIONS", server.url, extensions={"target": b"*"})
        assert server.requests[0].target == "*"


async def test_limits_of_ours_leave_httpxs_timeouts_as_they_were(sockets, tools):
    """They are shortened to what is left while an attempt runs, on a copy."""
    policy = tools.quick(timeout=TimeoutPolicy(attempt=2.0, body_idle=2.0))
    network = sockets.network()
    watched = sockets.watched(network)
    with FaultServer(Answer(body=b"fine")) as server:
        async with sockets.caller(network, below=watched, policy=policy, timeout=None) as caller:
            request = caller.client.build_request("GET", server.url)
            await caller.read(await caller.send(request))
        shortened = watched.extensions[0]["timeout"]
        assert all(0 < seconds <= 2.0 for seconds in shortened.values())
        assert set(request.extensions["timeout"].values()) == {None}
        assert math.isfinite(sum(shortened.values()))
