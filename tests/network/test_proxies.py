"""Proxies: those of a client that is wrapped, of the environment, and of a transport that is given."""

from __future__ import annotations

import contextlib

import pytest

from aragora_transport import CircuitOpenError, resilient, resilient_sync, wrap_client
from aragora_transport.testing import Answer, FaultServer

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

FAR = "http://far.test/path"  # no such host: only a proxy can answer for it
BY_PROXY = Answer(body=b"by the proxy")
DIRECT = Answer(body=b"direct")


@contextlib.asynccontextmanager
async def opened(client):
    """A client of either kind, as a function that gets a URL."""
    if hasattr(client, "aclose"):
        async with client:

            async def get(url):
                return await client.get(url)

            yield get
    else:
        with client:

            async def get(url):
                return client.get(url)

            yield get


def a_client(sockets, **keywords):
    make = sockets.httpx.Client if sockets.blocking else sockets.httpx.AsyncClient
    return make(verify=False, **keywords)


def a_stack(sockets, tools, transport=None):
    make = resilient_sync if sockets.blocking else resilient
    return make(
        "test", transport, policy=tools.quick(), registry=sockets.registry, flavor=sockets.world.flavor_name
    )


def wrapped(sockets, tools, client):
    return wrap_client(client, "test", policy=tools.quick(), registry=sockets.registry)


def targets(server):
    return [request.target for request in server.requests]


async def test_a_wrapped_client_goes_on_using_its_proxy(sockets, tools):
    with FaultServer(503, 503, BY_PROXY) as proxy:
        client = wrapped(sockets, tools, a_client(sockets, proxy=proxy.url))
        async with opened(client) as get:
            assert (await get(FAR)).content == b"by the proxy"
        assert targets(proxy) == [FAR] * 3
        assert proxy.connections == 1
        proxy.wait_until(lambda: proxy.open_connections == 0)


async def test_a_proxy_beside_a_transport_does_not_pass_the_stack_by(sockets, tools):
    """httpx puts its bare proxy transport over a given one: only the mounts tell."""
    with FaultServer(503, BY_PROXY) as proxy:
        client = a_client(sockets, transport=sockets.network(), proxy=proxy.url)
        async with opened(wrapped(sockets, tools, client)) as get:
            assert (await get(FAR)).content == b"by the proxy"
        assert targets(proxy) == [FAR] * 2


async def test_each_mount_keeps_its_own_way_and_all_share_one_circuit(sockets, tools):
    with FaultServer(503, BY_PROXY) as proxy, FaultServer(503, DIRECT) as server:
        mounts = {
            "http://far.test": sockets.network(proxy=proxy.url),
            "http://nowhere.test": None,
        }
        client = wrapped(sockets, tools, a_client(sockets, mounts=mounts, trust_env=False))
        async with opened(client) as get:
            assert (await get(FAR)).content == b"by the proxy"
            assert (await get(server.url)).content == b"direct"
            client._transport.isolate()
            with pytest.raises(CircuitOpenError):
                await get(FAR)
        assert targets(proxy) == [FAR] * 2
        assert targets(server) == ["/"] * 2


@pytest.mark.parametrize("name", ["HTTP_PROXY", "all_proxy"])
async def test_the_proxy_of_the_environment_is_used(sockets, tools, monkeypatch, name):
    with FaultServer(503, BY_PROXY) as proxy:
        monkeypatch.setenv(name, proxy.url)
        transport = a_stack(sockets, tools)
        monkeypatch.delenv(name)  # it is looked at once, when the transport is made
        async with opened(a_client(sockets, transport=transport)) as get:
            assert (await get(FAR)).content == b"by the proxy"
        assert targets(proxy) == [FAR] * 2
        proxy.wait_until(lambda: proxy.open_connections == 0)


async def test_no_proxy_of_the_environment_is_honoured(sockets, tools, monkeypatch):
    with FaultServer(BY_PROXY) as proxy, FaultServer(503, DIRECT) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,other.test")
        async with opened(a_client(sockets, transport=a_stack(sockets, tools))) as get:
            assert (await get(server.url)).content == b"direct"
            assert (await get(FAR)).content == b"by the proxy"
        assert targets(server) == ["/"] * 2
        assert targets(proxy) == [FAR]


async def test_without_a_proxy_in_the_environment_there_is_none(sockets, tools):
    with FaultServer(503, DIRECT) as server:
        async with opened(a_client(sockets, transport=a_stack(sockets, tools))) as get:
            assert (await get(server.url)).content == b"direct"
        assert targets(server) == ["/"] * 2


async def test_a_given_transport_brings_its_own_proxy(sockets, tools, monkeypatch):
    """And whoever gives one decides alone: the environment is not asked."""
    with FaultServer(503, BY_PROXY) as proxy, FaultServer(503, DIRECT) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        transport = a_stack(sockets, tools, sockets.network(proxy=proxy.url))
        async with opened(a_client(sockets, transport=transport)) as get:
            assert (await get(FAR)).content == b"by the proxy"
        transport = a_stack(sockets, tools, sockets.network())
        async with opened(a_client(sockets, transport=transport)) as get:
            assert (await get(server.url)).content == b"direct"
        assert targets(proxy) == [FAR] * 2


async def test_a_proxy_that_refuses_a_tunnel_is_asked_again(sockets, tools):
    """Nothing was sent through it, so that this is safe for every method."""
    with FaultServer(Answer(status=503, close=True)) as proxy:
        network = sockets.network(proxy=proxy.url)
        async with sockets.caller(network) as caller:
            with pytest.raises(sockets.httpx.ProxyError) as caught:
                await caller.request("POST", "https://far.test/", content=b"secret")
            assert caught.value.request.method == "POST"
            assert caller.taken == []
        assert [(request.method, request.target) for request in proxy.requests] == [
            ("CONNECT", "far.test:443")
        ] * 3
        assert all(request.body == b"" for request in proxy.requests)
