"""What makes an answer a success is the platform's own: a profile says so, for all layers alike.

`Profile()` is plain HTTP. A platform whose failures hide in bodies, or that names its rate-limit
buckets, is one more value of this class; retry, breaker, rate limit and metrics all judge by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aragora_transport._park import close, read_small
from aragora_transport._retry_after import told_wait

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._flavor import Flavor

Verdict = Literal["success", "failure", "neither"]

_JUDGEMENT = "aragora_transport.judgement"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What an answer means.

    `verdict`: for the circuit: "success", "failure", or "neither" (429 says nothing of its health).
    `retryable`: sent again; `None` leaves it to `RetryPolicy.statuses`.
    `wait`: seconds that the platform asked to wait, where it did.
    `limited`: the platform refused because of its rate limit; the gate closes for `wait`.
    `code`: the platform's own error code, for metrics and results.
    """

    verdict: Verdict
    retryable: bool | None = None
    wait: float | None = None
    limited: bool = False
    code: str | None = None


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
                judged = profile.classify(response, body)
            except BaseException:
                await close(response, call)  # the error goes to the caller in its place: nobody else can
                raise
        known = response.extensions[_JUDGEMENT] = judged or _plain_http(response, call)
    return known


def _plain_http(response: Any, call: Call) -> Judgement:
    status: int = response.status_code
    if status < 400:  # HTTP's own border between answers and errors
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
