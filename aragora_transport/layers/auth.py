"""Tokens that expire: a fresh one for each attempt, and one refresh for any number of calls.

The layer decides which token an attempt goes with. What writes it is the innermost transport, on a copy of
the request (see `_credentials`); how tokens are refreshed is the source's (see `_tokens`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._call import Attempt
from aragora_transport._clock import SYSTEM
from aragora_transport._credentials import CredentialTransport
from aragora_transport._park import park
from aragora_transport._sending import follow
from aragora_transport._tokens import TokenRefused, TokenSource
from aragora_transport.events import AttemptFinished
from aragora_transport.layers._layer import Layer, chain_of, checked
from aragora_transport.profile import PLAIN, judge

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport._sending import Sending
    from aragora_transport._tokens import Held
    from aragora_transport.profile import Profile

_IN_TIME = 0.005  # seconds before its deadline that a call stops waiting: that leaves it the answer it had


class AuthTransport(Layer):
    """Sends each attempt with a token of `source`, and once more with a new one after a 401.

    As a 401 counts also what `profile` judges to be `unauthenticated`, whatever its status.
    Requests to other origins than the source's pass as they are. An answer 401 is returned as it is where
    the body cannot be sent again, where there is no other token in time, and after the new token.
    Raises `TokenRefreshError`, an `httpx.TransportError`, where there is no token to send the request with.
    """

    def __init__(
        self,
        below: Any,
        *,
        source: TokenSource,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        self.source = checked("AuthTransport(source=...)", source, TokenSource)
        if not any(isinstance(one, CredentialTransport) for one in chain_of(below)):
            below = CredentialTransport(below)  # used alone: nothing below it writes credentials
        super().__init__(below, platform=platform, clock=clock)
        self._profile = profile

    async def handle(self, request: Any, call: Call) -> Any:
        if not self.source.covers(request.url):
            return await self.next(request, call)
        held = self.source.fresh(call.scope.now())
        if held is None:
            held = await self._token(request, call)
        sending = follow(request, call, self.flavor, unsafe_always=True)
        call.credential = held
        try:
            response = await self.next(request, call)
            refused = response.status_code == 401  # Unauthorized
            if not refused and not self._profile.plain and self.source.refreshes:
                refused = (await judge(self._profile, response, call, self.flavor)).unauthenticated
            if not refused or not self.source.refreshes:
                return response
            if sending is not None and not sending.replayable:
                return response
            return await self._again(request, call, sending, response)
        finally:
            call.credential = None
            if sending is not None:
                sending.finish()

    async def _token(self, request: Any, call: Call) -> Held:
        """Wait for a token. Until there is one the attempt was not sent."""
        call.tokenless = True
        try:
            held = await self.source.token(call, _until(call))
        except TokenRefused as refused:
            raise self.flavor.TokenRefreshError(
                platform=call.platform,
                operation=call.operation,
                reason=refused.text,
                code=refused.code,
                retryable=refused.retryable,
                request=request,
            ) from None
        if held is None:
            raise call.too_late(self.flavor, "total", call.total)
        call.tokenless = False
        call.attempt_began = call.scope.now()  # the wait is not charged as the platform's slowness
        return held

    async def _again(self, request: Any, call: Call, sending: Sending | None, response: Any) -> Any:
        """What comes of the same attempt with another token, if there is one."""
        rejected = call.credential
        hidden = call.hidden if response.status_code < 400 else None  # else it is of an attempt before
        first = Attempt(status=response.status_code, error=hidden, seconds=call.attempt_seconds)
        call.attempt_dropped()
        await park(response, request, call, self.flavor)  # its connection need not wait as well
        try:
            held = await self.source.token(call, _until(call), rejected=rejected)
        except TokenRefused as refused:
            call.token_refused = refused.text
            return response
        if held is None or rejected is None or held.secret.reveal() == rejected.secret.reveal():
            return response
        if call.scope.detailed:
            call.emit(AttemptFinished, status=first.status, error=first.error, seconds=first.seconds)
        call.history = (*call.history, first)
        call.next_attempt()
        call.max_attempts += 1  # it does not use up a retry
        call.credential = held
        call.hidden = None
        if sending is not None:
            sending.again()
        return await self.next(request, call)


def _until(call: Call) -> float | None:
    return None if call.deadline is None else call.deadline - _IN_TIME
