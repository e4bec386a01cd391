"""Sending again what failed, when that is safe, affordable and in time.

The first attempt is a plain await; nothing else is built until it has failed. What follows then is in
`_resending`.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from aragora_transport._budget import Budget, NoBudget
from aragora_transport._clock import SYSTEM
from aragora_transport._sending import IDEMPOTENT_METHODS, follow, is_tls_verification
from aragora_transport.layers._layer import Layer, checked
from aragora_transport.layers._resending import REFUSALS, Outcome, Resending
from aragora_transport.policy import RetryPolicy
from aragora_transport.profile import PLAIN, judge

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport._scope import Entry
    from aragora_transport._sending import Sending
    from aragora_transport.policy import ResendUnsafe
    from aragora_transport.profile import Profile


class RetryTransport(Layer):
    """Sends a failed request again, up to `policy.max_attempts` sends in all; see `RetryPolicy`.

    The caller gets the last answer or the last error as it was; nothing is wrapped. Emits
    `RetryScheduled` before each wait and `RetryRefused` when a retryable failure is final.
    """

    def __init__(
        self,
        below: Any,
        *,
        policy: RetryPolicy = RetryPolicy(),
        budget: Budget | None = None,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self.policy = checked("RetryTransport(policy=...)", policy, RetryPolicy)
        self.profile = profile
        self.statuses = policy.statuses | profile.retry_statuses
        self._judges_all = not profile.plain or min(self.statuses, default=400) < 400  # such as 202
        self.rng = rng or random.Random()  # noqa: S311  # jitter, not secrets
        self.budget = budget or (NoBudget() if policy.budget is None else Budget(policy.budget, clock))
        self._final = (*REFUSALS, *self.flavor.local)  # errors that another attempt would not better
        # Lower statuses are returned as they are: HTTP's errors begin there, or all are judged.
        self._fine_below = 0 if self._judges_all else 400
        self._unsafe_always = policy.resend_unsafe == "always"

    def entry(self) -> Entry:
        return super().entry()._replace(max_attempts=self.policy.max_attempts)

    async def handle(self, request: Any, call: Call) -> Any:
        if (
            request.method not in IDEMPOTENT_METHODS
            # Where httpx keeps a body that is held in memory; without it `follow` looks closer.
            or not hasattr(request, "_content")
            or (call.chosen is not None and call.chosen.changes_retries)
        ):
            return await self._followed(request, call)
        try:
            response = await self.next(request, call)
        except REFUSALS:
            raise  # it was not sent, nor would it be another time
        except Exception as error:  # noqa: BLE001  # judged by `retryable`, and raised again by `unwrap`
            outcome = Outcome(error=error)
        else:
            if response.status_code < self._fine_below and not call.scope.detailed:
                if not self.budget.full:
                    self.budget.earn()
                return response
            outcome = await self._answered(response, call)
        return await self._finish(request, call, None, outcome)

    async def _followed(self, request: Any, call: Call) -> Any:
        """A request that it may not be safe, or not be possible, to send again."""
        call.max_attempts = call.options.max_attempts or self.policy.max_attempts
        mode = call.options.resend_unsafe
        always = self._unsafe_always if mode is None else mode == "always"
        sending = follow(request, call, self.flavor, unsafe_always=always)
        try:
            return await self._finish(request, call, sending, await self.attempt(request, call))
        finally:
            if sending is not None:
                sending.finish()

    def resend_unsafe(self, call: Call) -> ResendUnsafe:
        """What may be sent again of a request that does harm when it is processed twice."""
        return call.options.resend_unsafe or self.policy.resend_unsafe

    async def attempt(self, request: Any, call: Call) -> Outcome:
        """One send, and what came of it."""
        try:
            response = await self.next(request, call)
        except Exception as error:  # noqa: BLE001  # as above
            return Outcome(error=error)
        return await self._answered(response, call)

    async def _answered(self, response: Any, call: Call) -> Outcome:
        judged = None
        if response.status_code >= 400 or self._judges_all:  # an HTTP error
            try:
                judged = await judge(self.profile, response, call, self.flavor)
            except Exception as error:  # noqa: BLE001  # its body had to be read, and died
                return Outcome(error=error)
        outcome = Outcome(response=response, judged=judged)
        if not self.budget.full and outcome.earns:
            self.budget.earn()
        return outcome

    async def _finish(self, request: Any, call: Call, sending: Sending | None, outcome: Outcome) -> Any:
        """The answer or error for the caller, after as many further attempts as it takes."""
        if call.scope.detailed:
            outcome.announce(call)
        if self.retryable(outcome):
            outcome = await Resending(self, request, call, sending, outcome).run()
        return outcome.unwrap()

    def retryable(self, outcome: Outcome) -> bool:
        """Whether another attempt could do better; not yet whether it is safe, in time or affordable."""
        error, judged = outcome.error, outcome.judged
        if error is not None:
            return (
                isinstance(error, self.flavor.TransportError)
                and not isinstance(error, self._final)
                and not is_tls_verification(error)
            )
        if judged is None:
            return False
        return outcome.status in self.statuses if judged.retryable is None else judged.retryable
