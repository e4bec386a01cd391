"""The layers, outermost first. Each works alone or stacked: `RetryTransport(below, policy=...)`."""

from aragora_transport._tokens import Token, TokenRefused, TokenSource
from aragora_transport.layers._configure_logging import configure_logging
from aragora_transport.layers._otel import Tracing
from aragora_transport.layers._redaction import install_log_redaction
from aragora_transport.layers.attempt_tracing import AttemptTracingTransport
from aragora_transport.layers.auth import AuthTransport
from aragora_transport.layers.breaker import BreakerTransport
from aragora_transport.layers.deadline import DeadlineTransport
from aragora_transport.layers.logs import LogTransport
from aragora_transport.layers.metrics import MetricsTransport
from aragora_transport.layers.rate_limit import RateLimitTransport
from aragora_transport.layers.retry import RetryTransport
from aragora_transport.layers.timeout import TimeoutTransport
from aragora_transport.layers.tracing import TracingTransport

__all__ = [
    "AttemptTracingTransport",
    "AuthTransport",
    "BreakerTransport",
    "DeadlineTransport",
    "LogTransport",
    "MetricsTransport",
    "RateLimitTransport",
    "RetryTransport",
    "TimeoutTransport",
    "Token",
    "TokenRefused",
    "TokenSource",
    "Tracing",
    "TracingTransport",
    "configure_logging",
    "install_log_redaction",
]
