"""What others add to the same request: libraries as their users have them, where they are installed.

Each is one transport around the null network. Those that are no transports do, around the send, what
their documentation shows for one call.
"""

from __future__ import annotations

import importlib.metadata
import io
import logging
from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client import CollectorRegistry, Counter, Histogram

from ._null import NullTransport

CLIENTWRIGHT, PYBREAKER = "clientwright, full stack", "pybreaker calling()"
DISTRIBUTIONS = (  # whose versions are told
    *("httpx", "clientwright", "httpx-retries", "tenacity", "pybreaker", "prometheus-client"),
    *("python-json-logger", "opentelemetry-instrumentation-httpx"),
)


class Around(httpx.AsyncBaseTransport):
    """A send with something around it."""

    def __init__(self, below: httpx.AsyncBaseTransport) -> None:
        self.below = below


def _clientwright() -> Any:
    """Its defaults (deadline, retry, breaker, redirects, logging) with its prometheus metrics."""
    import clientwright  # noqa: PLC0415  # optional, as all peers
    from clientwright.adapters.observability import PrometheusClientMetrics  # noqa: PLC0415  # only where they are installed

    metrics = PrometheusClientMetrics(registry=CollectorRegistry())
    config = clientwright.ClientConfig(service_name="bench")
    client = clientwright.build("httpx", config, clientwright.AdapterDeps(metrics=metrics))
    transport: Any = client._transport  # noqa: SLF001  # it takes no transport: its own is replaced
    if not hasattr(transport, "_inner"):
        raise ImportError("its inside has changed, so it cannot be put over the null network")
    transport._inner = NullTransport()  # noqa: SLF001  # as above
    return transport


def _httpx_retries() -> Any:
    import httpx_retries  # noqa: PLC0415  # only where they are installed

    return httpx_retries.RetryTransport(transport=NullTransport())


def _tenacity() -> Any:
    import tenacity  # noqa: PLC0415  # only where they are installed

    class Retrying(Around):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            retrying = tenacity.AsyncRetrying(
                stop=tenacity.stop_after_attempt(3),
                wait=tenacity.wait_exponential_jitter(),
                retry=tenacity.retry_if_exception_type(httpx.TransportError),
                reraise=True,
            )
            return await retrying(self.below.handle_async_request, request)

    return Retrying(NullTransport())


def _pybreaker() -> Any:
    import pybreaker  # noqa: PLC0415  # only where they are installed

    breaker = pybreaker.CircuitBreaker()

    class Breaking(Around):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            with breaker.calling():
                return await self.below.handle_async_request(request)

    return Breaking(NullTransport())


def _prometheus() -> Any:
    registry = CollectorRegistry()
    requests = Counter("requests", "Requests.", ["platform", "operation", "status"], registry=registry)
    latency = Histogram("latency", "Latency.", ["platform", "operation"], registry=registry)

    class Counting(Around):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await self.below.handle_async_request(request)
            requests.labels("bench", "GET", "200").inc()
            latency.labels("bench", "GET").observe(0.001)
            return response

    return Counting(NullTransport())


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


def _json_record() -> Any:
    from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415  # only where they are installed

    logger = logging.Logger("bench")  # noqa: LOG001  # of its own: the root's handlers are somebody else's
    handler = logging.StreamHandler(_Nowhere())
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)

    class Logging(Around):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await self.below.handle_async_request(request)
            logger.info("request", extra={"operation": request.method, "status_code": response.status_code})
            return response

    return Logging(NullTransport())


def _opentelemetry() -> Any:
    from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransport  # noqa: PLC0415  # only where they are installed
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # only where they are installed

    return AsyncOpenTelemetryTransport(NullTransport(), tracer_provider=TracerProvider())


PEERS: dict[str, Callable[[], Any]] = {
    CLIENTWRIGHT: _clientwright,
    "httpx-retries": _httpx_retries,
    "tenacity per call": _tenacity,
    PYBREAKER: _pybreaker,
    "prometheus .labels()": _prometheus,
    "one JSON log record": _json_record,
    "opentelemetry": _opentelemetry,
}


def peers() -> tuple[dict[str, Any], tuple[str, ...]]:
    """The transports of those that are installed, and why the others are missing."""
    found: dict[str, Any] = {}
    missing: list[str] = []
    for name, build in PEERS.items():
        try:
            found[name] = build()
        except ImportError as error:
            missing.append(
                f"{name}: not measured ({error}); pip install 'aragora-transport[bench]' brings it, "
                "where it supports this Python"
            )
    return found, tuple(missing)


def versions() -> dict[str, str | None]:
    """Of everything that is measured; `None` for what is not installed."""
    found: dict[str, str | None] = {}
    for name in ("aragora-transport", *DISTRIBUTIONS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
