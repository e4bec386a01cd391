"""What a policy sends again, found by trying: each outcome is met once by the real layers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx

from aragora_transport.events import RetryRefused, RetryScheduled
from aragora_transport.stack import resilient, resilient_sync
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport

if TYPE_CHECKING:
    from aragora_transport.events import Event
    from aragora_transport.policy import Policy

IDEMPOTENT, UNSAFE = "GET", "POST"  # PUT, DELETE, HEAD, OPTIONS and TRACE fare as the one, PATCH as the other
_STATUSES = (400, 401, 403, 404, 408, 409, 410, 412, 422, 423, 425, 429, 500, 501, 502, 503, 504, 505)


def _untrusted(request: httpx.Request) -> httpx.ConnectError:
    error = httpx.ConnectError("certificate verify failed", request=request)
    error.__cause__ = ssl.SSLCertVerificationError()
    return error


_OUTCOMES: dict[str, Any] = {
    **{str(status): status for status in _STATUSES},
    "429 with Retry-After: 1": Reply(status=429, headers={"retry-after": "1"}),
    "503 with Retry-After: 3600": Reply(status=503, headers={"retry-after": "3600"}),
    "no connection": httpx.ConnectError,
    "no free connection in the pool": httpx.PoolTimeout,
    "no answer in time": httpx.ReadTimeout,
    "connection lost before the answer": httpx.RemoteProtocolError,
    "certificate not trusted": _untrusted,
}


@dataclass(frozen=True, slots=True)
class Tried:
    """Whether an outcome of a method is sent again; else the reason, `None` where that was no question."""

    again: bool
    reason: str | None = None


def described(platform: str, policy: Policy) -> dict[str, Any]:
    """What a stack with this policy tells of itself."""
    return resilient(platform, ScriptedTransport(200), policy=policy).describe()


def tried(platform: str, policy: Policy) -> dict[str, dict[str, Tried]]:
    """For each outcome what becomes of it, for a method that is idempotent and for one that is not."""
    quiet = replace(policy, log=False, metrics=False)
    return {
        name: {method: _try(platform, quiet, step, method) for method in (IDEMPOTENT, UNSAFE)}
        for name, step in _OUTCOMES.items()
    }


def _try(platform: str, policy: Policy, step: Any, method: str) -> Tried:
    if policy.retry is None:
        return Tried(again=False, reason="attempts")
    clock = ManualClock()
    events: list[Event] = []
    network = ScriptedTransport(step, 200, clock=clock)
    stack = resilient_sync(platform, network, policy=policy, clock=clock, on_event=events.append)
    with httpx.Client(transport=stack, trust_env=False) as client:
        try:
            client.request(method, "http://platform.simulated/", content=b"{}")
        except httpx.TransportError:
            pass
    if any(isinstance(event, RetryScheduled) for event in events):
        return Tried(again=True)
    refused = [event.reason for event in events if isinstance(event, RetryRefused)]
    return Tried(again=False, reason=refused[0] if refused else None)
