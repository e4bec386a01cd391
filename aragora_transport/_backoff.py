"""How long to wait before the next attempt: pure functions of the policy and what was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from aragora_transport.policy import RetryPolicy


def backoff(policy: RetryPolicy, failed: int, previous: float, rng: Random) -> float:
    """Seconds to wait after `failed` attempts, when the platform told nothing.

    `previous`: the wait before this one, which "decorrelated" jitter grows from (0 at first).
    """
    if policy.jitter == "decorrelated":
        low = policy.base_delay
        return min(policy.max_delay, rng.uniform(low, max(low, previous * 3.0)))
    delay = ceiling(policy, failed)
    if policy.jitter == "full":
        return rng.uniform(0.0, delay)
    return delay + rng.uniform(0.0, delay * 0.1)


def ceiling(policy: RetryPolicy, failed: int) -> float:
    """The guide's `min(base_delay * 2 ** attempt, max_delay)`, its attempts counted from 0."""
    # Beyond 2 ** 1023 a float overflows; no delay is capped that late.
    doubled: float = policy.base_delay * 2.0 ** min(failed - 1, 1000)
    return min(doubled, policy.max_delay)


def longest(policy: RetryPolicy, failed: int) -> float:
    """The most that `backoff()` can return after `failed` attempts."""
    if policy.jitter == "decorrelated":
        return policy.max_delay
    return ceiling(policy, failed) * (1.1 if policy.jitter == "guide" else 1.0)


def longest_after_told(told: float) -> float:
    """The most that `after_told()` can return."""
    return told + 1.0


def after_told(told: float, rng: Random) -> float:
    """Never earlier than told, and a little later, so that not everyone comes back at once."""
    return told + rng.uniform(0.0, min(1.0, max(0.01, told * 0.1)))
