"""Other libraries in the same simulation, each as it comes: its own defaults, or the recipe of its manual.

They are optional (extra `bench`) and are imported when they are asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
from typing import TYPE_CHECKING, Any

import httpx

from aragora_transport.simulation.contenders import Contender

if TYPE_CHECKING:
    from collections.abc import Callable

    from aragora_transport.simulation.servers import Server
    from aragora_transport.testing import VirtualTime

_RETRIED = {429, 500, 502, 503, 504}  # as ours


def _seeded(rng: random.Random) -> None:
    # They draw their jitter from the module's own generator.
    random.seed(rng.random())


def _httpx_retries(server: Server, _clock: VirtualTime, rng: random.Random, *_: object) -> Any:
    """Its transport with its defaults: ten retries without a wait."""
    _seeded(rng)
    return importlib.import_module("httpx_retries").RetryTransport(transport=server)


def _tenacity(server: Server, _clock: VirtualTime, rng: random.Random, *_: object) -> Any:
    """Three attempts with random exponential waits, around each request."""
    _seeded(rng)
    tenacity = importlib.import_module("tenacity")

    def again(response: httpx.Response) -> bool:
        return response.status_code in _RETRIED

    def last_outcome(state: Any) -> Any:
        return state.outcome.result()

    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(multiplier=1, max=60),
        retry=tenacity.retry_if_exception_type(httpx.TransportError) | tenacity.retry_if_result(again),
        retry_error_callback=last_outcome,
    )

    class Retried(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response: httpx.Response = await retrying.copy()(server.handle_async_request, request)
            return response

    return Retried()


def _clientwright(server: Server, clock: VirtualTime, rng: random.Random, *_: object) -> Any:
    """Its client with its defaults, in our time; its network is put under its transport."""
    lib = importlib.import_module("clientwright")
    quiet = lib.ObservabilityConfig(logging=False, metrics=False, tracing=False)
    config = lib.ClientConfig(service_name="simulated", observability=quiet)
    runtime = lib.ClientRuntime.for_config(config, clock=clock.monotonic, rng=rng)
    client = lib.build("httpx", config, deps=lib.AdapterDeps(runtime=runtime, clock=clock.monotonic))
    transport = client._transport  # noqa: SLF001  # it has no public way to a network of ours
    transport._inner = server  # noqa: SLF001  # as above
    return transport


_PEERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "tenacity": ("tenacity", _tenacity),
    "httpx-retries": ("httpx_retries", _httpx_retries),
    "clientwright": ("clientwright", _clientwright),
}
NAMES = tuple(_PEERS)


def peer(name: str) -> Contender:
    """Another library by name. Raises `LookupError` where it is not installed."""
    module, make = _PEERS[name]
    if importlib.util.find_spec(module) is None:
        raise LookupError(
            f"{name} is not installed; the extra `bench` brings it where it runs on this Python"
        )
    return Contender(name, make)


def installed() -> list[Contender]:
    """Those that are installed."""
    return [
        Contender(name, make) for name, (module, make) in _PEERS.items() if importlib.util.find_spec(module)
    ]
