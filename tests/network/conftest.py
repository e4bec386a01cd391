"""What the tests on real sockets share: clients of every kind, and a look into httpcore's pools."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio.to_thread
import pytest
from prometheus_client import CollectorRegistry

from aragora_transport import BreakerPolicy, Policy, RetryPolicy, TimeoutPolicy, resilient, resilient_sync

PATIENCE = 10.0  # seconds that nothing here takes, unless it hangs


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """Traffic stays on loopback, whatever the environment of the tests says."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def quick(**fields: Any) -> Policy:
    """The guide's policy but for delays of a millisecond, and a circuit that stays out of it."""
    fields.setdefault("retry", RetryPolicy(base_delay=0.001, max_delay=0.001))
    fields.setdefault("breaker", BreakerPolicy(failure_threshold=10_000))
    fields.setdefault("timeout", TimeoutPolicy(attempt=PATIENCE, body_idle=PATIENCE))
    return Policy(**fields)


def taken(network: Any) -> list[Any]:
    """What holds or waits for a place in the pool of a network transport."""
    pool = network._pool
    return [*pool._requests, *(one for one in pool.connections if not (one.is_idle() or one.is_closed()))]


class Watched:
    """A transport that notes what passes through it; made by `Sockets.watched`."""

    def __init__(self, below: Any) -> None:
        self.below = below
        self.requests: list[Any] = []
        self.extensions: list[dict[str, Any]] = []  # as they were when the request came by
        self.responses: list[Any] = []

    def handle_request(self, request: Any) -> Any:
        self._note(request)
        self.responses.append(self.below.handle_request(request))
        return self.responses[-1]

    async def handle_async_request(self, request: Any) -> Any:
        self._note(request)
        self.responses.append(await self.below.handle_async_request(request))
        return self.responses[-1]

    def _note(self, request: Any) -> None:
        self.requests.append(request)
        self.extensions.append(dict(request.extensions))

    def close(self) -> None:
        self.below.close()

    async def aclose(self) -> None:
        await self.below.aclose()


class Caller:
    """A client of one kind over the stack over real sockets. Its methods are awaited, whatever the kind."""

    def __init__(self, world: Any, client: Any, network: Any, stack: Any) -> None:
        self.world = world
        self.client = client
        self.network = network
        self.stack = stack

    async def request(self, method: str, url: str, **keywords: Any) -> Any:
        answer = self.client.request(method, url, **keywords)
        return answer if self.world.blocking else await answer

    async def get(self, url: str, **keywords: Any) -> Any:
        return await self.request("GET", url, **keywords)

    async def send(self, request: Any) -> Any:
        """Send a request that was built; its answer is not read."""
        answer = self.client.send(request, stream=True)
        return answer if self.world.blocking else await answer

    async def open(self, method: str, url: str, **keywords: Any) -> Any:
        return await self.send(self.client.build_request(method, url, **keywords))

    async def chunks(self, response: Any) -> Any:
        """The answer's body as it comes."""
        if self.world.blocking:
            for chunk in response.iter_raw():
                yield chunk
        else:
            async for chunk in response.aiter_raw():
                yield chunk

    async def read(self, response: Any) -> bytes:
        content: bytes = response.read() if self.world.blocking else await response.aread()
        return content

    async def close(self, response: Any) -> None:
        if self.world.blocking:
            response.close()
        else:
            await response.aclose()

    @property
    def taken(self) -> list[Any]:
        return taken(self.network)


class Sockets:
    """Callers of one world over real sockets, with what they measured."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.httpx = world.httpx
        self.blocking: bool = world.blocking
        self.registry = CollectorRegistry()
        self.events: list[Any] = []
        self._bodies: list[Any] = []

    def network(self, *, connections: int | None = 1, **keywords: Any) -> Any:
        """The flavour's own transport, by default with a pool of one: whatever leaks is missed at once."""
        make = self.httpx.HTTPTransport if self.blocking else self.httpx.AsyncHTTPTransport
        keywords.setdefault("limits", self.httpx.Limits(max_connections=connections))
        # No TLS here, and the certificates take longer to load than most tests to run.
        return make(trust_env=False, verify=False, **keywords)

    def watched(self, network: Any) -> Any:
        """A transport of this kind and flavour around the network, that notes what passes."""
        base = self.httpx.BaseTransport if self.blocking else self.httpx.AsyncBaseTransport
        return type("Watched", (Watched, base), {})(network)

    def stack(self, below: Any, **keywords: Any) -> Any:
        keywords.setdefault("policy", quick())
        keywords.setdefault("registry", self.registry)
        keywords.setdefault("on_event", self.events.append)
        return (resilient_sync if self.blocking else resilient)("test", below, **keywords)

    async def bare(self, network: Any, method: str, url: str, **keywords: Any) -> Any:
        """The same request without us, for comparison."""
        make = self.httpx.Client if self.blocking else self.httpx.AsyncClient
        answer = make(transport=network, trust_env=False).request(method, url, **keywords)
        return answer if self.blocking else await answer

    @contextlib.asynccontextmanager
    async def caller(
        self,
        network: Any = None,
        *,
        timeout: Any = PATIENCE,  # noqa: ASYNC109  # httpx's own
        client: Any = None,
        below: Any = None,
        **keywords: Any,
    ) -> Any:
        """A caller over the stack over a network transport, or over `below`; `keywords` are the stack's."""
        network = network or self.network()
        stack = self.stack(below or network, **keywords)
        client = self.world.client(stack, timeout=timeout, **(client or {}))
        if self.blocking:
            with client:
                yield Caller(self.world, client, network, stack)
        else:
            async with client:
                yield Caller(self.world, client, network, stack)
        for body in self._bodies:  # nobody else would: httpx gives up a generator that it has begun to read
            await body.aclose()

    def body(self, *pieces: bytes) -> Any:
        """A body that can be read once: a generator of the client's kind."""
        if self.blocking:
            return (piece for piece in pieces)

        async def generator() -> Any:
            for piece in pieces:
                yield piece

        self._bodies.append(generator())
        return self._bodies[-1]

    async def wait(self, function: Any, *arguments: Any) -> Any:
        """Call something that blocks, without holding up the event loop where there is one."""
        if self.blocking:
            return function(*arguments)
        return await anyio.to_thread.run_sync(function, *arguments)


@pytest.fixture
def sockets(world):
    """Every kind of client over both flavours, on real sockets."""
    return Sockets(world)


@pytest.fixture
def async_sockets(async_world):
    """The asynchronous kinds alone: for tests that need tasks."""
    return Sockets(async_world)


@contextlib.contextmanager
def serving(converse: Any) -> Any:
    """Serve one connection by `converse(connection)`, in a thread: for what no script of answers can say."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(PATIENCE)

        def serve() -> None:
            connection, _ = listener.accept()
            connection.settimeout(PATIENCE)
            with connection:
                converse(connection)

        served = pool.submit(serve)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        served.result(PATIENCE)


def head_of(connection: socket.socket) -> bytes:
    """Read a request up to its body, of which nothing may have come yet."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = connection.recv(1)
        assert received, f"the client went away after {head!r}"
        head += received
    return head


def happens(event: threading.Event) -> None:
    """Wait for the other side of a test; fails when it never comes."""
    assert event.wait(PATIENCE), "the other side did not get so far"


class Tools:
    """The functions above, for test modules: these cannot import from here."""

    quick = staticmethod(quick)
    taken = staticmethod(taken)
    serving = staticmethod(serving)
    head_of = staticmethod(head_of)
    happens = staticmethod(happens)


@pytest.fixture
def tools():
    return Tools
