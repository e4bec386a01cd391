"""The limit on one attempt, and on the silence of its body.

The attempt limit is wall-clock time from here to the response headers: a server that sends a byte now
and then satisfies each of httpx's own timeouts for ever. Those are shortened to it as well, the only way
to interrupt a blocking client.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from aragora_transport._clock import SYSTEM
from aragora_transport._timeouts import Timeouts, cut_short, put_back, shortened
from aragora_transport.layers._layer import Layer, checked
from aragora_transport.policy import TimeoutPolicy
from aragora_transport.profile import PLAIN

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport.profile import Profile

_HTTPX_DEFAULT = 5.0  # seconds: httpx's own timeout, which nobody asked for
_NOTHING_YET = object()  # equal to no timeouts
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
        # An alarm can only be put off: to go on for the body, whose limit must not be the shorter one.
        self._goes_on = not clock.manual and (policy.attempt or 0.0) <= (policy.body_idle or 0.0)
        # A client sends the same timeouts every time: what follows from the last ones is kept.
        self._usual: tuple[Any, float, float | None] = (_NOTHING_YET, 0.0, None)

    async def handle(self, request: Any, call: Call) -> Any:
        usual, seconds, call.idle = self._usual
        due = call.scope.now() + seconds
        if (
            request.extensions.get("timeout") != usual
            or (call.chosen is not None and call.chosen.attempt_timeout is not None)
            or (call.deadline is not None and call.deadline <= due)
        ):
            return await self._unusual(request, call)
        alarm = call.scope.alarms.start(due)
        try:
            response = await self.next(request, call)
        except BaseException as error:
            if alarm.stop(error):
                raise call.too_late(self.flavor, "attempt", seconds) from None
            raise
        if alarm.rang or not self._goes_on:
            alarm.stop()
        else:
            alarm.task = None  # at rest, until it goes on as that of the body
            call.alarm = alarm
        return response

    async def _unusual(self, request: Any, call: Call) -> Any:
        """With other timeouts than the last request, options, or a deadline that comes first."""
        theirs: Timeouts | None = request.extensions.get("timeout")
        seconds, call.idle = self._limits(request, call)
        due = _due(call, seconds)
        ours = due is not None and due != call.deadline  # else the deadline's own layer speaks
        if due is not None:
            clamped = shortened(theirs, due - call.scope.now())
            if clamped is not None:
                request.extensions["timeout"] = clamped
            elif self._is_usual(call) and seconds is not None:
                self._usual = (copy(theirs), seconds, call.idle)
        alarm = None
        if due is not None and ours:
            alarm = call.alarms.start(due)
        try:
            response = await self.next(request, call)
        except BaseException as error:
            if alarm is not None and alarm.stop(error):
                raise call.too_late(self.flavor, "attempt", seconds) from None
            if due is not None and ours and cut_short(error, due, call, self.flavor):
                raise call.too_late(self.flavor, "attempt", seconds) from error
            raise
        finally:
            put_back(request.extensions, theirs)
        if alarm is not None:
            alarm.stop()
        return response

    def _is_usual(self, call: Call) -> bool:
        """Whether the next request with the same timeouts has the same limits."""
        return call.options.attempt_timeout is None and self._profile.long_poll is None

    def _limits(self, request: Any, call: Call) -> tuple[float | None, float | None]:
        """The attempt limit and the idle limit that hold for this request."""
        attempt, idle = self.policy.attempt, self.policy.body_idle
        chosen = _chosen(request.extensions.get("timeout"))
        poll = None if self._profile.long_poll is None else self._profile.long_poll(request)
        polls = 0.0 if poll is None else poll + LONG_POLL_MARGIN
        if attempt is not None:
            attempt = max(attempt, polls, *chosen.values())
        if idle is not None:
            idle = max(idle, polls, chosen.get("read", 0.0))
        return call.options.attempt_timeout or attempt, idle


def _due(call: Call, seconds: float | None) -> float | None:
    """When the attempt must be over: its own limit or the call's deadline, whichever is first."""
    if seconds is None:
        return call.deadline
    due = call.scope.now() + seconds
    return due if call.deadline is None or due < call.deadline else call.deadline


def _chosen(timeouts: Timeouts | None) -> dict[str, float]:
    """What somebody chose, by phase. `None` chooses no length, and waiting for the pool is no sending."""
    return {
        phase: seconds
        for phase, seconds in (timeouts or {}).items()
        if seconds is not None and seconds != _HTTPX_DEFAULT and phase != "pool"
    }
