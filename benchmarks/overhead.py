"""What each layer adds to a request on a network that answers at once.

    python -m benchmarks.overhead [--quick] [--json]

"direct" calls the transport and reads the body; "client" is a whole `AsyncClient.get`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from aragora_transport import Policy, resilient, resilient_sync
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
from benchmarks._harness import Added, Batch, measure
from benchmarks._null import BlockingNullTransport, Nested, NullTransport

URL = "http://platform.test/"
LAYERS = {
    "log": LogTransport,
    "metrics": MetricsTransport,
    "deadline": DeadlineTransport,
    "retry": RetryTransport,
    "rate limit": RateLimitTransport,
    "breaker": BreakerTransport,
    "timeout": TimeoutTransport,
}
OFF: dict[str, Any] = {
    "log": False,
    "metrics": False,
    "timeout": None,
    "retry": None,
    "breaker": None,
    "rate_limit": None,
}


def direct(transport: Any) -> Batch:
    """Requests straight into a transport, their bodies read to the end and closed."""
    request = httpx.Request("GET", URL, extensions={"timeout": httpx.Timeout(5.0).as_dict()})

    async def batch(count: int) -> None:
        for _ in range(count):
            response = await transport.handle_async_request(request)
            async for _chunk in response.stream:
                pass
            await response.stream.aclose()

    return _running(batch)


def client(transport: Any) -> Batch:
    """Whole requests by an `httpx.AsyncClient`."""
    caller = httpx.AsyncClient(transport=transport, trust_env=False)

    async def batch(count: int) -> None:
        for _ in range(count):
            await caller.get(URL)

    return _running(batch)


def blocking_client(transport: Any) -> Batch:
    """Whole requests by an `httpx.Client`."""
    caller = httpx.Client(transport=transport, trust_env=False)

    def batch(count: int) -> None:
        for _ in range(count):
            caller.get(URL)

    return batch


_runner = asyncio.Runner()


def _running(batch: Callable[[int], Coroutine[Any, Any, None]]) -> Batch:
    return lambda count: _runner.run(batch(count))


def stack(**changes: Any) -> Any:
    """The whole standard stack, less what `changes` switches off."""
    return resilient("bench", NullTransport(), policy=Policy(**changes), registry=CollectorRegistry())


def alone(layer: Any) -> Any:
    """One of our layers by itself, in the scope that every call begins in."""
    keywords = {"registry": CollectorRegistry()} if layer is MetricsTransport else {}
    return CallScope(layer(NullTransport(), **keywords), platform="bench")


def five_nested() -> Any:
    transport: Any = NullTransport()
    for _ in range(5):
        transport = Nested(transport)
    return transport


def transports() -> dict[str, Any]:
    """Everything that is measured directly."""
    return {
        "one bare layer": Nested(NullTransport()),
        "five bare layers": five_nested(),
        "the call alone": CallScope(NullTransport(), platform="bench"),
        **{f"{name} alone": alone(layer) for name, layer in LAYERS.items()},
        **{f"all but {name}": stack(**{name: off}) for name, off in OFF.items()},
        "whole stack": stack(),
    }


def run(*, rounds: int, batch: int, progress: Callable[[int, int], object]) -> dict[str, list[Added]]:
    found = transports()
    return {
        "direct": measure(
            direct(NullTransport()),
            {name: direct(transport) for name, transport in found.items()},
            rounds=rounds,
            batch=batch,
            progress=progress,
        ),
        "client": measure(
            client(NullTransport()), {"whole stack": client(stack())}, rounds=rounds, batch=batch
        ),
        "blocking client": measure(
            blocking_client(BlockingNullTransport()),
            {
                "whole stack": blocking_client(
                    resilient_sync("bench", BlockingNullTransport(), registry=CollectorRegistry())
                )
            },
            rounds=rounds,
            batch=batch,
        ),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    results = run(
        rounds=20 if options.quick else 100,
        batch=200,
        progress=lambda done, all_: print(f"\rround {done}/{all_}", end="", file=sys.stderr),
    )
    print(file=sys.stderr)
    if options.json:
        print(json.dumps({suite: [asdict(added) for added in found] for suite, found in results.items()}))
        return 0
    for suite, found in results.items():
        unit = next((added.p10 for added in found if added.name == "one bare layer"), None)
        print(f"\n{suite}: added microseconds of CPU time per request (bare: {found[0].bare:.1f})")
        print(f"{'':24}{'p10':>8}{'median':>8}{'ratio':>8}" + (f"{'layers':>8}" if unit else ""))
        for added in found:
            layers = f"{added.p10 / unit:8.1f}" if unit and unit > 0 else ""
            print(f"{added.name:24}{added.p10:8.2f}{added.median:8.2f}{added.ratio:8.3f}{layers}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
