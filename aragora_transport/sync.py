"""The layers under a blocking client: the same code, driven to its end in the caller's thread.

A layer is written once, as `async def`. Nothing in it suspends but our own waits and the transport below.
Under a blocking client the waits park the thread and the transport below blocks, so that the coroutine
runs from start to end in one step.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, NoReturn, Self

import httpx

from aragora_transport._call import CALL
from aragora_transport._clock import SYSTEM
from aragora_transport._drive import drive
from aragora_transport._flavor import flavor_of, inside_of
from aragora_transport._scope import CallScope
from aragora_transport._timeouts import put_back, shortened

if TYPE_CHECKING:
    from types import TracebackType


class Driven(httpx.AsyncBaseTransport):
    """A blocking transport as the innermost one of a stack of layers."""

    def __init__(self, transport: Any) -> None:
        if not hasattr(transport, "handle_request"):
            is_async = hasattr(transport, "handle_async_request")
            hint = "; it is an async one: use resilient() and an AsyncClient" if is_async else ""
            raise TypeError(f"{reprlib.repr(transport)} is no blocking transport{hint}")
        self.transport = transport
        self.flavor = flavor_of(transport)

    async def handle_async_request(self, request: Any) -> Any:
        call = request.extensions.get(CALL)
        theirs = request.extensions.get("timeout")
        cut = None
        if call is not None and call.deadline is not None:
            # A thread can only be interrupted by httpx's own timeouts.
            cut = shortened(theirs, call.deadline - call.scope.now())
        try:
            if cut is not None:
                request.extensions["timeout"] = cut
            return self.transport.handle_request(request)
        finally:
            if cut is not None:
                put_back(request.extensions, theirs)
            request = None  # a secret may be written in it, and tracebacks show the locals of a frame

    async def __aenter__(self) -> Self:
        self.transport.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.transport.__exit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        self.transport.close()


class Driver(httpx.BaseTransport):
    """The transport for a blocking client over layers whose innermost transport is `Driven`.

    `Driver(RetryTransport(Driven(httpx.HTTPTransport())))`. It also works inside a running event loop,
    which it blocks, as every blocking client does.
    """

    def __init__(self, transport: Any) -> None:
        if not hasattr(transport, "handle_async_request"):
            hint = ": wrap it in Driven first" if hasattr(transport, "handle_request") else ""
            raise TypeError(f"Driver({reprlib.repr(transport)}): it drives async layers{hint}")
        _check_innermost(transport)
        if not isinstance(transport, CallScope):
            transport = CallScope(
                transport,
                platform=getattr(transport, "_platform", "default"),
                clock=getattr(transport, "_clock", SYSTEM),
            )
        transport.block()
        self.top: CallScope = transport
        self.flavor = transport.flavor

    @property
    def handle_async_request(self) -> NoReturn:
        """Not there: it is what an async client looks for, which has a stack of its own kind."""
        raise AttributeError(
            f"{type(self).__name__} is for a blocking Client; for an AsyncClient make the stack by "
            "resilient(), or leave sync.Driver away"
        )

    __aenter__ = handle_async_request

    def handle_request(self, request: Any) -> Any:
        return drive(self.top.handle_async_request(request))

    def __enter__(self) -> Self:
        drive(self.top.__aenter__())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        drive(self.top.__aexit__(exc_type, exc_value, traceback))

    def close(self) -> None:
        drive(self.top.aclose())


def _check_innermost(transport: Any) -> None:
    innermost = transport
    for _ in range(100):  # it may hold itself
        inside = inside_of(innermost)
        if inside is None or isinstance(innermost, Driven):
            break
        innermost = inside
    if isinstance(innermost, flavor_of(transport).module.AsyncHTTPTransport):
        raise TypeError(
            f"Driver({reprlib.repr(transport)}): the innermost transport is async, "
            f"{reprlib.repr(innermost)}; put a blocking one there, such as Driven(httpx.HTTPTransport())"
        )
