"""A whole stack as its users hold it: what it tells of itself, and its circuits by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._describe import describe_layer, worst_case_seconds, worst_case_sends
from aragora_transport._scope import CallScope
from aragora_transport.events import CircuitChanged
from aragora_transport.layers._layer import entry_of, layers_of
from aragora_transport.sync import Driver

if TYPE_CHECKING:
    from aragora_transport._credentials import Secret
    from aragora_transport._tokens import TokenSource
    from aragora_transport.events import Observers
    from aragora_transport.layers import Tracing
    from aragora_transport.policy import Policy
    from aragora_transport.state import State


class Stack(CallScope):
    """A transport with the whole stack in it, as `resilient()` returns it."""

    def __init__(
        self,
        top: Any,
        *,
        policy: Policy,
        state: State,
        platform: str,
        users: Observers,
        auth: TokenSource | None,
        credentials: tuple[Secret, ...],
        tracing: Tracing | None,
    ) -> None:
        super().__init__(
            top,
            entry_of(top),
            platform=platform,
            clock=state.clock,
            alarms=state.alarms,
            users=users,
        )
        self.policy = policy
        self.state = state
        self.credentials = credentials
        self._auth = auth
        self._tracing = tracing

    def describe(self) -> dict[str, Any]:
        """What this stack will do, JSON-able.

        `layers`, outermost first, with the values that hold; `worst_case_sends` and
        `worst_case_seconds` of one call, to the headers (`None` where nothing bounds it);
        `credentials`, each placeholder with the origins that its secret goes to.
        """
        replays = self._auth is not None and self._auth.refreshes
        return {
            "platform": self.platform,
            "flavor": self.flavor.name,
            "layers": [describe_layer(layer) for layer in layers_of(self.top)],
            "worst_case_sends": worst_case_sends(self.policy, replays=replays),
            "worst_case_seconds": worst_case_seconds(self.policy, replays=replays),
            "credentials": {secret.placeholder: secret.destinations for secret in self.credentials},
        }

    def circuits(self) -> dict[str, dict[str, Any]]:
        """Each circuit by key: `state`, `failures`, `next_probe_in` seconds, `cause`."""
        return {} if self.state.circuits is None else self.state.circuits.snapshot()

    def isolate(self, key: str | None = None) -> None:
        """Open the circuit of a key (default: the platform's) by hand, until `reset()`."""
        circuit = self._circuit(key)
        circuit.isolate()
        self._tell(circuit)

    def reset(self, key: str | None = None) -> None:
        """Close the circuit of a key (default: the platform's) by hand, and forget its failures."""
        circuit = self._circuit(key)
        circuit.reset()
        self._tell(circuit)

    def record(self, *, failure: str | None = None, key: str | None = None) -> None:
        """Tell the circuit of a key (default: the platform's) of what was not sent through this stack.

        `failure`: why it failed, such as `"ReadTimeout"`; `None` for a success. What comes while the
        circuit refuses does not count.
        """
        circuit = self._circuit(key)
        permit = circuit.admit()
        if permit is not None and failure is None:
            circuit.success(permit)
        elif permit is not None:
            circuit.failure(permit, failure)
        self._tell(circuit)

    @property
    def observer_failures(self) -> int:
        """How often an observer, ours or a user's, a listener of a circuit, or a tracer raised."""
        circuits = self.state.circuits
        listeners = 0 if circuits is None else circuits.listener_failures
        tracers = 0 if self._tracing is None else self._tracing.failures
        return listeners + tracers + sum(observer.failures for observer in self.observers)

    def _circuit(self, key: str | None) -> Any:
        if self.state.circuits is None:
            raise ValueError(f"{self.platform} has no circuit: its policy says breaker=None")
        return self.state.circuits.get(key or self.platform)

    def _tell(self, circuit: Any) -> None:
        assert self.state.circuits is not None  # noqa: S101  # _circuit() has raised otherwise
        for change in self.state.circuits.take_changes(circuit):
            event = CircuitChanged(
                platform=self.platform,
                operation="-",
                correlation_id="-",
                attempt=0,
                worst=self.state.circuits.worst(),
                **change._asdict(),
            )
            for observer in self.observers:
                observer(event)


class BlockingStack(Driver):
    """The same for a blocking client, as `resilient_sync()` returns it."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.stack = stack
        self.describe = stack.describe
        self.circuits = stack.circuits
        self.isolate = stack.isolate
        self.reset = stack.reset
        self.record = stack.record
        self.state = stack.state

    @property
    def observer_failures(self) -> int:
        """How often an observer, ours or a user's, a listener of a circuit, or a tracer raised."""
        return self.stack.observer_failures
