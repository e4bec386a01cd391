"""What a stack will do, in plain values: for people, and for programs that write JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport import _backoff

if TYPE_CHECKING:
    from aragora_transport.policy import Policy

LONGEST_GATE = 60.0  # seconds that a call waits at a gate at most, where no retry policy says


def describe_layer(layer: Any) -> dict[str, Any]:
    """A layer's name and the values that it goes by, JSON-able."""
    policy = getattr(layer, "policy", None)
    values: dict[str, Any] = (
        {} if policy is None else {name: getattr(policy, name) for name in policy.__slots__}
    )
    return {"layer": type(layer).__name__, **{name: _plain(value) for name, value in values.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # statuses
    if hasattr(value, "__slots__") and hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return repr(value) if callable(value) else value


def worst_case_sends(policy: Policy, *, replays: bool) -> int:
    """How often a call can be sent. `replays`: each attempt may be sent again with another token."""
    sends = 1 if policy.retry is None else policy.retry.max_attempts
    return sends * 2 if replays else sends


def worst_case_seconds(policy: Policy, *, replays: bool) -> float | None:
    """The longest that a call by itself can take until its headers; `None` where nothing bounds it.

    Other calls can hold it up further at a gate; `TimeoutPolicy(total=...)` bounds that too, and how long
    tokens are waited for, which nothing else does.
    """
    if policy.timeout is None:
        return None
    if replays:
        return policy.timeout.total
    attempt, total, retry = policy.timeout.attempt, policy.timeout.total, policy.retry
    if attempt is None or (retry is not None and retry.wait is not None and retry.max_attempts > 1):
        return total
    told = _backoff.longest_after_told(LONGEST_GATE if retry is None else retry.max_retry_after)
    seconds = attempt
    if policy.rate_limit is not None:
        seconds += told  # an earlier call may have closed the gate
    if retry is not None:
        for failed in range(1, retry.max_attempts):
            seconds += max(_backoff.longest(retry, failed), told) + attempt
    return seconds if total is None else min(seconds, total)
