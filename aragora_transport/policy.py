"""The values that say what each layer does: frozen, keyword-only, validated when made.

A policy never sleeps and never counts; the layer that is given it does. All times are seconds.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

Jitter = Literal["guide", "full", "decorrelated"]
ResendUnsafe = Literal["statuses", "unprocessed", "always"]
CircuitKey = Literal["platform", "host", "operation"]

_JITTERS = ("guide", "full", "decorrelated")
RESEND_UNSAFE = ("statuses", "unprocessed", "always")
_CIRCUIT_KEYS = ("platform", "host", "operation")
_ATTEMPT = 30.0  # seconds; the guide's request_timeout

_short = reprlib.repr  # a message that shows what was passed stays readable whatever that is


def _number(  # one place for what "a sane number" means, so that every message reads alike
    owner: str,
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    optional: bool = False,
) -> None:
    if value is None and optional:
        return
    wanted = "a finite number"
    if above is not None:
        wanted += f" above {above:g}"
    if at_least is not None:
        wanted += f" of at least {at_least:g}"
    if at_most is not None:
        wanted += f" and at most {at_most:g}"
    if optional:
        wanted += ", or None"
    if (
        not _is_finite(value)
        or (above is not None and not value > above)  # type: ignore[operator]  # it is a number
        or (at_least is not None and not value >= at_least)  # type: ignore[operator]  # as above
        or (at_most is not None and not value <= at_most)  # type: ignore[operator]  # as above
    ):
        raise ValueError(f"{owner}({name}={_short(value)}): {name} must be {wanted}")


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _count(owner: str, name: str, value: object, *, at_least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(
            f"{owner}({name}={_short(value)}): {name} must be a whole number of at least {at_least}"
        )


def _flag(owner: str, name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{owner}({name}={_short(value)}): {name} must be True or False")  # noqa: TRY004  # as all that is wrong with a policy


def _choice(owner: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{owner}({name}={_short(value)}): {name} must be one of {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeoutPolicy:
    """Limits in seconds of wall-clock time; `None` switches one off.

    `attempt`: from handing one send to the network until its response headers (default 30).
    `total`: the whole call: waits, every attempt, backoff and the body (default none).
    `body_idle`: the longest silence between two chunks of a response body (default 30).
    """

    attempt: float | None = _ATTEMPT
    total: float | None = None
    body_idle: float | None = 30.0

    def __post_init__(self) -> None:
        for name in ("attempt", "total", "body_idle"):
            _number("TimeoutPolicy", name, getattr(self, name), above=0, optional=True)
        attempt, total = self.attempt, self.total
        # A total below the default attempt limit is no mistake: nobody wrote the 30.
        if attempt is not None and total is not None and total < attempt != _ATTEMPT:
            raise ValueError(
                f"TimeoutPolicy(attempt={attempt!r}, total={total!r}): the attempt limit can never be "
                "reached; lower attempt or raise total"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryBudget:
    """How many retries all calls to a platform may spend together; a retry costs one token.

    Every success earns `per_success` tokens (default 1), every second `per_second` (default 1), and
    at most `cap` are kept (default 100, full at the start). Earning by success, not by call, is what
    lets half-failing traffic be retried in full while a dead platform gets almost nothing.
    """

    per_success: float = 1.0
    per_second: float = 1.0
    cap: float = 100.0

    def __post_init__(self) -> None:
        _number("RetryBudget", "per_success", self.per_success, at_least=0)
        _number("RetryBudget", "per_second", self.per_second, at_least=0)
        _number("RetryBudget", "cap", self.cap, at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """When a failed attempt is followed by another, and after how long.

    `max_attempts`: sends in all, the first included (default 3; the guide's loop of `max_retries`).
    `base_delay`, `max_delay`: backoff is `min(base_delay * 2**n, max_delay)` before jitter (1 s, 30 s).
    `jitter`: "guide" adds up to 10 %; "full" draws from 0 to the delay; "decorrelated" from
        `base_delay` to three times the wait before.
    `statuses`: the answers that are sent again (default the guide's 429, 500, 502, 503, 504).
    `max_retry_after`: a told wait above this is not slept; the answer is returned at once (60 s).
    `resend_unsafe`: what may be sent again for a POST or PATCH that is not known to be idempotent.
        "statuses" (default): any of `statuses`, and transport errors when nothing was sent yet;
        "unprocessed": only 429, 503 and requests that were never sent; "always": whatever failed.
    `budget`: shared by all calls to the platform; `None` for no limit.
    `wait`: a tenacity wait strategy (or any callable of its retry state) in place of the backoff.
    """

    max_attempts: int = 3
    base_delay: float = 1.0
    max_delay: float = 30.0
    jitter: Jitter = "guide"
    statuses: frozenset[int] = frozenset({429, 500, 502, 503, 504})
    max_retry_after: float = 60.0
    resend_unsafe: ResendUnsafe = "statuses"
    budget: RetryBudget | None = field(default_factory=RetryBudget)
    wait: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        owner = "RetryPolicy"
        _count(owner, "max_attempts", self.max_attempts)
        _number(owner, "base_delay", self.base_delay, at_least=0)
        _number(owner, "max_delay", self.max_delay, at_least=0)
        _number(owner, "max_retry_after", self.max_retry_after, at_least=0)
        _choice(owner, "jitter", self.jitter, _JITTERS)
        _choice(owner, "resend_unsafe", self.resend_unsafe, RESEND_UNSAFE)
        object.__setattr__(self, "statuses", http_statuses(owner, "statuses", self.statuses))
        if self.budget is not None and not isinstance(self.budget, RetryBudget):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may pass anything
            raise ValueError(f"{owner}(budget={_short(self.budget)}): budget must be a RetryBudget or None")
        if self.wait is not None and not callable(self.wait):
            raise ValueError(
                f"{owner}(wait={_short(self.wait)}): wait must be a tenacity wait strategy or None"
            )


def http_statuses(owner: str, name: str, values: Iterable[int]) -> frozenset[int]:
    """`values` as a frozen set; raises `ValueError` for what is no set of HTTP statuses."""
    try:
        statuses = frozenset(values)
    except TypeError:
        raise ValueError(f"{owner}({name}={_short(values)}): {name} must be a set of HTTP statuses") from None
    wrong = [s for s in statuses if not isinstance(s, int) or not 100 <= s <= 599]  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may pass anything
    if wrong:
        raise ValueError(f"{owner}({name}=...): {_short(wrong[0])} is not an HTTP status from 100 to 599")
    return statuses


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerPolicy:
    """When a circuit opens and how it closes again.

    It opens when, among the attempts finished in the last `window` seconds (10), or the last
    `failure_threshold` of them where those are more, at least `failure_threshold` failed (5) and at
    least the share `failure_rate` of them did (0.5; 0.0 is the plain count). `min_attempts` asks for
    more evidence than `failure_threshold` attempts before the share is judged.

    `cooldown`: seconds an open circuit refuses before it lets probes through (60).
    `cooldown_jitter`: up to this share of the cooldown is added at random (0.0).
    `max_cooldown`: where given, each failed probe doubles the cooldown up to this many seconds.
    `max_told_open`: a 503 with Retry-After keeps the circuit open that long, but no longer than this (300).
    `half_open_probes`: requests let through at once while half-open (1).
    `success_threshold`: successful probes that close the circuit (1).
    `probe_lease`: seconds after which a probe that has no answer yet no longer holds up others (10).
    `slow_call`: seconds; an answer whose headers took longer counts as a failure (none).
    `key`: one circuit for each "platform", "host" or "operation"; at most `max_keys` are kept (1000).
    """

    failure_threshold: int = 5
    cooldown: float = 60.0
    failure_rate: float = 0.5
    window: float = 10.0
    min_attempts: int | None = None
    half_open_probes: int = 1
    success_threshold: int = 1
    probe_lease: float = 10.0
    cooldown_jitter: float = 0.0
    max_cooldown: float | None = None
    max_told_open: float = 300.0
    slow_call: float | None = None
    key: CircuitKey = "platform"
    max_keys: int = 1000

    def __post_init__(self) -> None:
        owner = "BreakerPolicy"
        for name in ("failure_threshold", "half_open_probes", "success_threshold", "max_keys"):
            _count(owner, name, getattr(self, name))
        if self.min_attempts is not None:
            _count(owner, "min_attempts", self.min_attempts)
        _number(owner, "cooldown", self.cooldown, at_least=0)
        _number(owner, "probe_lease", self.probe_lease, above=0)
        _number(owner, "cooldown_jitter", self.cooldown_jitter, at_least=0, at_most=1)
        _number(owner, "failure_rate", self.failure_rate, at_least=0, at_most=1)
        _number(owner, "window", self.window, above=0)
        _number(owner, "max_cooldown", self.max_cooldown, above=0, optional=True)
        _number(owner, "max_told_open", self.max_told_open, at_least=0)
        _number(owner, "slow_call", self.slow_call, above=0, optional=True)
        _choice(owner, "key", self.key, _CIRCUIT_KEYS)
        if self.max_cooldown is not None and self.max_cooldown < self.cooldown:
            raise ValueError(
                f"{owner}(max_cooldown={self.max_cooldown!r}): max_cooldown must be at least "
                f"cooldown ({self.cooldown!r})"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimitPolicy:
    """Gates that a 429 closes for every caller, and how many may wait at one.

    `rate`: requests allowed `per` seconds, kept on our side before the platform complains (none).
    `published`: whether the rates that the platform's profile knows are kept as well (no).
    `max_in_flight`: requests under way at once, until their bodies are closed (any number).
    `max_waiters`: callers that may wait at one gate; one more is refused at once (1000). 0: nobody waits.
    `max_keys`: gates remembered; the least recently used one is forgotten first (1000).
    """

    rate: float | None = None
    per: float = 1.0
    published: bool = False
    max_in_flight: int | None = None
    max_waiters: int = 1000
    max_keys: int = 1000

    def __post_init__(self) -> None:
        owner = "RateLimitPolicy"
        _number(owner, "rate", self.rate, above=0, optional=True)
        _number(owner, "per", self.per, above=0)
        _flag(owner, "published", self.published)
        if self.max_in_flight is not None:
            _count(owner, "max_in_flight", self.max_in_flight)
        _count(owner, "max_waiters", self.max_waiters, at_least=0)
        _count(owner, "max_keys", self.max_keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What the whole stack does. A field set to `None` (or `False`) removes its layer.

    `Policy()` is the guide's numbers; `Policy.recommended()` is what this project advises.

    `timeout`: limits on an attempt, a call and the silence of a body.
    `retry`: what is sent again, when and how often.
    `breaker`: when the platform is left alone for a while.
    `rate_limit`: gates that a 429 closes for every caller.
    `metrics`, `log`: whether calls are counted and logged.
    """

    timeout: TimeoutPolicy | None = field(default_factory=TimeoutPolicy)
    retry: RetryPolicy | None = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy | None = field(default_factory=BreakerPolicy)
    rate_limit: RateLimitPolicy | None = field(default_factory=RateLimitPolicy)
    metrics: bool = True
    log: bool = True

    def __post_init__(self) -> None:
        kinds: dict[str, type] = {
            "timeout": TimeoutPolicy,
            "retry": RetryPolicy,
            "breaker": BreakerPolicy,
            "rate_limit": RateLimitPolicy,
        }
        for name, kind in kinds.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"Policy({name}={_short(value)}): {name} must be a {kind.__name__} or None")
        for name in ("metrics", "log"):
            _flag("Policy", name, getattr(self, name))

    @classmethod
    def recommended(cls) -> Self:
        """What this project advises: full jitter, four attempts, a total deadline, short cooldowns.

        The circuit judges by a share of failures over a short window, so that a platform that fails
        a third of its answers does not go dark, and is probed within a second of recovering.
        """
        return cls(
            timeout=TimeoutPolicy(attempt=30.0, total=60.0),
            retry=RetryPolicy(max_attempts=4, jitter="full"),
            breaker=BreakerPolicy(
                failure_threshold=5,
                failure_rate=0.85,
                window=0.6,
                min_attempts=15,
                cooldown=0.6,
                cooldown_jitter=0.25,
            ),
        )
