"""The circuit: after enough failures the platform is left alone for a while, then probed.

Attempts are what is counted, each once: closed, when its body has ended; half-open, at the headers, so
that a stream as the probe holds nobody up.
"""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING, Any

from aragora_transport._body import watch
from aragora_transport._call import CALL
from aragora_transport._circuit import CLOSED, Circuits
from aragora_transport._clock import SYSTEM
from aragora_transport.events import CircuitChanged
from aragora_transport.layers._layer import Layer
from aragora_transport.policy import BreakerPolicy
from aragora_transport.profile import PLAIN, judge

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pybreaker

    from aragora_transport._call import Call
    from aragora_transport._circuit import Circuit, Era
    from aragora_transport._clock import Clock
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
        self.policy = policy
        self._profile = profile
        self.circuits = circuits or Circuits(
            policy,
            clock,
            rng or random.Random(),  # noqa: S311  # jitter, not secrets
            listeners=listeners,
        )

    async def handle_async_request(self, request: Any) -> Any:
        call: Call | None = request.extensions.get(CALL)
        if call is None:
            return await self._alone(request)
        circuit = self._circuit(request, call)
        permit = circuit.admit()
        if circuit.changes:
            self._tell(circuit, call)
        if permit is None:
            raise self._refusal(circuit, request, call)
        began = call.clock.monotonic()
        try:
            response = await self.below.handle_async_request(request)
            if response.status_code >= 400 or not self._profile.plain:  # noqa: PLR2004  # an HTTP error
                judged = await judge(self._profile, response, call, self.flavor)
                verdict, wait = judged.verdict, judged.wait
            else:
                verdict, wait = "success", None
        except BaseException as error:
            self._settle_error(circuit, permit, call, error)
            raise
        slow = self.policy.slow_call
        cause = str(response.status_code)
        if slow is not None and verdict == "success" and call.clock.monotonic() - began > slow:
            verdict, cause = "failure", f"{cause} after more than {slow:g} s"
        if verdict == "failure":
            if response.status_code == 503 and wait is not None:  # noqa: PLR2004  # Service Unavailable
                circuit.hold(wait)
            circuit.failure(permit, cause)
            self._after_failure(circuit, call)
        elif verdict == "neither":
            circuit.neither(permit)
        else:
            settled = permit.state != CLOSED
            if settled:
                circuit.success(permit)
                if circuit.changes:
                    self._tell(circuit, call)
            hook = functools.partial(self._body_ended, circuit, permit, settled)
            watch(response, call, self.flavor).on_end(hook)
        return response

    def _body_ended(
        self,
        circuit: Circuit,
        permit: Era,
        settled: bool,
        call: Call,
        error: BaseException | None,
        complete: bool,
    ) -> None:
        if complete:
            if not settled:
                circuit.success(permit)
        elif isinstance(error, self.flavor.TransportError):
            circuit.failure(permit, f"{type(error).__name__} in the body", error, settled=settled)
            self._after_failure(circuit, call)
        # Else the caller closed the body early, or was cancelled: that says nothing of the platform.

    def _settle_error(self, circuit: Circuit, permit: Era, call: Call, error: BaseException) -> None:
        if self._is_failure(call, error):
            name = "deadline" if not isinstance(error, Exception) else type(error).__name__
            circuit.failure(permit, name, error if isinstance(error, Exception) else None)
            self._after_failure(circuit, call)
        else:
            circuit.neither(permit)

    def _is_failure(self, call: Call, error: BaseException) -> bool:
        flavor = self.flavor
        if isinstance(error, flavor.TransportError):
            return not isinstance(error, (*flavor.local, flavor.PoolTimeout))
        # A call whose deadline ran out while the platform kept silent is cancelled from above.
        return (
            not isinstance(error, Exception)
            and call.deadline is not None
            and call.clock.monotonic() >= call.deadline
        )

    def _after_failure(self, circuit: Circuit, call: Call) -> None:
        call.interrupter = circuit  # a retry that waits now is woken when the circuit opens
        if circuit.changes:
            self._tell(circuit, call)

    def _circuit(self, request: Any, call: Call) -> Circuit:
        key = self.policy.key
        if key == "platform":
            return self.circuits.get(call.platform)
        return self.circuits.get(request.url.host if key == "host" else call.operation)

    def _refusal(self, circuit: Circuit, request: Any, call: Call) -> Exception:
        call.interrupter = circuit
        return self.flavor.CircuitOpenError(
            platform=call.platform,
            operation=call.operation,
            key=circuit.key,
            retry_after=circuit.refusing() or 0.0,
            failures=circuit.failures_when_opened,
            cause=circuit.cause,
            request=request,
        )

    def _tell(self, circuit: Circuit, call: Call) -> None:
        for change in circuit.take_changes():
            call.emit(CircuitChanged, worst=self.circuits.worst(), **change._asdict())
