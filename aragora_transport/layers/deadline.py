"""The limit on a whole call: waits, every attempt, backoff and the body.

The time is written on the call, where the layers below read it: none of them begins a wait or an
attempt that cannot end in time. The alarm here is for what was under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._clock import SYSTEM
from aragora_transport._timeouts import cut_short
from aragora_transport.layers._layer import Layer, checked
from aragora_transport.policy import TimeoutPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport._scope import Entry


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
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self.policy = checked("DeadlineTransport(policy=...)", policy, TimeoutPolicy)
        self._total = self.policy.total

    def entry(self) -> Entry:
        entry = super().entry()
        # Where the policy sets no limit, there is one only for calls that choose one.
        return entry if self._total is not None else entry._replace(handle=self.next)

    def handle(self, request: Any, call: Call) -> Awaitable[Any]:
        total = self._total
        if call.chosen is not None:
            total = call.chosen.total_timeout or total
        if total is None:
            return self.next(request, call)  # not awaited here: there is nothing to do afterwards
        return self._within(total, request, call)

    async def _within(self, total: float, request: Any, call: Call) -> Any:
        call.total = total
        call.deadline = deadline = call.began + total
        alarm = call.alarms.start(deadline)
        try:
            response = await self.next(request, call)
        except BaseException as error:
            if alarm.stop(error):
                raise call.too_late(self.flavor, "total", total) from None
            if cut_short(error, deadline, call, self.flavor):
                raise call.too_late(self.flavor, "total", total) from error
            raise
        alarm.stop()
        return response
