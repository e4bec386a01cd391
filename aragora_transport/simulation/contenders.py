"""Who meets a scenario: nobody (bare httpx), or this library with a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aragora_transport.stack import resilient

if TYPE_CHECKING:
    from random import Random

    from aragora_transport.events import Event
    from aragora_transport.policy import Policy
    from aragora_transport.simulation.servers import Server
    from aragora_transport.testing import VirtualTime

Make = Callable[["Server", "VirtualTime", "Random", Callable[["Event"], object]], Any]


@dataclass(frozen=True, slots=True)
class Contender:
    """A name, and what makes one process's transport over a server; `tells` of its layers' events."""

    name: str
    make: Make
    tells: bool = False


def bare() -> Contender:
    """Httpx without anything around it."""

    def make(server: Server, *_: object) -> Server:
        return server

    return Contender("none", make)


def ours(name: str, policy: Policy) -> Contender:
    """The whole stack of this library; without its log and metrics, which change no outcome."""
    quiet = replace(policy, log=False, metrics=False)

    def make(server: Server, clock: VirtualTime, rng: Random, on_event: Callable[[Event], object]) -> Any:
        return resilient("simulated", server, policy=quiet, clock=clock, rng=rng, on_event=on_event)

    return Contender(name, make, tells=True)
