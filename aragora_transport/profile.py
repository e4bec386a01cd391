"""What makes an answer a success is the platform's own: a profile says so, for all layers alike.

`Profile()` is plain HTTP. A platform whose failures hide in bodies, or that names its rate-limit
buckets, is one more value of this class; retry, breaker, rate limit and metrics all judge by it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aragora_transport._park import close, read_small
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
        wrote it: text that is a number is one, and what is no sane wait counts as none told.
    `limited`: the platform refused because of its rate limit; the gate closes for `wait`.
    `code`: the platform's own error code, for logs, records and results.
    """

    verdict: Verdict
    retryable: bool | None = None
    wait: float | None = None
    limited: bool = False
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What one platform does differently from plain HTTP.

    `classify(response, body)`: the judgement of an answer, or `None` for what plain HTTP says of it.
        `body` is the whole body where `reads_body` asked for it, else `None`.
    `reads_body(response)`: whether to read the body first, at most 64 KiB; the caller reads it again
        as usual. A longer body is not given.
    `retry_statuses`: sent again in addition to the policy's.
    `rate_key(request)`: the rate-limit bucket of a request, or `None` for the whole platform.
    `long_poll(request)`: seconds that the platform may keep a request before it answers, which raise
        the attempt limit; `None` for an ordinary request.
    """

    name: str = "http"
    classify: Callable[[Any, bytes | None], Judgement | None] | None = None
    reads_body: Callable[[Any], bool] | None = None
    retry_statuses: frozenset[int] = frozenset()
    rate_key: Callable[[Any], str | None] | None = None
    long_poll: Callable[[Any], float | None] | None = None

    def __post_init__(self) -> None:
        for name in ("classify", "reads_body", "rate_key", "long_poll"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                raise ValueError(f"Profile({name}={reprlib.repr(given)}): {name} must be a callable or None")
        statuses = http_statuses("Profile", "retry_statuses", self.retry_statuses)
        object.__setattr__(self, "retry_statuses", statuses)

    @property
    def plain(self) -> bool:
        """Whether a status below 400 is a success without another look."""
        return self.classify is None


PLAIN = Profile()


async def judge(profile: Profile, response: Any, call: Call, flavor: Flavor) -> Judgement:
    """The judgement of an answer; made once, kept on the answer for the other layers."""
    known: Judgement | None = response.extensions.get(_JUDGEMENT)
    if known is None:
        judged: Judgement | None = None
        if profile.classify is not None:
            try:
                body = None
                if profile.reads_body is not None and profile.reads_body(response):
                    body = await read_small(response, call, flavor)
                judged = _classified(profile, profile.classify(response, body))
            except BaseException:
                await close(response, call)  # the error goes to the caller in its place: nobody else can
                raise
        known = response.extensions[_JUDGEMENT] = judged or _plain_http(response, call)
    call.hidden = known.hidden(response.status_code)
    return known


def _classified(profile: Profile, judged: Any) -> Judgement | None:
    if judged is not None and not isinstance(judged, Judgement):
        raise TypeError(
            f"classify() of the profile {profile.name!r} returned {reprlib.repr(judged)}; it must return a "
            "Judgement, or None for what plain HTTP says"
        )
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


_PROFILES: dict[str, Profile] = {}


def profile_for(platform: str) -> Profile:
    """The profile of a platform that is known by name, else plain HTTP."""
    return _PROFILES.get(platform, PLAIN)
