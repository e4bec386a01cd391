"""The demo's traffic: when calls come, how they are sent, and what became of each.

Arrivals are open-loop: they come when they come, whether or not earlier calls are done, as users do.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

POST_SHARE = 0.2
UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Arrival:
    """Call `number` (from 0) comes `at` seconds after the start; it was planned `late` seconds earlier."""

    number: int
    at: float
    method: str
    late: float = 0.0

    def begun(self, at: float) -> Arrival:
        """The same call when it really began: a busy machine is late, and the phases do not wait."""
        return replace(self, at=at, late=at - self.at)


def arrivals(*, seconds: float, rate: float, seed: int) -> list[Arrival]:
    """Calls at random times, `rate` a second in the mean, of which one in five is a POST."""
    luck = Random(seed)  # noqa: S311  # no secret
    found: list[Arrival] = []
    at = luck.expovariate(rate)
    while at < seconds:
        found.append(Arrival(len(found), at, "POST" if luck.random() < POST_SHARE else "GET"))
        at += luck.expovariate(rate)
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: `failure` is a status or an error's class name, None where it was served."""

    arrival: Arrival
    failure: str | None
    seconds: float


class Tally:
    """What one client's callers saw."""

    def __init__(self) -> None:
        self.begun: list[Arrival] = []
        self.outcomes: list[Outcome] = []
        self.served = 0
        self.failures: Counter[str] = Counter()

    def end(self, outcome: Outcome) -> None:
        """Note the end of a call."""
        self.outcomes.append(outcome)
        if outcome.failure is None:
            self.served += 1
        else:
            self.failures[outcome.failure] += 1

    @property
    def failed(self) -> int:
        """Calls that ended without their answer."""
        return len(self.outcomes) - self.served

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""
        return len(self.begun) - len(self.outcomes)


Options = Callable[[Arrival], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Caller:
    """A client, what it adds to each request, and where its results go."""

    client: httpx.AsyncClient
    extensions: Options
    tally: Tally

    async def call(self, arrival: Arrival) -> None:
        """One call, to the end of its body."""
        self.tally.begun.append(arrival)
        began = time.perf_counter()
        failure: str | None = UNFINISHED  # unless it gets further than being cancelled
        try:
            failure = await self._send(arrival)
        finally:
            self.tally.end(Outcome(arrival, failure, time.perf_counter() - began))

    async def _send(self, arrival: Arrival) -> str | None:
        content = {"id": arrival.number} if arrival.method == "POST" else None
        path = f"/items/{arrival.number}"
        try:
            response = await self.client.request(
                arrival.method, path, extensions=self.extensions(arrival), json=content
            )
            response.json()
        except Exception as error:  # noqa: BLE001  # whatever it is, this caller was not served
            return type(error).__name__
        return None if response.is_success else str(response.status_code)


async def drive(plan: list[Arrival], callers: Mapping[str, Caller], *, started: float, grace: float) -> None:
    """Send every arrival through every caller when its time comes; give the last ones `grace` seconds."""
    calls: set[asyncio.Task[None]] = set()
    order = list(callers.values())
    try:
        for arrival in plan:
            await asyncio.sleep(max(0.0, started + arrival.at - time.monotonic()))
            begun = arrival.begun(time.monotonic() - started)
            order.reverse()  # neither of them is always the first
            for caller in order:
                task = asyncio.create_task(caller.call(begun))
                calls.add(task)
                task.add_done_callback(calls.discard)
        if calls:
            await asyncio.wait(calls, timeout=grace)
    finally:
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
