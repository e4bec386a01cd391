"""The network transport that a stack makes when it is given none.

httpx reads proxies from the environment only for a client that was given no transport; ours is given one,
so that the environment is read here.
"""

from __future__ import annotations

import urllib.request
from typing import Any

import httpx

from aragora_transport._flavor import Flavor, FlavorName, flavor, flavor_of


def network(name: FlavorName, *, blocking: bool) -> Any:
    """The flavour's own transport, behind the proxies that the environment names."""
    module = flavor(name).module
    make = module.HTTPTransport if blocking else module.AsyncHTTPTransport
    proxies = urllib.request.getproxies()
    if not any(proxies.get(scheme) for scheme in ("http", "https", "all")):
        return make()
    # A client made without transport= reads the environment, no_proxy included; its parts are taken over.
    client: Any = (module.Client if blocking else module.AsyncClient)()
    routes = _BlockingRoutes if blocking else _Routes
    return routes(client, flavor_of(client))


class _Routes(httpx.AsyncBaseTransport):
    """Sends each request through the transport that a client of httpx's own would choose."""

    def __init__(self, client: Any, flavor: Flavor) -> None:
        self._client = client
        self.flavor = flavor

    def _route(self, request: Any) -> Any:
        return self._client._transport_for_url(request.url)  # noqa: SLF001  # httpx has no public way to it

    async def handle_async_request(self, request: Any) -> Any:
        return await self._route(request).handle_async_request(request)

    async def aclose(self) -> None:
        await self._client.aclose()


class _BlockingRoutes(httpx.BaseTransport):
    """The same for a blocking client."""

    def __init__(self, client: Any, flavor: Flavor) -> None:
        self._client = client
        self.flavor = flavor

    def handle_request(self, request: Any) -> Any:
        return self._client._transport_for_url(request.url).handle_request(request)  # noqa: SLF001  # as above

    def close(self) -> None:
        self._client.close()
