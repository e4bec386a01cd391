"""The limit on one attempt, and on the silence of its body.

The attempt limit is wall-clock time from here to the response headers: a server that sends a byte now
and then satisfies each of httpx's own timeouts for ever. Those are shortened to it as well, the only way
to interrupt a blocking client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._alarm import Alarms
from aragora_transport._body import watch
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
        alarms: Alarms | None = None,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self.policy = checked("TimeoutTransport(policy=...)", policy, TimeoutPolicy)
        self._profile = profile
        self._alarms = alarms or Alarms(clock)

    async def handle_async_request(self, request: Any) -> Any:
        call: Call | None = request.extensions.get(CALL)
        if call is None:
            return await self._alone(request, TimeoutTransport.handle_async_request)
        seconds, idle = self._limits(request, call)
        theirs = request.extensions.get("timeout")
        due = self._due(call, seconds)
        if due is not None:
            _clamp(request, theirs, due - call.clock.monotonic())
        try:
            response = await self._send(request, call, seconds, due)
        finally:
            if theirs is not None:
                request.extensions["timeout"] = theirs
            else:
                request.extensions.pop("timeout", None)  # ours, or the next attempt takes it for theirs
        body = watch(response, call, self.flavor)
        body.idle, body.alarms = idle, self._alarms
        if call.blocking:
            body.extensions = request.extensions
        return response

    async def _send(self, request: Any, call: Call, seconds: float | None, due: float | None) -> Any:
        if due is None or call.blocking:
            try:
                return await self.below.handle_async_request(request)
            except self.flavor.TimeoutException as error:
                # One of httpx's phases ended because it had been shortened to what was left.
                if due is None or call.clock.monotonic() < due or due == call.deadline:
                    raise
                raise self._too_late(call, seconds) from error
        if due == call.deadline:
            return await self.below.handle_async_request(request)  # the deadline layer's alarm is set
        alarm = self._alarms.start(due)
        try:
            response = await self.below.handle_async_request(request)
        except BaseException as error:
            if alarm.stop(error):
                raise self._too_late(call, seconds) from None
            if isinstance(error, self.flavor.TimeoutException) and call.clock.monotonic() >= due:
                raise self._too_late(call, seconds) from error  # a phase that had been shortened rang first
            raise
        alarm.stop()
        return response

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

    @staticmethod
    def _due(call: Call, seconds: float | None) -> float | None:
        """When the attempt must be over: its own limit or the call's deadline, whichever is first."""
        if seconds is None:
            return call.deadline
        due = call.clock.monotonic() + seconds
        return due if call.deadline is None or due < call.deadline else call.deadline

    def _too_late(self, call: Call, seconds: float | None) -> Exception:
        return self.flavor.DeadlineExceededError(
            platform=call.platform,
            operation=call.operation,
            limit="attempt",
            seconds=seconds or 0.0,
            attempt=call.attempt,
            elapsed=call.clock.monotonic() - call.began,
            last=call.last_outcome,
        )


def _explicit(timeouts: dict[str, float | None] | None) -> float:
    """The read timeout that somebody chose, else 0. `None` chooses no length, so it raises no limit."""
    read = None if timeouts is None else timeouts.get("read")
    return 0.0 if read is None or read == _HTTPX_DEFAULT else read


def _clamp(request: Any, timeouts: dict[str, float | None] | None, left: float) -> None:
    """Shorten each of httpx's timeouts to what is left; put in a new dict, the old one is the caller's."""
    left = max(0.001, left)
    if timeouts is None:
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"))
    for limit in timeouts.values():
        if limit is None or limit > left:
            request.extensions["timeout"] = {
                phase: left if limit is None or limit > left else limit for phase, limit in timeouts.items()
            }
            return
