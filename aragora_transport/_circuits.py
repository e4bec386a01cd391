"""The circuits of a platform, by key."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from aragora_transport._circuit import Circuit, GuardedListener
from aragora_transport._era import CLOSED, HALF_OPEN, OPEN, Change, take_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from aragora_transport._clock import Clock
    from aragora_transport.events import CircuitState
    from aragora_transport.policy import BreakerPolicy


class Circuits:
    """The circuits of one platform by key, the least recently used forgotten beyond `max_keys`."""

    def __init__(
        self,
        policy: BreakerPolicy,
        clock: Clock,
        rng: Random,
        *,
        listeners: Iterable[Any] = (),
        storage: Callable[[str], Any] | None = None,
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._rng = rng
        self._listeners = tuple(GuardedListener(listener) for listener in listeners)
        self._storage = storage
        self._lock = threading.Lock()
        self._by_key: OrderedDict[str, Circuit] = OrderedDict()
        self.forgotten: deque[Change] = deque(maxlen=100)  # open ones, of which nobody was told yet

    def get(self, key: str) -> Circuit:
        """The circuit of a key, made when it is first asked for."""
        with self._lock:
            circuit = self._by_key.get(key)
            if circuit is not None:
                self._by_key.move_to_end(key)
                return circuit
            circuit = self._by_key[key] = Circuit(
                key,
                self.policy,
                self._clock,
                self._rng,
                listeners=self._listeners,
                storage=None if self._storage is None else self._storage(key),
            )
            self._forget_some()
            return circuit

    def _forget_some(self) -> None:
        excess = len(self._by_key) - self.policy.max_keys
        for closed in (True, False):  # an open one would be missed
            for key, circuit in list(self._by_key.items())[:-1]:
                if excess <= 0:
                    return
                if circuit.era.closed == closed and not circuit.busy:
                    del self._by_key[key]
                    excess -= 1
                    if not closed:  # what asks for it next finds a closed one
                        self.forgotten.append(Change(key, circuit.era.state, CLOSED, 0, None, "forgotten"))

    def take_changes(self, circuit: Circuit) -> list[Change]:
        """The changes of this circuit, and of those that were forgotten, that nobody was told of yet."""
        return [*take_all(self.forgotten), *circuit.take_changes()]

    @property
    def listener_failures(self) -> int:
        """How often a pybreaker listener raised."""
        return sum(listener.failures for listener in self._listeners)

    def worst(self) -> CircuitState:
        """The worst state of all keys: open, then half-open, then closed."""
        states = self.states()
        return OPEN if OPEN in states else HALF_OPEN if HALF_OPEN in states else CLOSED

    def states(self) -> list[CircuitState]:
        """The state of each circuit."""
        return [circuit.era.state for circuit in self._copy().values()]

    def snapshot(self) -> dict[str, dict[str, Any]]:
        return {key: circuit.snapshot() for key, circuit in self._copy().items()}

    def _copy(self) -> dict[str, Circuit]:
        with self._lock:
            return dict(self._by_key)
