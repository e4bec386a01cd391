"""Where tokens come from, and the one refresh for everybody who needs the next one.

A refresh runs on its own, and its callers, the first one included, only wait for its end. So a caller that
is cancelled or out of time neither stops it nor fails the others; and a refresh token that may be used
once is not sent a second time because nobody stayed to hear what came of the first.
"""

from __future__ import annotations

import math
import os
import random
import re
import reprlib
import threading
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aragora_transport._clock import Waiter
from aragora_transport._credentials import Secret
from aragora_transport._drive import detach
from aragora_transport._redact import describe_error, one_line
from aragora_transport.correlation import current

if TYPE_CHECKING:
    from collections.abc import Collection

    from aragora_transport._call import Call
    from aragora_transport._clock import Clock

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_GRACE = 5.0  # seconds after its time limit that a refresh is taken for lost, with its event loop perhaps
_AGAIN = 0.1  # of the margin: how long a token that is still good is used after a refresh has failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """What a source fetched.

    `value`: the token. `expires_in`: seconds that it is good for, from when it was asked for; `None` where
    nobody knows: until a 401.
    """

    value: str = field(repr=False)
    expires_in: float | None = None

    def __post_init__(self) -> None:
        seconds: Any = self.expires_in
        if seconds is None:
            return
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise ValueError(
                f"Token(expires_in={reprlib.repr(seconds)}): it must be seconds of at least 0, or None"
            )


class TokenRefused(Exception):  # noqa: N818  # an answer to a question; the error that calls end in is another
    """What `TokenSource.fetch` raises where it gets no token.

    `text`: why, in one line, without secrets. `code`: the same for programs. `retryable`: whether asking
    again later may help.
    """

    def __init__(self, text: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(text)
        self.text = one_line(text)
        self.code = code
        self.retryable = retryable


class Held:
    """A token in use: the header that it goes into, and until when."""

    __slots__ = ("expires_at", "header", "line", "refresh_at", "secret")

    def __init__(self, secret: Secret, header: str, scheme: str) -> None:
        self.secret = secret
        self.header = header
        self.line = f"{scheme} {secret}" if scheme else str(secret)  # with the placeholder
        self.refresh_at = self.expires_at = math.inf


class Flight:
    """One refresh under way."""

    __slots__ = ("began", "failure", "held", "lost_at", "over", "process", "task", "waiters")

    def __init__(self, began: float, lost_at: float) -> None:
        self.began = began
        self.lost_at = lost_at
        self.process = os.getpid()  # after a fork it goes on in the parent alone
        self.over = False
        self.held: Held | None = None
        self.failure: TokenRefused | None = None
        self.waiters: set[Waiter] = set()
        self.task: object = None


class TokenSource:
    """Where tokens come from. Subclass it and write `fetch`; give it to `AuthTransport`, or as `auth=`.

    Any number of stacks, tasks, event loops and threads share a source, and its refreshes: there is one at
    a time.

    `origin`: where its tokens go: a URL, of which scheme, host and port count; or several.
    `header`, `scheme`: how a token is written (default `Authorization: Bearer ...`); `scheme=""` is the
        token alone.
    `margin`: seconds before its end that a token is refreshed (default 60), up to a tenth more by chance
        and never more than half of its time. A token that is good goes on to be used meanwhile.
    `timeout`: seconds that a refresh may take (default 30); one that has not come back 5 s after that is
        taken for lost.
    """

    refreshes = True  # whether `fetch` may return another token than the time before

    def __init__(
        self,
        *,
        origin: str | Collection[str],
        header: str = "Authorization",
        scheme: str = "Bearer",
        margin: float = 60.0,
        timeout: float = 30.0,
        rng: random.Random | None = None,
    ) -> None:
        name = type(self).__name__
        if not _HEADER.fullmatch(header):
            raise ValueError(f"{name}(header={reprlib.repr(header)}): it must be the name of a header")
        if scheme and not _HEADER.fullmatch(scheme):
            raise ValueError(
                f"{name}(scheme={reprlib.repr(scheme)}): it must be a word such as 'Bearer', or ''"
            )
        if not 0 <= margin < math.inf:
            raise ValueError(f"{name}(margin={margin!r}): it must be seconds of at least 0")
        if not 0 < timeout < math.inf:
            raise ValueError(f"{name}(timeout={timeout!r}): it must be seconds above 0")
        # Looks the origins over now, not at the first token.
        self._like = Secret("x", origin=origin, name="token")
        self.origin = origin
        self.header = header
        self.scheme = scheme
        self.margin = margin
        self.timeout = timeout
        self._rng = rng or random.Random()  # noqa: S311  # jitter, not secrets
        self._lock = threading.Lock()
        self._held: Held | None = None
        self._flight: Flight | None = None

    async def fetch(self, *, blocking: bool, clock: Clock) -> Token:
        """Get a token: the next one, where there was one before.

        `blocking`: whether a blocking client asks; then nothing may be awaited that suspends. `clock`: of
        the stack that asks. Raises `TokenRefused` where there is no token to be had; anything else that it
        raises is told to the callers by name and text.
        """
        raise NotImplementedError(f"{type(self).__name__} is no source of tokens: it has no fetch()")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {', '.join(self._like.destinations)}>"

    # --- for AuthTransport ---

    def covers(self, url: Any) -> bool:
        """Whether a request to that URL gets a token of this source."""
        return (url.raw_scheme, url.raw_host, url.port) in self._like.origins

    def fresh(self, now: float) -> Held | None:
        """The token that needs no second thought, if there is one."""
        held = self._held
        return held if held is not None and now < held.refresh_at else None

    async def token(self, call: Call, until: float | None, rejected: Held | None = None) -> Held | None:
        """A token that is not the `rejected` one; `None` where none comes before the clock reads `until`.

        Raises `TokenRefused`, a new one for every caller.
        """
        clock = call.clock
        while True:
            usable, flight, begins = self._look(clock.monotonic(), rejected)
            if flight is None:
                return usable
            if begins:
                self._begin(flight, call)
            if await self._over(flight, call, until):
                if flight.held is not None:
                    return flight.held
                if flight.failure is not None:
                    return self._make_do(flight.failure, usable, clock)
            elif until is not None and clock.monotonic() >= until:
                return usable
            # The refresh was lost with the event loop that it ran in: somebody begins another.

    def _look(self, now: float, rejected: Held | None) -> tuple[Held | None, Flight | None, bool]:
        """The token that can be used, the refresh to wait for first, and whether that has yet to begin."""
        with self._lock:
            if self._held is rejected:
                self._held = None  # nobody else should try it
            held, flight = self._held, self._flight
            if held is not None and now < held.refresh_at:
                return held, None, False
            usable = held if held is not None and now < held.expires_at else None
            if flight is not None and now < flight.lost_at and flight.process == os.getpid():
                # Where the old one is still good, another call sees to the next one.
                return usable, flight if usable is None else None, False
            self._flight = Flight(now, now + self.timeout + _GRACE)
            return usable, self._flight, True

    def _make_do(self, failure: TokenRefused, usable: Held | None, clock: Clock) -> Held:
        if usable is None:
            raise TokenRefused(failure.text, code=failure.code, retryable=failure.retryable)
        usable.refresh_at = clock.monotonic() + self.margin * _AGAIN
        return usable

    def _begin(self, flight: Flight, call: Call) -> None:
        clock = call.clock
        context = Context()  # the refresh is no part of this call, though it goes by its correlation id
        context.run(current.set, call.correlation_id)
        if clock.manual:
            context.run(clock.call_began)  # type: ignore[attr-defined]  # a manual clock has it
        refresh = self._refresh(flight, clock, call.blocking)
        try:
            flight.task = detach(refresh, context, blocking=call.blocking)
        except BaseException:  # no thread to be had, say: nobody must wait for it
            refresh.close()
            self._end(flight)
            if clock.manual:
                context.run(clock.call_ended)  # type: ignore[attr-defined]  # as above
            raise

    async def _refresh(self, flight: Flight, clock: Clock, blocking: bool) -> None:
        try:
            token = await self.fetch(blocking=blocking, clock=clock)
            flight.held = self._holding(token, flight.began)
        except TokenRefused as refused:
            flight.failure = refused
        except Exception as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it
            # By name, since either flavour has one. A bug in a fetch() is not going to pass.
            passing = any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
            flight.failure = TokenRefused(describe_error(error), retryable=passing)
        finally:
            self._end(flight)
            if clock.manual:
                clock.call_ended()  # type: ignore[attr-defined]  # a manual clock has it

    def _holding(self, token: object, began: float) -> Held:
        if not isinstance(token, Token):
            raise TypeError(f"{type(self).__name__}.fetch() returned a {type(token).__name__}, not a Token")
        held = Held(Secret(token.value, origin=self.origin, name="token"), self.header, self.scheme)
        if token.expires_in is not None:
            held.expires_at = began + token.expires_in
            early = min(self.margin * self._rng.uniform(1.0, 1.1), token.expires_in / 2)
            held.refresh_at = held.expires_at - early
        return held

    async def _over(self, flight: Flight, call: Call, until: float | None) -> bool:
        """Wait for the end of a refresh; false where it has not come before `until`, or is lost."""
        waiter = Waiter(call.clock, blocking=call.blocking)
        with self._lock:
            flight.waiters.add(waiter)
            if flight.over:
                waiter.woken = True
        try:
            await waiter.wait(flight.lost_at if until is None else min(until, flight.lost_at))
        finally:
            with self._lock:
                flight.waiters.discard(waiter)
        return flight.over

    def _end(self, flight: Flight) -> None:
        with self._lock:
            flight.over = True
            flight.task = None
            if self._flight is flight:
                self._flight = None
                self._held = flight.held or self._held
            waiters = list(flight.waiters)
        for waiter in waiters:
            waiter.wake()
