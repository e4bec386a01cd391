"""What every layer shares: the transport below, opening and closing it, and the order that makes sense.

Not an extension point: a layer of your own needs nothing but `httpx.AsyncBaseTransport`.
"""

from __future__ import annotations

import functools
import reprlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from aragora_transport._clock import SYSTEM, Clock
from aragora_transport._flavor import flavor_of, inside_of
from aragora_transport._scope import CallScope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

T = TypeVar("T")

# Outermost first. A layer may stand anywhere outside of those that follow it; log and metrics do not mind
# each other.
_ORDER = (
    ("LogTransport", "MetricsTransport"),
    ("DeadlineTransport",),
    ("RetryTransport",),
    ("AuthTransport",),
    ("RateLimitTransport",),
    ("BreakerTransport",),
    ("TimeoutTransport",),
)
_RANK = {name: rank for rank, names in enumerate(_ORDER) for name in names}
_WHY_NOT_BELOW = {
    "LogTransport": "it would see attempts, never the call, its retries or its waits",
    "MetricsTransport": "it would count attempts as calls, and miss retries and refusals",
    "DeadlineTransport": "the waits between the attempts would be outside of its total limit",
    "RetryTransport": "the layers above it would not take part in the attempts it makes",
    "AuthTransport": "a refreshed token would be charged to the attempt's own limits",
    "RateLimitTransport": "a call would wait at the gate while it holds a permit or an attempt limit runs",
    "BreakerTransport": "it would never see a timeout, only a cancellation, which counts as nothing",
}


class Layer(httpx.AsyncBaseTransport):
    """A transport around another one."""

    def __init__(self, below: Any, *, platform: str = "default", clock: Clock = SYSTEM) -> None:
        name = type(self).__name__
        if not hasattr(below, "handle_async_request"):
            hint = (
                "; it is a blocking transport: use resilient_sync(), or wrap it in sync.Driven"
                if hasattr(below, "handle_request")
                else ""
            )
            raise TypeError(f"{name}({below!r}): the first argument must be an async transport{hint}")
        checked(f"{name}(platform=...)", platform, str)
        checked(f"{name}(clock=...)", clock, Clock)
        _check_order(self, below)
        self.below = below
        self.flavor = flavor_of(below)
        self._clock = clock
        self._platform = platform
        self._scope: CallScope | None = None

    async def _alone(self, request: Any, handle: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        """Handle a request that comes with no call, by the layer's own `handle`: it is the outermost one."""
        if self._scope is None:
            # Not `self`: what instrumentation puts on the instance, or a subclass in front of the layer's
            # own method, has seen this request already.
            top = SimpleNamespace(handle_async_request=functools.partial(handle, self), flavor=self.flavor)
            self._scope = CallScope(top, platform=self._platform, clock=self._clock)
        return await self._scope.handle_async_request(request)

    async def __aenter__(self) -> Self:
        await self.below.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.below.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        await self.below.aclose()


def layers_of(transport: Any) -> list[Any]:
    """The layers from this transport inwards, outermost first, through layers of others where it can be."""
    found: list[Any] = []
    seen: list[Any] = []
    while transport is not None and not any(transport is one for one in seen):
        seen.append(transport)
        if isinstance(transport, Layer):
            found.append(transport)
        transport = inside_of(transport)
    return found


def checked(what: str, value: Any, kind: type[T]) -> T:
    """`value`, if it is of that kind; raises `TypeError` otherwise."""
    given: object = value
    if isinstance(given, kind):
        return given
    shown = reprlib.repr(given)
    meant = f"; call it: {given.__name__}()" if isinstance(given, type) and issubclass(given, kind) else ""
    raise TypeError(f"{what} is {shown}, but it must be a {kind.__name__}{meant}")


def _known(layer: Any) -> str:
    """The name of the layer of ours that it is, or is a subclass of; "" for one of somebody else."""
    return next((kind.__name__ for kind in type(layer).__mro__ if kind.__name__ in _RANK), "")


def _check_order(layer: Any, below: Any) -> None:
    name = _known(layer)
    inside = [_known(inner) for inner in layers_of(below)]
    if name and name in inside:
        raise ValueError(f"{name} stands around another {name}: the two would multiply; give one of them up")
    for inner in inside:
        if name and inner and _RANK[inner] < _RANK[name]:
            raise ValueError(
                f"{name} stands around {inner}, but {inner} belongs outside of it: "
                f"{_WHY_NOT_BELOW[inner]}. Swap the two"
            )
