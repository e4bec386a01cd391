"""The guide's Prometheus metrics.

Calls are counted once, as the caller saw them, when their body has ended; what happened inside is read
from the call object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport import errors
from aragora_transport._clock import SYSTEM
from aragora_transport._notes import ENOUGH
from aragora_transport.correlation import sampled_trace
from aragora_transport.events import (
    BodyFailed,
    CircuitChanged,
    Observers,
    RateLimitWaited,
    RetryRefused,
    RetryScheduled,
)
from aragora_transport.layers._layer import layers_of
from aragora_transport.layers._numbers import REFUSED, numbers_of
from aragora_transport.layers._watcher import Watcher
from aragora_transport.profile import PLAIN

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from aragora_transport._call import Attempt, Call
    from aragora_transport._clock import Clock
    from aragora_transport.events import Event
    from aragora_transport.layers._numbers import Tally
    from aragora_transport.profile import Profile

_ERROR_LABELS = {
    "CircuitOpenError": REFUSED,
    "RateLimitedError": "rate_limited",
    "TokenRefreshError": "no_token",
    "DeadlineExceededError": "timeout",
    "ConnectTimeout": "timeout",
    "ReadTimeout": "timeout",
    "WriteTimeout": "timeout",
    "PoolTimeout": "timeout",
    "ConnectError": "connect_error",
    "ReadError": "read_error",
    "WriteError": "read_error",
    "CloseError": "read_error",
    "RemoteProtocolError": "protocol_error",
    "LocalProtocolError": "protocol_error",
    "CancelledError": "cancelled",
    "Cancelled": "cancelled",
    "GeneratorExit": "cancelled",
}


class MetricsTransport(Watcher):
    """Counts calls, attempts, latencies, waits, retries, circuit states and rate-limit decisions.

    `registry`: a `prometheus_client.CollectorRegistry` (default prometheus_client's own). Several
    layers on one registry share one set of metrics. Nothing that fails here reaches a call;
    `platform_telemetry_errors_total` counts it.
    """

    def __init__(
        self,
        below: Any,
        *,
        registry: CollectorRegistry | None = None,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, profile=profile, platform=platform, clock=clock)
        self._numbers = numbers_of(registry)
        for layer in layers_of(below):
            circuits = getattr(layer, "circuits", None)  # of whichever layer has them
            if circuits is not None:
                self._numbers.watch(platform, circuits)
        self._numbers.show_circuits(platform, "closed")  # there from the start
        self.begun = self._numbers.begun(platform)
        self.hook = self._ended
        self.observer = Observers(self._observe)
        self._now = clock.monotonic
        # The calls that went straight through, by all that there is to count of them but their seconds.
        self._straight: dict[tuple[str, int | str | None, int], Tally] = {}
        self._tally = self._straight.get

    def failed(self, call: Call, error: BaseException) -> None:
        if call.straight and type(error) is self.flavor.CircuitOpenError:
            tally = self._tally((call.operation, REFUSED, call.gates_passed))
            if tally is not None:  # while a circuit is open most calls end here
                tally.append(call.ended - call.began)  # type: ignore[operator]  # it has ended
                if len(tally) > ENOUGH:
                    tally.take_in()
                return
        self._finish(call, error_label(error), error)

    def _ended(self, call: Call, error: BaseException | None, complete: bool) -> None:  # noqa: ARG002  # a hook
        if error is None and call.straight:
            tally = self._tally((call.operation, call.status, call.gates_passed))
            if tally is not None:
                tally.append(call.ended - call.began)  # type: ignore[operator]  # it has ended
                if len(tally) > ENOUGH:
                    tally.take_in()
                return
        if error is None and call.status is not None:
            self._finish(call, _status_label(call.status, call.hidden))
        else:
            self._finish(call, error_label(error), error)

    def _finish(self, call: Call, status: str, error: BaseException | None = None) -> None:
        try:
            self._count(call, status, error)
        except Exception:  # noqa: BLE001  # no failure of telemetry reaches a call
            self._telemetry_failed()

    def _telemetry_failed(self) -> None:
        try:
            self._numbers.add("platform_telemetry_errors_total", ("metrics",))
        except Exception:  # noqa: BLE001, S110  # then nothing can be counted any more
            pass

    def _count(self, call: Call, status: str, error: BaseException | None) -> None:
        numbers, platform = self._numbers, self._platform
        operation = numbers.name("operation", platform, call.operation)
        of_call = (platform, operation)
        numbers.ended(platform)
        numbers.add("platform_requests_total", (*of_call, status))
        trace = sampled_trace()
        numbers.observe("platform_request_latency_seconds", of_call, self._now() - call.began, trace)
        self._count_attempts(call, of_call, status, trace)
        if isinstance(error, errors.DeadlineExceededError):
            numbers.add("platform_deadline_exceeded_total", (platform, error.limit))
        if call.attempt > 1:
            numbers.add("platform_retry_total", of_call, call.attempt - 1)
            if status.isdigit() and int(status) < 400:  # not an HTTP error
                numbers.add("platform_retry_success_total", of_call)
        self._count_gates(call)
        straight = REFUSED if status == REFUSED else call.status
        if straight is not None and status == str(straight) and operation == call.operation:
            tally = numbers.tally(platform, operation, straight, call.gates_passed)
            if tally is not None:
                self._straight[operation, straight, call.gates_passed] = tally

    def _count_attempts(self, call: Call, of_call: tuple[str, str], status: str, trace: str | None) -> None:
        for attempt in call.history:
            self._count_attempt(of_call, _attempt_label(attempt), attempt.seconds, trace)
            if attempt.status is not None and attempt.error is not None:
                self._count_code(attempt.error)
            elif attempt.error == "DeadlineExceededError":  # the other limits end the call
                self._numbers.add("platform_deadline_exceeded_total", (self._platform, "attempt"))
        unsent = call.gated or call.tokenless or status == REFUSED
        if len(call.history) < call.attempt and not unsent:
            self._count_attempt(of_call, status, call.attempt_seconds, trace)
            if call.hidden is not None:
                self._count_code(call.hidden)

    def _count_attempt(
        self, of_call: tuple[str, str], status: str, seconds: float, trace: str | None
    ) -> None:
        self._numbers.add("platform_attempts_total", (*of_call, status))
        self._numbers.observe("platform_attempt_latency_seconds", of_call, seconds, trace)

    def _count_code(self, code: str) -> None:
        """The platform's own code of a failure."""
        named = self._numbers.name("code", self._platform, code)
        self._numbers.add("platform_api_errors_total", (self._platform, named))

    def _count_gates(self, call: Call) -> None:
        # Those that were held and then let through are among the blocked; so is the one a gate holds yet.
        allowed = call.gates_passed - call.gates_blocked + call.gated
        if allowed:
            self._numbers.add("platform_rate_limit_total", (self._platform, "allowed"), allowed)
        if call.gates_blocked:
            self._numbers.add("platform_rate_limit_total", (self._platform, "blocked"), call.gates_blocked)

    def _observe(self, event: Event) -> None:
        try:
            self._count_event(event)
        except Exception:  # noqa: BLE001  # as in _finish
            self._telemetry_failed()

    def _count_event(self, event: Event) -> None:
        numbers, platform = self._numbers, self._platform
        if isinstance(event, CircuitChanged):
            numbers.add("platform_circuit_breaker_transitions_total", (platform, event.old, event.new))
            numbers.show_circuits(platform, event.worst)
        elif isinstance(event, RetryScheduled):
            source = "told" if event.told else "backoff"
            numbers.observe("platform_retry_delay_seconds", (platform, source), event.wait)
        elif isinstance(event, RetryRefused):
            numbers.add("platform_retry_refused_total", (platform, event.reason))
        elif isinstance(event, RateLimitWaited) and not event.refused:
            numbers.observe("platform_rate_limit_wait_seconds", (platform,), event.seconds)
        elif isinstance(event, BodyFailed):
            label = _ERROR_LABELS.get(event.error, "error")
            numbers.add("platform_body_failures_total", (platform, label))


def error_label(error: BaseException | None) -> str:
    """The `status` label of a call that ended in an error; one of a closed set."""
    if isinstance(error, errors.DeadlineExceededError) and error.limit == "total":
        return "deadline_exceeded"
    for kind in type(error).__mro__:
        label = _ERROR_LABELS.get(kind.__name__)
        if label is not None:
            return label
    return "error"


def _attempt_label(attempt: Attempt) -> str:
    if attempt.status is None:
        return _ERROR_LABELS.get(attempt.error or "", "error")
    return _status_label(attempt.status, attempt.error)


def _status_label(status: int, hidden: str | None) -> str:
    if hidden is not None:
        return "api_error"
    return str(status) if status < 600 else "other"  # a server may make up what it likes
