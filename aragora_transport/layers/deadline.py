"""The limit on a whole call: waits, every attempt, backoff and the body.

The time is written on the call, where the layers below read it: none of them begins a wait or an
attempt that cannot end in time. The alarm here is for what was under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._alarm import Alarms
from aragora_transport._body import watch
from aragora_transport._call import CALL
from aragora_transport._clock import SYSTEM
from aragora_transport.layers._layer import Layer, checked
from aragora_transport.policy import TimeoutPolicy

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._clock import Clock


class DeadlineTransport(Layer):
    """Ends a call after `policy.total` seconds, or what `call_options(total_timeout=...)` says.

    Raises `DeadlineExceededError`, an `httpx.TimeoutException`. Under a blocking client time is checked
    before every wait, attempt and chunk, and httpx's own timeouts are shortened to what is left; a peer
    that sends a byte now and then inside one phase can exceed it.
    """

    def __init__(
        self,
        below: Any,
        *,
        policy: TimeoutPolicy = TimeoutPolicy(),
        alarms: Alarms | None = None,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self.policy = checked("DeadlineTransport(policy=...)", policy, TimeoutPolicy)
        self._alarms = alarms or Alarms(clock)

    async def handle_async_request(self, request: Any) -> Any:
        call: Call | None = request.extensions.get(CALL)
        if call is None:
            return await self._alone(request, DeadlineTransport.handle_async_request)
        total = call.options.total_timeout or self.policy.total
        if total is None:
            return await self.below.handle_async_request(request)
        call.total = total
        call.deadline = call.began + total
        if call.blocking:
            response = await self._blocking(request, call)
        else:
            response = await self._within(request, call)
        body = watch(response, call, self.flavor)
        body.alarms = self._alarms
        if call.blocking:
            body.extensions = request.extensions
        return response

    async def _within(self, request: Any, call: Call) -> Any:
        assert call.deadline is not None  # noqa: S101  # set above; for the type checker
        alarm = self._alarms.start(call.deadline)
        try:
            response = await self.below.handle_async_request(request)
        except BaseException as error:
            if alarm.stop(error):
                raise self._too_late(call) from None
            if self._ran_out(call, error):
                raise self._too_late(call) from error
            raise
        alarm.stop()
        return response

    async def _blocking(self, request: Any, call: Call) -> Any:
        assert call.deadline is not None  # noqa: S101  # set above; for the type checker
        try:
            return await self.below.handle_async_request(request)
        except self.flavor.TimeoutException as error:
            if self._ran_out(call, error):
                raise self._too_late(call) from error
            raise

    def _ran_out(self, call: Call, error: BaseException) -> bool:
        """Whether one of httpx's phases ended because it had been shortened to what was left."""
        assert call.deadline is not None  # noqa: S101  # as above
        return (
            isinstance(error, self.flavor.TimeoutException)
            and not isinstance(error, self.flavor.DeadlineExceededError)
            and call.clock.monotonic() >= call.deadline
        )

    def _too_late(self, call: Call) -> Exception:
        return self.flavor.DeadlineExceededError(
            platform=call.platform,
            operation=call.operation,
            limit="total",
            seconds=call.total or 0.0,
            attempt=call.attempt,
            elapsed=call.clock.monotonic() - call.began,
            last=call.last_outcome,
        )
