"""What every transport around another one does: it is opened and closed with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from aragora_transport._flavor import flavor_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn, Self


class Around(httpx.AsyncBaseTransport):
    """A transport that stands around another one, and belongs to the same flavour."""

    def __init__(self, below: Any) -> None:
        self._below = below
        self.flavor = flavor_of(below)

    @property
    def below(self) -> Any:
        """The transport that it stands around."""
        return self._below

    @property
    def handle_request(self) -> NoReturn:
        """Not there: it is what a blocking client looks for, which has a stack of its own kind."""
        raise AttributeError(
            f"{type(self).__name__} is for an AsyncClient; for a blocking Client make the stack by "
            "resilient_sync(), or put sync.Driver around layers over sync.Driven"
        )

    __enter__ = handle_request

    async def __aenter__(self) -> Self:
        await self._below.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._below.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        await self._below.aclose()
