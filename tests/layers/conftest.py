"""A platform whose answers the test sets as it goes, and the breaker in front of it."""

from __future__ import annotations

from typing import Any

import pytest

from aragora_transport import BreakerPolicy, CircuitOpenError
from aragora_transport.layers import BreakerTransport


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
