"""The servers of a simulation, as transports: what each kind answers, and how it is unwell in an outage.

A server decides what comes of a request when the request comes; waiting for it, as long as the client's
own read timeout allows, is the same for all.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from aragora_transport.simulation.scenario import Scenario
    from aragora_transport.testing import VirtualTime

CALL = "aragora_transport.simulation"  # in request.extensions: the `run.Call` that is sent


class Answer(NamedTuple):
    """What comes of a request after `wait` seconds; its body takes `body` seconds, and may break off."""

    wait: float
    status: int = 200
    retry_after: int | None = None
    body: float = 0.0
    breaks: bool = False


class Server(ABC, httpx.AsyncBaseTransport):
    """Answers by `answer()` and keeps the times of what was sent to it in `sends`."""

    def __init__(self, scenario: Scenario, clock: VirtualTime, rng: Random) -> None:
        self.scenario = scenario
        self.sends: list[float] = []
        self._clock = clock
        self._rng = rng

    @abstractmethod
    def answer(self, now: float) -> Answer:
        """What comes of a request that comes now."""

    def drained(self) -> float | None:
        """When the work that an outage left behind was done, for a server that keeps a queue."""
        return None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        now = self._clock.monotonic()
        self.sends.append(now)
        request.extensions[CALL].sends += 1
        answer = self.answer(now)
        read: float | None = request.extensions.get("timeout", {}).get("read")
        await _pause(answer.wait, read, request)
        headers = {} if answer.retry_after is None else {"retry-after": str(answer.retry_after)}
        return httpx.Response(answer.status, headers=headers, stream=_Body(answer, read, request))

    def _latency(self) -> float:
        return self.scenario.latency * self._rng.uniform(0.5, 1.5)

    def _struck(self, at: float) -> bool:
        """Whether the outage, if there is one then, strikes this answer."""
        severity = self.scenario.severity_at(at)
        return severity > 0.0 and self._rng.random() < severity


class Failing(Server):
    """A share of its answers is a 503."""

    def answer(self, now: float) -> Answer:
        return Answer(self._latency(), 503 if self._struck(now) else 200)


class Slow(Server):
    """A share of its answers takes long."""

    def answer(self, now: float) -> Answer:
        return Answer(self.scenario.slow if self._struck(now) else self._latency())


class Bodies(Server):
    """Its bodies take their time, and a share of them breaks off halfway."""

    def answer(self, now: float) -> Answer:
        body = self.scenario.body * self._rng.uniform(0.5, 1.0)
        return Answer(self._latency(), body=body, breaks=self._struck(now))


class Limited(Server):
    """Beyond its rate it answers 429, with a wait in whole seconds: a bucket of tokens for one second."""

    def __init__(self, scenario: Scenario, clock: VirtualTime, rng: Random) -> None:
        super().__init__(scenario, clock, rng)
        self._tokens = scenario.capacity
        self._counted = 0.0

    def answer(self, now: float) -> Answer:
        rate = max(1.0, self.scenario.capacity * (1.0 - self.scenario.severity_at(now)))
        self._tokens = min(rate, self._tokens + (now - self._counted) * rate)
        self._counted = now
        if self._tokens < 1.0:
            return Answer(self._latency(), 429, retry_after=math.ceil((1.0 - self._tokens) / rate))
        self._tokens -= 1.0
        return Answer(self._latency())


class Queue(Server):
    """Serves one request after the other, those of callers that have gone too.

    Kept in units of work: a request is one, and a server that was idle or slower has done fewer of them
    by now. A request that joins the queue is done when all the work before it and its own one are.
    """

    def __init__(self, scenario: Scenario, clock: VirtualTime, rng: Random) -> None:
        super().__init__(scenario, clock, rng)
        self._accepted = 0.0  # the work that is done when the queue is empty
        self._drained: float | None = None

    def answer(self, now: float) -> Answer:
        done = self._work_by(now)
        self._note_drained(now, done)
        self._accepted = max(self._accepted, done) + 1.0
        return Answer(self._latency() + self._time_of(self._accepted) - now)

    def drained(self) -> float | None:
        self._note_drained(self._clock.monotonic(), self._work_by(self._clock.monotonic()))
        return self._drained

    def _note_drained(self, now: float, done: float) -> None:
        end = self.scenario.last_end
        if self._drained is None and end is not None and now >= end and self._accepted <= done:
            self._drained = max(end, self._time_of(self._accepted))

    def _stretches(self) -> list[tuple[float, float, float]]:
        """Stretches of time of equal capacity: from, until, requests a second."""
        full = self.scenario.capacity
        weak = full * (1.0 - self.scenario.severity)
        found, at = list[tuple[float, float, float]](), 0.0
        for outage in self.scenario.outages:
            found += [(at, outage.start, full), (outage.start, outage.end, weak)]
            at = outage.end
        return [*found, (at, float("inf"), full)]

    def _work_by(self, at: float) -> float:
        return sum((min(at, end) - start) * speed for start, end, speed in self._stretches() if at > start)

    def _time_of(self, work: float) -> float:
        """When so much work is done, had there been no pause."""
        for start, end, speed in self._stretches():
            if speed > 0.0 and work <= (end - start) * speed:
                return start + work / speed
            work -= (end - start) * speed
        raise AssertionError  # pragma: no cover  # the last stretch has no end


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: Answer, read: float | None, request: httpx.Request) -> None:
        self._answer = answer
        self._read = read
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{"
        answer = self._answer
        if answer.body > 0.0:
            await _pause(answer.body / 2.0, self._read, self._request)
            if answer.breaks:
                raise httpx.ReadError("broken off by the simulated server", request=self._request)
            await _pause(answer.body / 2.0, self._read, self._request)
        yield b"}"


async def _pause(seconds: float, read: float | None, request: httpx.Request) -> None:
    """Keep the client waiting, as long as its read timeout allows."""
    if read is not None and seconds > read:
        await asyncio.sleep(read)
        raise httpx.ReadTimeout("simulated", request=request)
    await asyncio.sleep(seconds)


KINDS: dict[str, type[Server]] = {
    "failing": Failing,
    "queue": Queue,
    "limited": Limited,
    "slow": Slow,
    "bodies": Bodies,
}
