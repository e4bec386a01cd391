"""The correlation id as a header of what is sent: where it is switched on, and to the hosts named alone."""

from __future__ import annotations

import re
import reprlib
from typing import TYPE_CHECKING, Any

from aragora_transport._around import Around
from aragora_transport._call import CALL
from aragora_transport._flavor import copy_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from aragora_transport._call import Call

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.1
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")


class CorrelationHeaderTransport(Around):
    """Around the real transport: writes the header on a copy of each request to one of the hosts.

    On a copy, as httpx takes the headers of a request along to wherever a redirect leads.
    """

    def __init__(self, below: Any, header: str, hosts: frozenset[str]) -> None:
        super().__init__(below)
        self.header = header
        self.hosts = hosts

    async def handle_async_request(self, request: Any) -> Any:
        call: Call | None = request.extensions.get(CALL)
        sent: Any = request
        if call is not None and request.url.host in self.hosts and self.header not in request.headers:
            line = (self.header.encode(), call.correlation_id.encode())
            sent = copy_of(request, headers=type(request.headers)([*request.headers.raw, line]))
        try:
            response = await self._below.handle_async_request(sent)
            if getattr(response, "_request", None) is sent:
                response.request = request
        except BaseException as error:
            if getattr(error, "_request", None) is sent:
                error.request = request  # type: ignore[attr-defined]  # as httpx's errors have it
            raise
        finally:
            sent = request = None  # a secret may be written in them, and tracebacks show a frame's locals
        return response


def with_header(platform: str, transport: Any, header: str | None, hosts: Collection[str]) -> Any:
    """The transport, around it what writes the header, if one was asked for."""
    several: Any = (hosts,) if isinstance(hosts, str) else hosts
    if header is None:
        if several:
            raise ValueError(
                f"{platform}: correlation_hosts={reprlib.repr(hosts)} says where to, but no "
                "correlation_header= says what; name one, such as 'X-Correlation-ID'"
            )
        return transport
    if not isinstance(header, str) or not _HEADER.fullmatch(header):  # pyright: ignore[reportUnnecessaryIsInstance]  # users err
        raise ValueError(
            f"{platform}: correlation_header={reprlib.repr(header)}: it must be the name of a header"
        )
    named: list[Any] = [host.lower() if isinstance(host, str) else host for host in several]
    for host in named:
        if not isinstance(host, str) or not _HOST.fullmatch(host):
            raise ValueError(
                f"{platform}: correlation_hosts: {reprlib.repr(host)} is no host; give names alone, such as "
                "'gateway.example.com', without scheme or port"
            )
    if not named:
        raise ValueError(
            f"{platform}: correlation_header={header!r} is sent to the hosts of correlation_hosts= alone; "
            "name them"
        )
    return CorrelationHeaderTransport(transport, header, frozenset(host.strip("[]") for host in named))
