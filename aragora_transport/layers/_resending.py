"""What follows a failed attempt: again, after how long, or the end. The only file that imports tenacity.

tenacity drives, and `Resending` answers its questions.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aragora_transport import errors
from aragora_transport._backoff import after_told, backoff
from aragora_transport._call import Attempt
from aragora_transport._clock import Waiter
from aragora_transport._park import close, park
from aragora_transport.events import AttemptFinished, RetryRefused, RetryScheduled

if TYPE_CHECKING:
    from collections.abc import Callable

    from aragora_transport._call import Call
    from aragora_transport._sending import Sending
    from aragora_transport.events import RefusalReason
    from aragora_transport.profile import Judgement

_REASONS: tuple[tuple[type[Exception], RefusalReason], ...] = (
    (errors.CircuitOpenError, "circuit_open"),
    (errors.RateLimitedError, "rate_limited"),
    (errors.TokenRefreshError, "no_token"),
)
REFUSALS = tuple(kind for kind, _ in _REASONS)  # by layers of ours, before sending
_UNPROCESSED = frozenset({429, 503})  # refusals: the platform did nothing with the request


class Outcome:
    """What an attempt ended with. The error is taken out when raised: it must not refer to itself."""

    __slots__ = ("error", "judged", "response")

    def __init__(
        self, response: Any = None, judged: Judgement | None = None, error: Exception | None = None
    ) -> None:
        self.response = response
        self.judged = judged
        self.error = error

    @property
    def earns(self) -> bool:
        """Whether it is a success that the retry budget grows by."""
        return self.judged is None or self.judged.verdict == "success"

    @property
    def status(self) -> int | None:
        return None if self.response is None else self.response.status_code

    @property
    def error_name(self) -> str | None:
        if self.error is not None:
            return type(self.error).__name__
        return None if self.judged is None else self.judged.hidden(self.response.status_code)

    def record(self, call: Call, wait: float) -> Attempt:
        return Attempt(status=self.status, error=self.error_name, seconds=call.attempt_seconds, wait=wait)

    def announce(self, call: Call) -> None:
        if isinstance(self.error, REFUSALS):
            return  # it was never sent
        record = self.record(call, 0.0)
        call.emit(AttemptFinished, status=record.status, error=record.error, seconds=record.seconds)

    def unwrap(self) -> Any:
        if self.error is None:
            return self.response
        error, self.error = self.error, None
        try:
            raise error
        finally:
            del error


class Resending:
    """The rest of one call after its first attempt failed."""

    def __init__(
        self, layer: Any, request: Any, call: Call, sending: Sending | None, outcome: Outcome
    ) -> None:
        self._layer = layer
        self._request = request
        self._call = call
        self._sending = sending
        self._outcome = outcome
        self._wait = 0.0
        self._until = 0.0  # when the wait is over
        self._told: float | None = None  # the wait that the platform asked for
        self._waits = False  # here, that is: a gate below may do so instead
        self._paid = False
        self._over = False  # the outcome is final, whatever it is

    async def run(self) -> Outcome:
        import tenacity  # noqa: PLC0415  # not loaded by those whose attempts do not fail

        # Asked as an iterator: it decides, and what has to be awaited is awaited here. Its own way of
        # awaiting looks at every callable anew, at a quarter of a millisecond for each attempt.
        retrying = tenacity.Retrying(
            retry=self._again,
            wait=self._how_long,
            stop=self._stop,
            sleep=_elsewhere,
            retry_error_callback=_last_outcome,
        )
        first = True
        try:
            for attempt in retrying:
                if not first:
                    await self._prepare()
                    await self._sleep()
                    if not self._over:
                        await self._attempt()
                first = False
                attempt.retry_state.set_result(self._outcome)
        except BaseException:
            # Cancelled, or a wait strategy that raised: nobody else will close the answer.
            self._give_back()
            if self._outcome.response is not None:
                self._call.attempt_dropped()
                await close(self._outcome.response, self._call)
            raise
        finally:
            # tenacity's iteration refers to itself; it must not keep the request alive with it.
            retrying.iter_state.reset()
        return self._outcome

    async def _attempt(self) -> None:
        call, layer = self._call, self._layer
        if self._sending is not None:
            self._sending.again()
        call.next_attempt()
        try:
            outcome: Outcome = await layer.attempt(self._request, call)
        except BaseException:  # cancelled
            self._outcome.response = None  # closed before the wait
            if not (call.gated or call.tokenless):
                self._paid = False  # it was sent
            raise
        if isinstance(outcome.error, REFUSALS):
            # It was not sent, so the one before it was the last attempt.
            call.attempt -= 1
            reasons: list[RefusalReason] = [why for kind, why in _REASONS if isinstance(outcome.error, kind)]
            outcome.error = None  # its traceback leads back to it
            self._end_early(reasons[0])
            return
        if call.scope.detailed:
            outcome.announce(call)
        self._paid = False
        self._outcome.error = None  # as above
        self._outcome = outcome

    # --- tenacity's questions, in the order in which it asks them ---

    def _again(self, _: object) -> bool:
        """Whether this outcome is one that another attempt could better, and may."""
        if self._over:
            return False
        outcome = self._outcome
        if not self._layer.retryable(outcome):
            return False
        sending = self._sending
        if sending is None:
            return True
        if not sending.replayable:
            return self._refuse("body_not_replayable")
        if sending.unsafe and not self._safe(sending, outcome):
            return self._refuse("unsafe_method")
        return True

    def _how_long(self, state: Any) -> float:
        """The wait: what the platform told, else the backoff. A gate below keeps a told wait itself."""
        layer, call = self._layer, self._call
        judged = self._outcome.judged
        told = None if judged is None else judged.wait
        gate_opens, call.gate_opens = call.gate_opens, None
        now = call.scope.now()
        if told is None:
            strategy = layer.policy.wait
            if strategy is None:
                self._wait = backoff(layer.policy, call.attempt, self._wait, layer.rng)
            else:
                self._wait = self._by_strategy(strategy, state)
        elif gate_opens is not None:
            self._wait = told = max(told, gate_opens - now)
        else:
            self._wait = after_told(told, layer.rng)
        self._told = told
        self._until = now + self._wait
        self._waits = self._wait > 0.0 and (told is None or gate_opens is None)
        return self._wait

    def _by_strategy(self, strategy: Callable[[Any], float], state: Any) -> float:
        """The wait by a strategy for tenacity, which is shown the answer or the error itself."""
        ours = state.outcome
        state.outcome = type(ours)(state.attempt_number)
        if self._outcome.error is not None:
            state.outcome.set_exception(self._outcome.error)
        else:
            state.outcome.set_result(self._outcome.response)
        try:
            seconds = float(strategy(state))
        finally:
            state.outcome = ours
        if not math.isfinite(seconds):
            raise ValueError(f"RetryPolicy(wait={strategy!r}) said {seconds}; a wait must be a finite time")
        return max(0.0, seconds)

    def _stop(self, _: object) -> bool:
        """Whether the wait, and so the next attempt, is out of the question. Decided before draining."""
        call, layer = self._call, self._layer
        if call.attempt >= call.max_attempts:
            return not self._refuse("attempts")
        if call.interrupter is not None and call.interrupter.refusing() is not None:
            return not self._refuse("circuit_open")
        if self._too_long():
            return not self._refuse("retry_after_too_long")
        if call.deadline is not None and call.scope.now() + self._wait >= call.deadline:
            return not self._refuse("deadline")
        if not layer.budget.spend():
            return not self._refuse("budget")
        self._paid = True
        return False

    # --- between two attempts ---

    async def _prepare(self) -> None:
        """Free the connection, and tell what follows."""
        call, outcome = self._call, self._outcome
        call.history = (*call.history, outcome.record(call, self._wait))
        call.emit(
            RetryScheduled,
            status=outcome.status,
            error=outcome.error_name,
            wait=self._wait,
            told=self._told is not None,
            max_attempts=call.max_attempts,
        )
        if outcome.response is not None:
            call.attempt_dropped()
            await park(outcome.response, self._request, call, self._layer.flavor)

    async def _sleep(self) -> None:
        call = self._call
        if self._waits:
            waiter = Waiter(call.clock, blocking=call.blocking)
            interrupter = call.interrupter
            if interrupter is not None:
                interrupter.watch(waiter)
            try:
                # From the failure on: the time that draining took counts.
                if await waiter.wait(self._until):
                    self._end_early("circuit_open")
                    return
            finally:
                if interrupter is not None:
                    interrupter.unwatch(waiter)
        if call.deadline is not None and call.scope.now() >= call.deadline:
            self._end_early("deadline")  # draining took longer than planned

    # --- what the answers are made of ---

    def _safe(self, sending: Sending, outcome: Outcome) -> bool:
        """Whether a request that does harm when it is processed twice can be sent again."""
        if outcome.error is not None:
            return not sending.was_sent(outcome.error)
        if self._layer.resend_unsafe(self._call) == "statuses":
            return True
        judged = outcome.judged
        refused = judged is not None and (judged.limited or judged.unprocessed)
        return refused or outcome.status in _UNPROCESSED

    def _too_long(self) -> bool:
        return self._told is not None and self._told > self._layer.policy.max_retry_after

    def _refuse(self, reason: RefusalReason) -> bool:
        """Tell why there will be no other attempt. Always false: "not again"."""
        call = self._call
        call.refused = reason
        if self._outcome.judged is not None:
            call.retry_after = self._outcome.judged.wait
        call.emit(
            RetryRefused,
            status=self._outcome.status,
            error=self._outcome.error_name,
            reason=reason,
            wait=call.retry_after,
            max_attempts=call.max_attempts,
        )
        return False

    def _end_early(self, reason: RefusalReason) -> None:
        """The attempt that was planned will not be made; the call ends with the outcome it has."""
        self._over = True
        self._give_back()
        self._refuse(reason)
        call = self._call
        call.history = (*call.history[:-1], replace(call.history[-1], wait=call.retry_after or 0.0))

    def _give_back(self) -> None:
        """Of the budget, what was paid for an attempt that will not be made."""
        if self._paid:
            self._layer.budget.give_back()
        self._paid = False


def _elsewhere(_: float) -> None:
    """The wait is awaited by whoever iterates."""


def _last_outcome(_: object) -> None:
    """Instead of raising tenacity's RetryError: the last outcome is known."""
