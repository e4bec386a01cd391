"""What makes an answer a success is the platform's own: a profile says so, for all layers alike.

`Profile()` is plain HTTP. A platform whose failures hide in bodies, or that names its rate-limit
buckets, is one more value of this class; retry, breaker, rate limit and metrics all judge by it.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from aragora_transport._park import begins, close, read_small
from aragora_transport._retry_after import told_number, told_wait
from aragora_transport.policy import http_statuses

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._flavor import Flavor

Verdict = Literal["success", "failure", "neither"]

_VERDICTS = ("success", "failure", "neither")
_JUDGEMENT = "aragora_transport.judgement"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What an answer means.

    `verdict`: for the circuit: "success", "failure", or "neither" (429 says nothing of its health).
    `retryable`: sent again; `None` leaves it to `RetryPolicy.statuses`.
    `wait`: seconds that the platform asked to wait, where it did. It may be handed on as the platform
        wrote it: text that is a number is one, and what is no sane wait counts as none told. For a failure
        without one the answer's headers are asked.
    `limited`: the platform refused because of its rate limit; the gate closes for `wait`.
    `wide`: that limit is the widest that the request falls under: its last bucket is closed, not its first.
    `unprocessed`: the platform did nothing with the request, as after a 429 or 503: it can be sent again
        also where doing it twice would do harm.
    `unauthenticated`: the platform refused the token, as a 401 does, which needs no word of it: where a
        token source has another one, the attempt is made once more.
    `code`: the platform's own error code, for logs, records and results.
    """

    verdict: Verdict
    retryable: bool | None = None
    wait: float | None = None
    limited: bool = False
    wide: bool = False
    unprocessed: bool = False
    unauthenticated: bool = False
    code: str | None = None

    def __post_init__(self) -> None:
        if self.verdict not in _VERDICTS:
            raise ValueError(
                f"Judgement(verdict={self.verdict!r}): verdict must be one of {', '.join(_VERDICTS)}"
            )
        if self.wait is not None:
            object.__setattr__(self, "wait", told_number(self.wait))

    @property
    def failed(self) -> bool:
        """Whether the caller did not get what it asked for, whoever is to blame."""
        return self.verdict != "success" or self.code is not None or self.retryable is True

    def hidden(self, status: int) -> str | None:
        """The name of a failure that the status does not tell."""
        return (self.code or "failure") if status < 400 and self.failed else None


SUCCESS = Judgement(verdict="success")
FAILURE = Judgement(verdict="failure")


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a platform counts together: those of one method, say, or all that go to one chat.

    `key`: its name, which appears in errors and events: never put a secret in it.
    `rates`: the limits that the platform publishes for it, each as (requests, seconds): never so many in
        any such time. They are kept on our side where `RateLimitPolicy.published` says so.
    """

    key: str
    rates: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:  # pyright: ignore[reportUnnecessaryIsInstance]  # users err
            raise ValueError(f"Bucket(key={self.key!r}): key must be a name")
        for requests, seconds in self.rates:
            if not (requests >= 1 and seconds > 0):
                raise ValueError(
                    f"Bucket(rates={reprlib.repr(self.rates)}): each must be (requests, seconds), "
                    "at least 1 in more than 0"
                )


RateKey = str | Bucket | tuple[str | Bucket, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What one platform does differently from plain HTTP.

    `classify(response, body)`: the judgement of an answer, or `None` for what plain HTTP says of it.
        `body` is the whole body where `reads_body` asked for it, else `None`.
    `reads_body(response)`: whether to read the body first, at most 64 KiB; the caller reads it again
        as usual. A longer body is not given.
    `success_begins`: how bodies begin, decoded, that are a success below 400: one that does is neither
        read further nor classified.
    `retry_statuses`: sent again in addition to the policy's.
    `rate_key(request)`: the rate-limit bucket of a request, by name or as a `Bucket`; several, the one that
        a 429 speaks of first and the widest last; or `None` for the whole platform.
    `told_bucket(request, response)`: the first bucket by the platform's own name, where its answers tell
        that; from then on it is that of all requests with this first bucket.
    `long_poll(request)`: seconds that the platform may keep a request before it answers, which raise
        the attempt limit; `None` for an ordinary request.
    `secrets`: finds what must not be seen of a URL; each group is a secret.
    """

    name: str = "http"
    classify: Callable[[Any, bytes | None], Judgement | None] | None = None
    reads_body: Callable[[Any], bool] | None = None
    success_begins: tuple[bytes, ...] = ()
    retry_statuses: frozenset[int] = frozenset()
    rate_key: Callable[[Any], RateKey] | None = None
    told_bucket: Callable[[Any, Any], str | None] | None = None
    long_poll: Callable[[Any], float | None] | None = None
    secrets: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        for name in ("classify", "reads_body", "rate_key", "told_bucket", "long_poll"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                raise ValueError(f"Profile({name}={reprlib.repr(given)}): {name} must be a callable or None")
        beginnings: Any = self.success_begins
        if type(beginnings) is not tuple:
            shown = reprlib.repr(beginnings)
            raise ValueError(f"Profile(success_begins={shown}): it must be a tuple of bytes")
        statuses = http_statuses("Profile", "retry_statuses", self.retry_statuses)
        object.__setattr__(self, "retry_statuses", statuses)

    @property
    def plain(self) -> bool:
        """Whether a status below 400 is a success without another look."""
        return self.classify is None

    def secrets_in(self, url: str) -> list[str]:
        """What must not be seen of this URL."""
        if self.secrets is None:
            return []
        return [group for found in self.secrets.finditer(url) for group in found.groups() if group]


PLAIN = Profile()


async def judge(profile: Profile, response: Any, call: Call, flavor: Flavor) -> Judgement:
    """The judgement of an answer; made once, kept on the answer for the other layers."""
    known: Judgement | None = response.extensions.get(_JUDGEMENT)
    if known is None:
        judged: Judgement | None = None
        if profile.classify is not None:
            try:
                judged = await _by_profile(profile, profile.classify, response, call, flavor)
            except BaseException:
                await close(response, call)  # the error goes to the caller in its place: nobody else can
                raise
        known = response.extensions[_JUDGEMENT] = judged or _plain_http(response, call)
    call.hidden = hidden = known.hidden(response.status_code)
    if hidden is not None:
        call.straight = False
    return known


async def _by_profile(
    profile: Profile, classify: Any, response: Any, call: Call, flavor: Flavor
) -> Judgement | None:
    body = None
    if profile.reads_body is not None and profile.reads_body(response):
        beginnings = profile.success_begins
        if beginnings and response.status_code < 400 and await begins(response, beginnings, call, flavor):
            return SUCCESS
        body = await read_small(response, call, flavor)
    judged: Any = classify(response, body)
    if judged is not None and not isinstance(judged, Judgement):
        raise TypeError(
            f"classify() of the profile {profile.name!r} returned {reprlib.repr(judged)}; it must return a "
            "Judgement, or None for what plain HTTP says"
        )
    if judged is not None and judged.wait is None and judged.failed:
        return replace(judged, wait=told_wait(response.headers, call.clock.time()))
    return judged


def _plain_http(response: Any, call: Call) -> Judgement:
    status: int = response.status_code
    if status < 400 and "retry-after" not in response.headers:  # HTTP's own border of errors
        return SUCCESS
    wait = told_wait(response.headers, call.clock.time())
    if status == 429:  # Too Many Requests, RFC 6585
        return Judgement(verdict="neither", wait=wait, limited=True)
    # 501 and 505 say that the server will never do this, not that it is unwell.
    failed = status >= 500 and status not in (501, 505)  # HTTP's server errors
    return Judgement(verdict="failure" if failed else "success", wait=wait)
