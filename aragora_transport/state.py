"""What outlives a call: circuits, gates, the retry budget and timers, with one owner.

Every `resilient()` and `wrap_client()` makes one `State`, which its mounts, event loops and threads
share; `state=` shares it between stacks. Nothing is global.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from aragora_transport._alarm import Alarms
from aragora_transport._budget import Budget
from aragora_transport._clock import SYSTEM
from aragora_transport._gates import Gates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aragora_transport._circuits import Circuits
    from aragora_transport._clock import Clock
    from aragora_transport.policy import Policy


class State:
    """The state of one platform, as `resilient(state=...)` takes it."""

    def __init__(
        self,
        policy: Policy,
        *,
        clock: Clock = SYSTEM,
        rng: random.Random | None = None,
        listeners: Iterable[Any] = (),
        storage: Callable[[str], Any] | None = None,
    ) -> None:
        self.clock = clock
        self.rng = rng or random.Random()  # noqa: S311  # jitter, not secrets
        self.alarms = Alarms(clock)
        self.circuits: Circuits | None = None
        self.gates: Gates | None = None
        self.budget: Budget | None = None
        if policy.breaker is not None:
            # pybreaker is loaded only by those who use a circuit.
            from aragora_transport._circuits import Circuits  # noqa: PLC0415  # hence here

            self.circuits = Circuits(policy.breaker, clock, self.rng, listeners=listeners, storage=storage)
        if policy.rate_limit is not None:
            self.gates = Gates(clock, self.rng, policy.rate_limit)
        if policy.retry is not None and policy.retry.budget is not None:
            self.budget = Budget(policy.retry.budget, clock)
