"""What passes through the stack on real sockets is unchanged: requests, answers, headers, extensions."""

from __future__ import annotations

import math

import pytest

from aragora_transport import TimeoutPolicy
from aragora_transport.testing import Answer, FaultServer

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]


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
