"""What every layer shares: how it is called, how it hands on, and the order that makes sense.

A client, or a transport of somebody else, calls a layer as it calls any transport. One layer of ours calls
the next one directly, and passes the call along: nothing has to be looked up again.

Not an extension point: a layer of your own needs nothing but `httpx.AsyncBaseTransport`.
"""

from __future__ import annotations

import reprlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aragora_transport._around import Around
from aragora_transport._call import CALL
from aragora_transport._clock import SYSTEM, Clock
from aragora_transport._flavor import inside_of
from aragora_transport._scope import CallScope, Entry, watched

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aragora_transport._call import Call, Handler

T = TypeVar("T")

# Outermost first. A layer may stand anywhere outside of those that follow it; log and metrics do not mind
# each other.
_ORDER = (
    ("TracingTransport",),
    ("LogTransport", "MetricsTransport"),
    ("DeadlineTransport",),
    ("RetryTransport",),
    ("AuthTransport",),
    ("RateLimitTransport",),
    ("BreakerTransport",),
    ("AttemptTracingTransport",),
    ("TimeoutTransport",),
)
_RANK = {name: rank for rank, names in enumerate(_ORDER) for name in names}
_WHY_NOT_BELOW = {
    "TracingTransport": "what the layers above it do would be outside of the call's span",
    "LogTransport": "it would see attempts, never the call, its retries or its waits",
    "MetricsTransport": "it would count attempts as calls, and miss retries and refusals",
    "DeadlineTransport": "the waits between the attempts would be outside of its total limit",
    "RetryTransport": "the layers above it would not take part in the attempts it makes",
    "AuthTransport": "a refreshed token would be charged to the attempt's own limits",
    "RateLimitTransport": "a call would wait at the gate while it holds a permit or an attempt limit runs",
    "AttemptTracingTransport": "it would never see a timeout, only a cancellation",
    "BreakerTransport": "it would never see a timeout, only a cancellation, which counts as nothing",
}


class Layer(Around):
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
        super().__init__(below)
        self._link = _linked(below)
        self.next = handler_of(below)
        self._clock = clock
        self._platform = platform
        self._scope: CallScope | None = None

    def entry(self) -> Entry:
        """The layers from here on that only look on, and how to call the first one that does more."""
        return Entry.at(self.handle, self.entry_below().max_attempts)

    def entry_below(self) -> Entry:
        """The same from the next layer on."""
        return Entry.at(self.next) if self._link is None else self._link.entry()

    def handle(self, request: Any, call: Call) -> Awaitable[Any]:
        """What the layer does. It hands on by `self.next(request, call)`, as often as it takes."""
        raise NotImplementedError  # pragma: no cover  # each layer has its own

    async def handle_async_request(self, request: Any) -> Any:
        """As every transport: for clients, and for transports of others that stand around this one."""
        call: Call | None = request.extensions.get(CALL)
        if call is not None:  # through a transport of somebody else
            return await watched(self.entry(), request, call)
        if self._scope is None:  # it is the outermost layer
            self._scope = CallScope(self, self.entry(), platform=self._platform, clock=self._clock)
        return await self._scope.handle_async_request(request)


def _linked(transport: Any) -> Layer | None:
    """The transport, where it is a layer of ours that can be called directly."""
    if (
        isinstance(transport, Layer)
        # A subclass or an instrument that put its own in front of it must see every request.
        and type(transport).handle_async_request is Layer.handle_async_request
        and "handle_async_request" not in vars(transport)
    ):
        return transport
    return None


def handler_of(transport: Any) -> Handler:
    """How to hand on to a transport: straight into a layer of ours, else as to any transport."""
    layer = _linked(transport)
    if layer is None:
        return lambda request, _: transport.handle_async_request(request)
    entry = layer.entry()
    return partial(watched, entry) if entry.watchers else entry.with_options


def entry_of(transport: Any) -> Entry:
    """The entry of a layer of ours, or that into any other transport."""
    layer = _linked(transport)
    return Entry.at(handler_of(transport)) if layer is None else layer.entry()


def chain_of(transport: Any) -> list[Any]:
    """A transport and what it wraps, outermost first, through those of others where it can be."""
    seen: list[Any] = []
    while transport is not None and not any(transport is one for one in seen):
        seen.append(transport)
        transport = inside_of(transport)
    return seen


def layers_of(transport: Any) -> list[Any]:
    """The layers from this transport inwards, outermost first."""
    return [one for one in chain_of(transport) if isinstance(one, Layer)]


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
