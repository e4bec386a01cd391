"""What is measured: bare layers, each of ours alone, each left out of the whole, and the whole."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from aragora_transport import Policy, resilient
from aragora_transport._scope import CallScope
from aragora_transport.layers import (
    BreakerTransport,
    DeadlineTransport,
    LogTransport,
    MetricsTransport,
    RateLimitTransport,
    RetryTransport,
    TimeoutTransport,
)

from ._null import Nested, NullTransport

ONE, FIVE, CALL = "one bare layer", "five bare layers", "the call alone"
WHOLE, NOTHING = "whole stack", "all left out"
LAYERS = {
    "log": LogTransport,
    "metrics": MetricsTransport,
    "deadline": DeadlineTransport,
    "retry": RetryTransport,
    "rate limit": RateLimitTransport,
    "breaker": BreakerTransport,
    "timeout": TimeoutTransport,
}
OFF: dict[str, dict[str, Any]] = {  # as a policy leaves layers out
    "log": {"log": False},
    "metrics": {"metrics": False},
    "deadline and timeout": {"timeout": None},
    "retry": {"retry": None},
    "rate limit": {"rate_limit": None},
    "breaker": {"breaker": None},
}


def stack(below: Any = None, **changes: Any) -> Any:
    """The whole standard stack, less what `changes` of its policy switch off."""
    return resilient(
        "bench", below or NullTransport(), policy=Policy(**changes), registry=CollectorRegistry()
    )


def transports() -> dict[str, Any]:
    """Everything of ours, by the name of its case."""
    return {
        ONE: Nested(NullTransport()),
        FIVE: _five_nested(),
        # Ours begin with the whole, for it is run first, and a class's instances are laid out by what the
        # first of them were like: in most programs they are a whole stack's.
        WHOLE: stack(),
        CALL: CallScope(NullTransport(), platform="bench"),
        **{f"{name} alone": _alone(layer) for name, layer in LAYERS.items()},
        **{f"all but {name}": stack(**off) for name, off in OFF.items()},
        NOTHING: stack(**{name: value for off in OFF.values() for name, value in off.items()}),
    }


def _five_nested() -> Any:
    transport: Any = NullTransport()
    for _ in range(5):
        transport = Nested(transport)
    return transport


def _alone(layer: Any) -> Any:
    """One of our layers by itself."""
    keywords = {"registry": CollectorRegistry()} if layer is MetricsTransport else {}
    return layer(NullTransport(), platform="bench", **keywords)
