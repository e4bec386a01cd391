"""The worlds that layers live in: asyncio, trio or a blocking client, over httpx or httpx2."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from prometheus_client import CollectorRegistry
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from aragora_transport import Policy, resilient, resilient_sync
from aragora_transport._flavor import flavor
from aragora_transport.sync import Driven, Driver
from aragora_transport.testing import ManualClock, ScriptedTransport

URL = "http://platform.test/"


class OrdinaryClock(ManualClock):
    """The same, but layers do not know that they are tested: some of their ways are shorter then.

    For one call at a time, which it does not count. On trio time limits then run in real time.
    """

    manual = False


class HeedlessTransport(ScriptedTransport):
    """Httpx's timeouts mean nothing to it, but to a thread: only our own limits end what it does not."""

    async def handle_async_request(self, request: Any) -> Any:
        bare = self.flavor.module.Request(request.method, request.url, stream=request.stream)
        return await super().handle_async_request(bare)


class World:
    """One kind of client, its flavour and a clock that the test owns."""

    def __init__(self, kind: str, flavor_name: str) -> None:
        self.kind = kind
        self.blocking = kind == "blocking"
        self.backend = "trio" if kind == "trio" else "asyncio"
        self.flavor_name: Any = flavor_name
        self.httpx = flavor(self.flavor_name).module
        self.clock = OrdinaryClock() if kind == "ordinary" else ManualClock()
        self.registry = CollectorRegistry()
        self.events: list[Any] = []

    def scripted(self, *steps: Any) -> ScriptedTransport:
        """A scripted network of this flavour, in this clock's time."""
        return ScriptedTransport(*steps, clock=self.clock, flavor=self.flavor_name)

    def heedless(self, *steps: Any) -> ScriptedTransport:
        """The same, but httpx's timeouts are lost on it."""
        return HeedlessTransport(*steps, clock=self.clock, flavor=self.flavor_name)

    def layer(self, kind: Any, below: Any, **keywords: Any) -> Any:
        """One layer over a network, in this clock's time."""
        if self.blocking and hasattr(below, "handle_request"):
            below = Driven(below)
        return kind(below, clock=self.clock, **keywords)

    def stack(
        self, below: Any, platform: str = "test", *, policy: Policy | None = None, **keywords: Any
    ) -> Any:
        """The whole stack over a network. Events go to `events`, metrics to `registry`."""
        make = resilient_sync if self.blocking else resilient
        keywords.setdefault("on_event", self.events.append)
        keywords.setdefault("registry", self.registry)
        if "state" not in keywords:  # which brings its own
            keywords.setdefault("rng", random.Random(1))
        return make(platform, below, policy=policy or Policy(), clock=self.clock, **keywords)

    def client(self, transport: Any, **keywords: Any) -> Any:
        """A client of this kind over layers; without `timeout`, as the limits under test are ours."""
        keywords.setdefault("timeout", None)
        if self.blocking:
            if not isinstance(transport, Driver):
                transport = Driver(transport)
            return self.httpx.Client(transport=transport, trust_env=False, **keywords)
        return self.httpx.AsyncClient(transport=transport, trust_env=False, **keywords)

    async def request(self, transport: Any, method: str = "GET", url: str = URL, **keywords: Any) -> Any:
        """Send one request through layers with a client of this kind, and read the answer."""
        client = self.client(transport)
        answer = client.request(method, url, **keywords)
        return answer if self.blocking else await answer

    async def get(self, transport: Any, **keywords: Any) -> Any:
        return await self.request(transport, "GET", **keywords)

    async def post(self, transport: Any, **keywords: Any) -> Any:
        return await self.request(transport, "POST", **keywords)

    @staticmethod
    async def until(condition: Any) -> None:
        """Let other tasks go on until something is so."""
        for _ in range(10_000):
            if condition():
                return
            await anyio.lowlevel.checkpoint()
        raise AssertionError("it never came so far")

    async def cancelled(self, far_enough: Any, function: Any, *arguments: Any) -> None:
        """Run `function` in a task that is cancelled, once, when `far_enough()` is over."""
        if self.kind == "trio":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(function, *arguments)
                await far_enough()
                tasks.cancel_scope.cancel()
            return
        task = asyncio.create_task(function(*arguments))  # a scope of anyio would cancel it again and again
        await far_enough()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def sample(self, name: str, **labels: str) -> float:
        """The value of a metric in `registry`, 0 where there is none."""
        return self.registry.get_sample_value(name, labels) or 0.0


KINDS = ("asyncio", "trio", "blocking")
FLAVORS = ("httpx", "httpx2")


@pytest.fixture(params=[f"{kind}-{name}" for kind in KINDS for name in FLAVORS])
def world(request: pytest.FixtureRequest) -> World:
    """Every kind of client over both flavours."""
    kind, name = request.param.split("-")
    return World(kind, name)


@pytest.fixture(params=[f"{kind}-{name}" for kind in ("asyncio", "trio") for name in FLAVORS])
def async_world(request: pytest.FixtureRequest) -> World:
    """The asynchronous kinds alone: for tests that need tasks."""
    kind, name = request.param.split("-")
    return World(kind, name)


@pytest.fixture(params=FLAVORS)
def blocking_world(request: pytest.FixtureRequest) -> World:
    """The blocking kind alone: for tests that need threads."""
    return World("blocking", request.param)


@pytest.fixture(params=[f"{kind}-{name}" for kind in (*KINDS, "ordinary") for name in FLAVORS])
def every_world(request: pytest.FixtureRequest) -> World:
    """As `world`, and asyncio under a clock that could be the system's."""
    kind, name = request.param.split("-")
    return World(kind, name)


@pytest.fixture(params=[f"{kind}-{name}" for kind in ("asyncio", "trio", "ordinary") for name in FLAVORS])
def every_async_world(request: pytest.FixtureRequest) -> World:
    """As `async_world`, and asyncio under a clock that could be the system's."""
    kind, name = request.param.split("-")
    return World(kind, name)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """anyio's pytest plugin runs a test on the backend of its world, else on asyncio."""
    for name in ("world", "async_world"):
        if name in request.fixturenames:
            backend: str = request.getfixturevalue(name).backend
            return backend
    return "asyncio"


# --- the fenced blocks of README and docs ---

PROXIES = [f"{kind}_proxy" for kind in ("http", "https", "all")]


def page_begins(namespace: dict[str, Any]) -> None:
    """What a page's blocks change for everybody is put back behind them; and none asks a proxy of ours."""
    tidy = namespace["_tidy"] = contextlib.ExitStack()
    patch = tidy.enter_context(pytest.MonkeyPatch.context())
    for name in PROXIES:
        patch.delenv(name, raising=False)
        patch.delenv(name.upper(), raising=False)
    logger = logging.getLogger("aragora_transport")
    tidy.callback(logger.setLevel, logger.level)
    tidy.callback(setattr, logger, "handlers", logger.handlers.copy())


def page_ends(namespace: dict[str, Any]) -> None:
    namespace["_tidy"].close()


class FencedBlocks:
    """Runs every python block of README and docs, each page's in order, with the names of those before."""

    pytest_collect_file = staticmethod(
        Sybil(
            parsers=[PythonCodeBlockParser()],
            patterns=["README.md", "docs/*.md", "docs/**/*.md"],
            path=str(Path(__file__).parent.parent),
            setup=page_begins,
            teardown=page_ends,
        ).pytest()
    )


def pytest_configure(config: pytest.Config) -> None:
    # As a plugin, since a conftest's own hooks are asked only about files beside it.
    config.pluginmanager.register(FencedBlocks(), "fenced-blocks")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector leaves alone what is here for good: all modules and ten thousand tests.

    Else it would look at them again and again, which took longer than many a test.
    """
    import hypothesis  # its plugin does, but later: by then trio's random would be hidden

    # The same examples each time: what was green stays green until the code or a test changes.
    hypothesis.settings.register_profile("repeatable", derandomize=True)
    hypothesis.settings.load_profile("repeatable")

    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
