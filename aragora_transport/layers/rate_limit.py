"""The gate: after a 429 nobody knocks again before the told time, whoever was told.

Waits happen here, before a circuit's permit is taken and outside of the attempt limit: a call that
waits its turn must not own the probe, nor be charged as the platform's slowness.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from aragora_transport._clock import SYSTEM
from aragora_transport._gates import Gates
from aragora_transport._park import close
from aragora_transport._retry_after import quota_wait
from aragora_transport.events import RateLimitWaited
from aragora_transport.layers._layer import Layer, checked
from aragora_transport.policy import RateLimitPolicy
from aragora_transport.profile import PLAIN, Bucket, judge

if TYPE_CHECKING:
    from aragora_transport._call import Call, Hook
    from aragora_transport._clock import Clock
    from aragora_transport._gate import Gate
    from aragora_transport.profile import Profile

_IN_TIME = 0.005  # seconds before its deadline that a call gives up: a refusal leaves it the outcome it had
_LOOKS = 32  # answers without a word of a quota after which no more are looked at for one


class RateLimitTransport(Layer):
    """Closes the gate of a bucket for the time that a 429 tells; holds every caller of it until then.

    So does an answer that says that nothing is left of a quota. The buckets are
    `call_options(rate_key=...)`, else the profile's, else the platform as a whole. Raises
    `RateLimitedError`, an `httpx.TransportError`, at once when the wait would be longer than
    `max_retry_after` seconds (default 60), the call's deadline or its `max_gate_wait`, or when
    `policy.max_waiters` wait.
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
        self._gates = gates if gates is not None else Gates(clock, rng or random.Random(), policy)  # noqa: S311  # jitter
        self._counts_all = self._gates.keeps_all or policy.max_in_flight is not None
        self._looks: float = _LOOKS  # answers that are looked at yet for what is left of a quota
        self._heed_from = 0  # the least status that can tell anything: at last that of HTTP's errors
        self._everything = (Bucket(platform),)

    async def handle(self, request: Any, call: Call) -> Any:
        if self._counts_all:
            return await self._followed(request, call)
        if self._gates:  # else no gate is closed
            await self._pass(request, call)
        call.gates_passed += 1
        response = await self.next(request, call)
        if response.status_code >= self._heed_from:
            await self._heed(response, request, call)
        return response

    async def _followed(self, request: Any, call: Call) -> Any:
        """Where all requests are counted: those under way until the body has ended, however it does."""
        ended = self._end_of_flight(await self._pass(request, call))
        call.gates_passed += 1
        try:
            response = await self.next(request, call)
            await self._heed(response, request, call)
        except BaseException as error:
            ended(call, error, False)
            raise
        call.hooks = (ended, *call.hooks)
        return response

    def _end_of_flight(self, held: tuple[Gate, ...]) -> Hook:
        def ended(_call: Call, _error: BaseException | None, _complete: bool) -> None:
            nonlocal held
            gates, held = held, ()
            self._gates.leave(gates)

        return ended

    # --- before sending ---

    def _buckets(self, request: Any, call: Call) -> tuple[Bucket, ...]:
        if call.options.rate_key is not None:
            return (Bucket(call.options.rate_key),)
        rate_key = self._profile.rate_key
        named = None if rate_key is None else rate_key(request)
        if not named:
            return self._everything
        several = named if isinstance(named, tuple) else (named,)
        return tuple(each if isinstance(each, Bucket) else Bucket(each) for each in several)

    async def _pass(self, request: Any, call: Call) -> tuple[Gate, ...]:
        """Wait until all gates of the request let it out; they are returned where they have."""
        buckets = self._buckets(request, call)
        gates = self._gates.enter(buckets)
        if gates is not None:
            return gates
        call.gated = True  # until it is let through
        call.gates_blocked += 1
        call.straight = False
        began = call.scope.now()
        deadline = None if call.deadline is None else call.deadline - _IN_TIME
        longest = call.options.max_gate_wait
        impatient = longest is not None and (deadline is None or began + longest < deadline)
        hold = await self._gates.wait(
            buckets,
            blocking=call.blocking,
            deadline=began + longest if longest is not None and impatient else deadline,
            longest=self._max_wait,
            most=self.policy.max_waiters,
            interrupter=call.interrupter,
        )
        if hold.refused is not None:
            call.emit(RateLimitWaited, key=hold.key, seconds=hold.left, refused=True)
            raise self.flavor.RateLimitedError(
                platform=call.platform,
                operation=call.operation,
                key=hold.key,
                retry_after=hold.left,
                reason="max_gate_wait" if impatient and hold.refused == "deadline" else hold.refused,
                request=request,
            )
        call.attempt_began = call.scope.now()  # the wait is not charged as its slowness
        call.emit(RateLimitWaited, key=hold.key, seconds=call.attempt_began - began, refused=False)
        call.gated = False
        return hold.gates

    # --- what answers say ---

    async def _heed(self, response: Any, request: Any, call: Call) -> None:
        """Close a gate where the answer says so, and learn the platform's own name of a bucket."""
        limited, wide, wait = False, False, None
        if response.status_code == 429 or not self._profile.plain:
            judged = await judge(self._profile, response, call, self.flavor)
            limited, wide, wait = judged.limited, judged.wide, judged.wait
        try:
            if not limited:
                wait = self._until_quota(response, call) if self._looks else None
            told = self._told_name(response, request, call)
            if wait is None and told is None:
                return
            buckets = self._buckets(request, call)
        except BaseException:
            await close(response, call)  # a profile of the user's that raises: nobody else can
            raise
        if told is not None:
            self._gates.name(buckets[0], told)
        if wait is not None:
            opens_at = self._gates.shut(buckets[-1 if wide else 0], wait)
            if limited:
                call.gate_opens = opens_at

    def _until_quota(self, response: Any, call: Call) -> float | None:
        """Seconds that an answer leaves nothing of a quota for; not asked where none speaks of one."""
        if any("ratelimit" in name.lower() for name in response.headers):
            self._looks = math.inf
            return quota_wait(response.headers, call.clock.time()) or None
        self._looks -= 1
        if self._looks <= 0 and self._profile.plain and self._profile.told_bucket is None:
            self._heed_from = 400
        return None

    def _told_name(self, response: Any, request: Any, call: Call) -> str | None:
        told_bucket = self._profile.told_bucket
        if told_bucket is None or call.options.rate_key is not None:
            return None
        return told_bucket(request, response)
