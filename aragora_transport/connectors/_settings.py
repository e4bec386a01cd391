"""What a connector is made with: the guide's options on a policy, a base URL, and parts of URLs."""

from __future__ import annotations

import reprlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import quote

import httpx

from aragora_transport.policy import BreakerPolicy, Policy, ResendUnsafe, TimeoutPolicy

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from aragora_transport._clock import Clock
    from aragora_transport.layers import Tracing


class ConnectorOptions(TypedDict, total=False):
    """The keywords of `Connector` that every platform's connector hands on."""

    policy: Policy | None
    transport: Any
    registry: CollectorRegistry | None
    clock: Clock | None
    tracing: bool | Tracing
    enable_circuit_breaker: bool
    circuit_breaker_threshold: int | None
    circuit_breaker_cooldown: float | None
    request_timeout: float | None
    resend_unsafe: ResendUnsafe


def checked_url(base_url: Any) -> str:
    if base_url == "":
        return ""
    try:
        url = httpx.URL(base_url)
    except (TypeError, httpx.InvalidURL):
        url = httpx.URL("")
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise ValueError(
            f"base_url={reprlib.repr(base_url)}: it must be a URL such as 'https://api.example.com/v1', "
            "without a query"
        )
    return str(base_url).rstrip("/")


def with_options(
    policy: Policy,
    *,
    enable_circuit_breaker: bool,
    threshold: int | None,
    cooldown: float | None,
    timeout: float | None,
) -> Policy:
    """The policy with the guide's four options in it."""
    breaker: BreakerPolicy | None = None
    if enable_circuit_breaker:
        changes = given(failure_threshold=threshold, cooldown=cooldown)
        breaker = replace(policy.breaker or BreakerPolicy(), **changes) if changes else policy.breaker
    limits = policy.timeout
    if timeout is not None:
        limits = replace(limits or TimeoutPolicy(), attempt=timeout)
    return replace(policy, breaker=breaker, timeout=limits)


def segment(value: object) -> str:
    """One segment of a URL's path, quoted: an id from elsewhere cannot lead to another path."""
    text = quote(str(value), safe="@:")
    if text in {"", ".", ".."}:
        raise ValueError(f"{value!r} is no id: it would lead to another path")
    return text


def given(**values: Any) -> dict[str, Any]:
    """Those that are not `None`."""
    return {name: value for name, value in values.items() if value is not None}
