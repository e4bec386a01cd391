"""The limit on one attempt, and on the silence of its body.

The attempt limit is wall-clock time from here to the response headers: a server that sends a byte now
and then satisfies each of httpx's own timeouts for ever. Those are shortened to it as well, the only way
to interrupt a blocking client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._alarm import TaskAlarm
from aragora_transport._call import CALL
from aragora_transport._clock import SYSTEM
from aragora_transport.layers._layer import Layer, checked
from aragora_transport.policy import TimeoutPolicy
from aragora_transport.profile import PLAIN

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport.profile import Profile

_HTTPX_DEFAULT = 5.0  # seconds: httpx's own timeout, which nobody asked for
LONG_POLL_MARGIN = 10.0  # seconds that an answer may take beyond the time the platform was asked to wait


class TimeoutTransport(Layer):
    """Ends an attempt after `policy.attempt` seconds, and a body after `policy.body_idle` of silence.

    Raises `DeadlineExceededError`, an `httpx.TimeoutException`. An explicit longer httpx timeout of the
    request, or its profile's long-poll time, raises both limits for it.
    """

    def __init__(
        self,
        below: Any,
        *,
        policy: TimeoutPolicy = TimeoutPolicy(),
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self.policy = checked("TimeoutTransport(policy=...)", policy, TimeoutPolicy)
        self._profile = profile
        # A client sends the same timeouts every time: what follows from the last ones is kept.
        self._usual = (None, policy.attempt, policy.body_idle)

    async def handle_async_request(self, request: Any) -> Any:
        extensions = request.extensions
        call: Call | None = extensions.get(CALL)
        if call is None:
            return await self._alone(request, TimeoutTransport.handle_async_request)
        usual, seconds, call.idle = self._usual
        if (
            extensions.get("timeout") != usual
            or usual is None
            or seconds is None
            or call.options.attempt_timeout is not None
            or call.deadline is not None
            or call.blocking
            or self._profile.long_poll is not None
        ):
            return await self._unusual(request, call)
        return await self._within(request, call, seconds, call.clock.monotonic() + seconds)

    async def _within(self, request: Any, call: Call, seconds: float, due: float) -> Any:
        alarm = call.alarms.start(due)
        try:
            response = await self.below.handle_async_request(request)
        except BaseException as error:
            if alarm.stop(error):
                raise call.too_late(self.flavor, "attempt", seconds) from None
            if isinstance(error, self.flavor.TimeoutException) and call.clock.monotonic() >= due:
                # A phase that had been shortened rang first.
                raise call.too_late(self.flavor, "attempt", seconds) from error
            raise
        if type(alarm) is not TaskAlarm or alarm.rang or call.idle is None or call.clock.manual:
            alarm.stop()
        else:
            alarm.task = None
            call.alarm = alarm
        return response

    async def _unusual(self, request: Any, call: Call) -> Any:
        """With other timeouts than the last request, options, a deadline or a blocking client."""
        theirs = request.extensions.get("timeout")
        seconds, call.idle = self._limits(request, call)
        due = _due(call, seconds)
        if due is not None:
            clamped = _clamp(theirs, due - call.clock.monotonic())
            if clamped is not None:
                request.extensions["timeout"] = clamped
            elif (
                call.options.attempt_timeout is None
                and call.deadline is None
                and seconds is not None
                and theirs is not None
            ):
                self._usual = (theirs.copy(), seconds, call.idle)
        try:
            if due is None or call.blocking:
                return await self._blocking(request, call, seconds, due)
            if seconds is None or due == call.deadline:
                return await self.below.handle_async_request(request)  # the deadline layer's alarm is set
            return await self._within(request, call, seconds, due)
        finally:
            if theirs is None:
                request.extensions.pop("timeout", None)
            else:
                request.extensions["timeout"] = theirs

    async def _blocking(self, request: Any, call: Call, seconds: float | None, due: float | None) -> Any:
        try:
            return await self.below.handle_async_request(request)
        except self.flavor.TimeoutException as error:
            # One of httpx's phases ended because it had been shortened to what was left?
            if due is None or call.clock.monotonic() < due or due == call.deadline:
                raise
            raise call.too_late(self.flavor, "attempt", seconds) from error

    def _limits(self, request: Any, call: Call) -> tuple[float | None, float | None]:
        """The attempt limit and the idle limit that hold for this request."""
        attempt, idle = self.policy.attempt, self.policy.body_idle
        longest = _explicit(request.extensions.get("timeout"))
        if self._profile.long_poll is not None:
            poll = self._profile.long_poll(request)
            if poll is not None:
                longest = max(longest, poll + LONG_POLL_MARGIN)
        if longest:
            attempt = None if attempt is None else max(attempt, longest)
            idle = None if idle is None else max(idle, longest)
        return call.options.attempt_timeout or attempt, idle


def _due(call: Call, seconds: float | None) -> float | None:
    """When the attempt must be over: its own limit or the call's deadline, whichever is first."""
    if seconds is None:
        return call.deadline
    due = call.clock.monotonic() + seconds
    return due if call.deadline is None or due < call.deadline else call.deadline


def _explicit(timeouts: dict[str, float | None] | None) -> float:
    """The read timeout that somebody chose, else 0. `None` chooses no length, so it raises no limit."""
    read = None if timeouts is None else timeouts.get("read")
    return 0.0 if read is None or read == _HTTPX_DEFAULT else read


def _clamp(timeouts: dict[str, float | None] | None, left: float) -> dict[str, float | None] | None:
    """Httpx's timeouts shortened to what is left, in a new dict; `None` where none is longer."""
    left = max(0.001, left)
    if timeouts is None:
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"))
    for limit in timeouts.values():
        if limit is None or limit > left:
            return {
                phase: left if limit is None or limit > left else limit for phase, limit in timeouts.items()
            }
    return None
