"""One run: the calls of a scenario come, a contender's transports send them, a server answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import httpx

from aragora_transport.events import (
    AttemptFinished,
    CircuitChanged,
    RateLimitWaited,
    RetryRefused,
    RetryScheduled,
)
from aragora_transport.simulation.servers import CALL, KINDS
from aragora_transport.simulation.traffic import arrivals
from aragora_transport.testing import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aragora_transport.events import Event
    from aragora_transport.simulation.contenders import Contender
    from aragora_transport.simulation.scenario import Scenario
    from aragora_transport.simulation.servers import Server

_URL = httpx.URL("http://server.simulated/")
_STREAM = httpx.ByteStream(b"")
_PHASES = ("connect", "read", "write", "pool")  # of httpx, each with its timeout


@dataclass(slots=True)
class Call:
    """A call that came `at` and took `seconds`. `failure`: why it was not served, `None` where it was."""

    at: float
    seconds: float = 0.0
    sends: int = 0
    failure: str | None = None


class Deeds:
    """What the layers of one process did, by their events."""

    def __init__(self, clock: VirtualTime) -> None:
        self.retries = 0
        self.refused: Counter[str] = Counter()
        self.timed_out = 0
        self.gate_waits = 0
        self.gate_seconds = 0.0
        self.gate_refusals = 0
        self.circuit: list[tuple[float, str]] = []  # when it changed, to what
        self._now = clock.monotonic

    def __call__(self, event: Event) -> None:
        match event:
            case AttemptFinished(error="DeadlineExceededError"):
                self.timed_out += 1
            case RetryScheduled():
                self.retries += 1
            case RetryRefused():
                self.refused[event.reason] += 1
            case RateLimitWaited(refused=True):
                self.gate_refusals += 1
            case RateLimitWaited():
                self.gate_waits += 1
                self.gate_seconds += event.seconds
            case CircuitChanged():
                self.circuit.append((self._now(), event.new))
            case _:
                pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What came of one run. `deeds`: one for each process, none where a contender tells nothing."""

    scenario: Scenario
    contender: str
    seed: int
    calls: list[Call]
    server: Server
    deeds: list[Deeds] = field(default_factory=list[Deeds])


def simulate(
    contender: Contender,
    scenario: Scenario,
    seed: int,
    *,
    progress: Callable[[float], object] = lambda _: None,
) -> Run:
    """One run under one seed; the same seed is the same run. Contenders meet the same calls.

    `progress` is told the simulated second, about once in each.
    """
    clock = VirtualTime()
    server = KINDS[scenario.server](scenario, clock, _rng(seed, "server"))
    deeds = [Deeds(clock) for _ in range(scenario.processes)]
    transports = [
        contender.make(server, clock, _rng(seed, f"process {number}"), told)
        for number, told in enumerate(deeds)
    ]
    calls: list[Call] = []
    plan = _plan(scenario, seed, transports, calls)
    clock.run(_drive(plan, scenario.client_timeout, clock, progress))
    return Run(
        scenario=scenario,
        contender=contender.name,
        seed=seed,
        calls=calls,
        server=server,
        deeds=deeds if contender.tells else [],
    )


def _rng(seed: int, whose: str) -> Random:
    """Everybody has a luck of their own, so that one who draws more changes nobody else's."""
    return Random(f"{seed} {whose}")  # noqa: S311  # repeatable on purpose


def _plan(
    scenario: Scenario, seed: int, transports: list[Any], calls: list[Call]
) -> Iterator[tuple[Call, Any]]:
    """The calls as they come, and by which process's transport each is sent."""
    chance = _rng(seed, "arrivals")
    for at in arrivals(scenario, chance):
        calls.append(Call(at))
        yield calls[-1], chance.choice(transports)


async def _drive(
    plan: Iterator[tuple[Call, Any]],
    client_timeout: float | None,
    clock: VirtualTime,
    progress: Callable[[float], object],
) -> None:
    timeouts: dict[str, float | None] = {**dict.fromkeys(_PHASES, client_timeout)}
    told = 0.0
    async with asyncio.TaskGroup() as tasks:
        for call, transport in plan:
            await asyncio.sleep(call.at - clock.monotonic())
            tasks.create_task(_send(call, transport, timeouts, clock))
            if call.at >= told:
                progress(call.at)
                told = call.at + 1.0


async def _send(call: Call, transport: Any, timeouts: dict[str, float | None], clock: VirtualTime) -> None:
    """One call to the end of its body, as a client makes it."""
    request = httpx.Request("GET", _URL, stream=_STREAM, extensions={"timeout": timeouts.copy(), CALL: call})
    try:
        response = await transport.handle_async_request(request)
        try:
            await response.aread()
        finally:
            await response.aclose()
        if response.status_code >= 400:
            call.failure = str(response.status_code)
    except Exception as error:  # noqa: BLE001  # whatever it is, this call was not served
        call.failure = type(error).__name__
    call.seconds = clock.monotonic() - call.at
