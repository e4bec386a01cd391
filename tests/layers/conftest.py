"""A platform whose answers the test sets as it goes, a clock held still meanwhile, and what is logged."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from aragora_transport import BreakerPolicy, CircuitOpenError
from aragora_transport.layers import BreakerTransport, LogTransport, configure_logging

LOGGER = logging.getLogger("aragora_transport")


class Platform:
    """Answers with `answer`, whatever that is at the time: a step of a script."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.answer: Any = 200
        self.network = world.scripted(lambda request: self.answer)

    @property
    def sent(self) -> int:
        return len(self.network.sent)

    def breaker(self, below: Any = None, **fields: Any) -> Any:
        """A breaker layer in front of it (or of a layer that is), with these fields in its policy."""
        policy = BreakerPolicy(**fields)
        return self.world.layer(BreakerTransport, below or self.network, policy=policy)

    async def answers(self, layer: Any, *answers: Any) -> None:
        """Make one request for each answer; what comes back is of no interest here."""
        for answer in answers:
            self.answer = answer
            try:
                await self.world.get(layer)
            except CircuitOpenError:
                raise
            except Exception:  # noqa: BLE001, S110  # errors are among the answers
                pass

    async def refuses(self, layer: Any, **keywords: Any) -> bool:
        """Whether a request is refused now, without sending. One that is not gets a success."""
        self.answer = 200
        before = self.sent
        try:
            await self.world.get(layer, **keywords)
        except CircuitOpenError:
            assert self.sent == before, "it was sent and refused"
            return True
        assert self.sent == before + 1
        return False


@pytest.fixture
def platform(request: pytest.FixtureRequest) -> Platform:
    """The platform of the test's world."""
    name = next(name for name in ("world", "async_world", "blocking_world") if name in request.fixturenames)
    return Platform(request.getfixturevalue(name))


@pytest.fixture
def still(async_world: Any) -> Any:
    """Within `async with still():` the clock does not move by itself, whoever waits.

    A call is in a transport that knows nothing of the clock, as in a real one.
    """

    @contextlib.asynccontextmanager
    async def still() -> AsyncIterator[None]:
        entered, go = anyio.Event(), anyio.Event()

        async def held(request: Any) -> Any:
            entered.set()
            await go.wait()
            return async_world.httpx.Response(200)

        layer = async_world.layer(LogTransport, async_world.httpx.MockTransport(held))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(async_world.get, layer)
            await entered.wait()
            yield
            go.set()

    return still


@pytest.fixture
def every_level(caplog: pytest.LogCaptureFixture) -> None:
    """Our records of every level are kept."""
    caplog.set_level(logging.DEBUG, "aragora_transport")


@pytest.fixture
def lines() -> Iterator[Callable[[], list[Any]]]:
    """What configure_logging() writes."""
    stream = io.StringIO()
    level = LOGGER.level
    handler = configure_logging(stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)
