"""Resilience for HTTP as httpx transports: timeouts, retries, circuits, rate limits, metrics, logs."""

from aragora_transport._credentials import Secret
from aragora_transport._options import call_options
from aragora_transport._version import __version__ as __version__
from aragora_transport.correlation import correlation_id, correlation_scope
from aragora_transport.errors import (
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    TokenRefreshError,
)
from aragora_transport.policy import (
    BreakerPolicy,
    Policy,
    RateLimitPolicy,
    RetryBudget,
    RetryPolicy,
    TimeoutPolicy,
)
from aragora_transport.profile import Bucket, Judgement, Profile
from aragora_transport.result import ConnectorResult
from aragora_transport.stack import resilient, resilient_sync, wrap_client

__all__ = [
    "BreakerPolicy",
    "Bucket",
    "CircuitOpenError",
    "ConnectorResult",
    "DeadlineExceededError",
    "Judgement",
    "Policy",
    "Profile",
    "RateLimitPolicy",
    "RateLimitedError",
    "RetryBudget",
    "RetryPolicy",
    "Secret",
    "TimeoutPolicy",
    "TokenRefreshError",
    "call_options",
    "correlation_id",
    "correlation_scope",
    "resilient",
    "resilient_sync",
    "wrap_client",
]
