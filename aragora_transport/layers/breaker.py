"""The circuit: after enough failures the platform is left alone for a while, then probed.

Attempts are what is counted, each once: closed, when its body has ended; half-open, at the headers, so
that a stream as the probe holds nobody up.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from aragora_transport._circuits import Circuits
from aragora_transport._clock import SYSTEM
from aragora_transport._notes import ENOUGH
from aragora_transport.events import CircuitChanged
from aragora_transport.layers._layer import Layer, checked
from aragora_transport.policy import BreakerPolicy
from aragora_transport.profile import FAILURE, PLAIN, judge

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pybreaker

    from aragora_transport._call import Call, Hook
    from aragora_transport._circuit import Circuit
    from aragora_transport._clock import Clock
    from aragora_transport._era import Permit
    from aragora_transport._notes import Notes
    from aragora_transport.profile import Profile


class BreakerTransport(Layer):
    """Refuses attempts while the circuit of their key is open; see `BreakerPolicy` for when that is.

    Raises `CircuitOpenError`, an `httpx.TransportError`. `listeners` are pybreaker's; one that raises
    changes nothing.
    """

    def __init__(
        self,
        below: Any,
        *,
        policy: BreakerPolicy = BreakerPolicy(),
        circuits: Circuits | None = None,
        listeners: Iterable[pybreaker.CircuitBreakerListener] = (),
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self.policy = checked("BreakerTransport(policy=...)", policy, BreakerPolicy)
        self._profile = profile
        # Lower statuses say nothing before the body's end: HTTP's errors begin there, or all are judged.
        self._fine_below = 400 if profile.plain and policy.slow_call is None else 0
        self.circuits = circuits or Circuits(
            policy,
            clock,
            rng or random.Random(),  # noqa: S311  # jitter, not secrets
            listeners=listeners,
        )
        self._only = self.circuits.get(platform) if policy.key == "platform" else None

    async def handle(self, request: Any, call: Call) -> Any:
        circuit = self._only
        if circuit is None:
            circuit = self._circuit(request, call)
        permit: Permit = circuit.era
        hooks = permit.hooks
        if not hooks:  # it is not closed, or this is the first attempt since it is
            permit, hooks = self._admit(circuit, request, call)
        try:
            response = await self.next(request, call)
            if hooks and response.status_code < self._fine_below:
                call.hooks = hooks + call.hooks
                return response
            await self._settle(circuit, permit, request, call, response)
        except BaseException as error:
            call.interrupter = circuit
            self._settle_error(circuit, permit, call, error)
            raise
        return response

    async def _settle(
        self, circuit: Circuit, permit: Permit, request: Any, call: Call, response: Any
    ) -> None:
        """At the headers: a failure and a probe; an ordinary success when its body has ended."""
        call.interrupter = circuit  # a retry that waits now is woken when the circuit opens
        judged = await judge(self._profile, response, call, self.flavor)
        kept = self._kept(request)
        cause = judged.hidden(response.status_code) or str(response.status_code)
        slow = self.policy.slow_call
        if slow is not None and judged.verdict == "success" and call.attempt_seconds > slow + kept:
            judged, cause = FAILURE, f"{cause} after more than {slow:g} s"
        if judged.verdict == "failure":
            if response.status_code == 503 and judged.wait is not None:  # Service Unavailable
                circuit.hold(judged.wait)
            self._failed(circuit, permit, call, cause)
        elif judged.verdict == "neither":
            circuit.neither(permit)
        else:
            if not permit.closed:
                circuit.success(permit)
                if circuit.changes:
                    self._tell(circuit, call)
            call.hooks = (permit.hooks or self._hooks(circuit, permit)) + call.hooks

    def _kept(self, request: Any) -> float:
        """Seconds that a platform may keep a long poll without being slow."""
        long_poll = None if self.policy.slow_call is None else self._profile.long_poll
        return (None if long_poll is None else long_poll(request)) or 0.0

    def _admit(self, circuit: Circuit, request: Any, call: Call) -> tuple[Permit, tuple[Hook, ...]]:
        """A permit, and what is told how the body of an ordinary success ended."""
        left = circuit.era.reopens_at - circuit.now()
        if left > 0 and not (circuit.shared or circuit.changes):  # nor need the circuit be asked
            raise self._refusal(circuit, request, call, left)
        long_poll = self._profile.long_poll
        permit = circuit.admit(poll=long_poll is not None and long_poll(request) is not None)
        if circuit.changes:
            self._tell(circuit, call)
        if permit is None:
            raise self._refusal(circuit, request, call, circuit.refusing() or 0.0)
        if not permit.closed:
            return permit, ()  # whatever comes is looked at
        hooks = self._hooks(circuit, permit)
        if permit.free:
            permit.hooks = hooks  # the next attempts need not ask to be let through
        return permit, hooks

    def _hooks(self, circuit: Circuit, permit: Permit) -> tuple[Hook, ...]:
        """What is told how a body ended; the same for all that a closed circuit lets through."""
        ended: Hook = partial(self._body_ended, circuit, permit)
        return (ended if circuit.noted is None else _noting(circuit, permit, circuit.noted, ended),)

    def _body_ended(
        self, circuit: Circuit, permit: Permit, call: Call, error: BaseException | None, complete: bool
    ) -> None:
        if complete and permit.closed:  # else it was settled at the headers
            circuit.success(permit)
        elif isinstance(error, (self.flavor.TransportError, call.scope.flavor.TransportError)):
            # Stacks of both flavours may share a circuit, and with it the hook of whoever came first.
            cause = f"{type(error).__name__} in the body"
            self._failed(circuit, permit, call, cause, error)
        # Else the caller closed the body early, or was cancelled: that says nothing of the platform.

    def _failed(
        self,
        circuit: Circuit,
        permit: Permit,
        call: Call,
        cause: str,
        error: Exception | None = None,
    ) -> None:
        circuit.failure(permit, cause, error)
        if circuit.changes:
            self._tell(circuit, call)

    def _settle_error(self, circuit: Circuit, permit: Permit, call: Call, error: BaseException) -> None:
        if self._is_failure(call, error):
            name = "deadline" if not isinstance(error, Exception) else type(error).__name__
            self._failed(circuit, permit, call, name, error if isinstance(error, Exception) else None)
        else:
            circuit.neither(permit)

    def _is_failure(self, call: Call, error: BaseException) -> bool:
        flavor = self.flavor
        if isinstance(error, flavor.TransportError):
            ours = (flavor.CircuitOpenError, flavor.RateLimitedError)  # of a layer below: nothing was sent
            return not isinstance(error, (*flavor.local, flavor.PoolTimeout, *ours))
        # A call whose deadline ran out while the platform kept silent is cancelled from above.
        return (
            not isinstance(error, Exception)
            and call.deadline is not None
            and call.scope.now() >= call.deadline
        )

    def _circuit(self, request: Any, call: Call) -> Circuit:
        """Where there is one for each host or operation."""
        circuit = self.circuits.get(request.url.host if self.policy.key == "host" else call.operation)
        if self.circuits.forgotten:
            self._tell(circuit, call)
        return circuit

    def _refusal(self, circuit: Circuit, request: Any, call: Call, left: float) -> Exception:
        return self.flavor.CircuitOpenError(
            call.scope.platform,
            call.operation,
            circuit.key,
            left,
            circuit.failures_when_opened,
            circuit.cause,
            request,
        )

    def _tell(self, circuit: Circuit, call: Call) -> None:
        for change in self.circuits.take_changes(circuit):
            call.emit(CircuitChanged, worst=self.circuits.worst(), **change._asdict())


def _noting(circuit: Circuit, permit: Permit, noted: Notes, otherwise: Hook) -> Hook:
    """A hook that only notes a success: what `Circuit.success` would come to, without its lock."""

    def ended(call: Call, error: BaseException | None, complete: bool) -> None:
        if complete and circuit.era is permit and len(noted) < ENOUGH:
            noted.append(call.ended)  # type: ignore[arg-type]  # it has ended
        else:
            otherwise(call, error, complete)

    return ended
