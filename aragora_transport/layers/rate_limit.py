"""The gate: after a 429 nobody knocks again before the told time, whoever was told.

Waits happen here, before a circuit's permit is taken and outside of the attempt limit: a call that
waits its turn must not own the probe, nor be charged as the platform's slowness.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from aragora_transport._clock import SYSTEM
from aragora_transport._gate import Gates
from aragora_transport.events import RateLimitWaited
from aragora_transport.layers._layer import Layer, checked
from aragora_transport.policy import RateLimitPolicy
from aragora_transport.profile import PLAIN, Bucket, judge

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport._gate import Gate
    from aragora_transport.profile import Profile

_IN_TIME = 0.005  # seconds before its deadline that a call gives up: a refusal leaves it the outcome it had


class RateLimitTransport(Layer):
    """Closes the gate of a bucket for the time that a 429 tells; holds every caller of it until then.

    The bucket is `call_options(rate_key=...)`, else the profile's key, else the platform.
    Raises `RateLimitedError`, an `httpx.TransportError`, at once when the wait would be longer than
    `max_retry_after` seconds (default 60) or the call's deadline, or when `policy.max_waiters` wait.
    """

    def __init__(
        self,
        below: Any,
        *,
        policy: RateLimitPolicy = RateLimitPolicy(),
        gates: Gates | None = None,
        max_retry_after: float = 60.0,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self.policy = checked("RateLimitTransport(policy=...)", policy, RateLimitPolicy)
        self._max_wait = max_retry_after
        self._profile = profile
        self._plain = profile.plain
        self._looks = profile.rate_key is not None or policy.rate is not None
        self._gates = gates if gates is not None else Gates(clock, rng or random.Random(), policy)  # noqa: S311  # jitter

    async def handle(self, request: Any, call: Call) -> Any:
        # With one bucket, no rate to keep and no 429 yet there is no gate to look for.
        if self._gates or self._looks or call.options.rate_key is not None:
            key = self._key(request, call)
            await self._pass(key, request, call)
        else:
            key = self._platform
        call.gates_passed += 1
        response = await self.next(request, call)
        if response.status_code == 429 or not self._plain:  # Too Many Requests
            judged = await judge(self._profile, response, call, self.flavor)
            if judged.limited and judged.wait is not None:
                call.gate_opens = self._gates.shut(key, judged.wait)
        return response

    async def _pass(self, key: str, request: Any, call: Call) -> None:
        gate = self._gates.find(key)
        if gate is not None and not gate.enter():
            call.gated = True  # until it is let through
            await self._wait(gate, key, request, call)
            call.gated = False

    def _key(self, request: Any, call: Call) -> str:
        if call.options.rate_key is not None:
            return call.options.rate_key
        rate_key = self._profile.rate_key
        key = (rate_key(request) if rate_key is not None else None) or self._platform
        first = key[0] if isinstance(key, tuple) else key
        return first.key if isinstance(first, Bucket) else first

    async def _wait(self, gate: Gate, key: str, request: Any, call: Call) -> None:
        began = call.clock.monotonic()
        call.gates_blocked += 1
        reason = self._too_long(gate, call)
        if reason is None and gate.waiters >= self.policy.max_waiters:
            reason = "queue_full"
        if reason is None:
            if await gate.wait(
                blocking=call.blocking,
                deadline=None if call.deadline is None else call.deadline - _IN_TIME,
                longest=self._max_wait,
                interrupter=call.interrupter,
            ):
                call.attempt_began = call.clock.monotonic()  # the wait is not charged as its slowness
                waited = call.attempt_began - began
                call.emit(RateLimitWaited, key=key, seconds=waited, refused=False)
                return
            reason = self._too_long(gate, call) or "deadline"
        left = max(0.0, gate.turn_at - call.clock.monotonic())
        call.emit(RateLimitWaited, key=key, seconds=left, refused=True)
        raise self.flavor.RateLimitedError(
            platform=call.platform,
            operation=call.operation,
            key=key,
            retry_after=left,
            reason=reason,
            request=request,
        )

    def _too_long(self, gate: Gate, call: Call) -> str | None:
        now = call.clock.monotonic()
        if gate.turn_at - now > self._max_wait:
            return "wait_too_long"
        if call.deadline is not None and max(now, gate.turn_at) >= call.deadline:
            return "deadline"
        return None
