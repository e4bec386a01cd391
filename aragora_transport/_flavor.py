"""The one file that knows both httpx and httpx2, the continuation with the same API.

A layer asks `flavor_of(transport)` once, for the transport below it, and takes exception and stream
classes from the answer. It tests the class of no request or response and builds none.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any, Literal

from aragora_transport import errors

FlavorName = Literal["httpx", "httpx2"]
_INSIDE = ("below", "_below", "top", "transport", "_transport", "wrapped", "_wrapped", "inner", "_inner")


class Flavor:
    """The classes of one of the two packages, and our own errors as instances of its errors."""

    def __init__(self, name: FlavorName) -> None:
        self.name = name
        try:
            module: Any = importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"flavor={name!r} needs the package {name}, which is not installed; "
                f"install it by pip install 'aragora-transport[{name}]'"
            ) from error
        self.module = module
        self.TransportError: type[Exception] = module.TransportError
        self.TimeoutException: type[Exception] = module.TimeoutException
        self.PoolTimeout: type[Exception] = module.PoolTimeout
        # What httpx raises before it could hand a single byte of the request to the network.
        self.connecting: tuple[type[Exception], ...] = (
            module.ConnectError,
            module.ConnectTimeout,
            module.PoolTimeout,
        )
        # The caller's own mistakes: no answer of the platform, and the same on every attempt.
        self.local: tuple[type[Exception], ...] = (module.LocalProtocolError, module.UnsupportedProtocol)
        self.CircuitOpenError: type[errors.CircuitOpenError] = _own(
            errors.CircuitOpenError, module.TransportError
        )
        self.RateLimitedError: type[errors.RateLimitedError] = _own(
            errors.RateLimitedError, module.TransportError
        )
        self.TokenRefreshError: type[errors.TokenRefreshError] = _own(
            errors.TokenRefreshError, module.TransportError
        )
        self.DeadlineExceededError: type[errors.DeadlineExceededError] = _own(
            errors.DeadlineExceededError, module.TimeoutException
        )

    def __repr__(self) -> str:
        return f"Flavor({self.name!r})"


def _own(ours: type[Any], theirs: type[Exception]) -> type[Any]:
    if issubclass(ours, theirs):
        return ours
    # Pickle finds the class by this name in `errors`; see `__getattr__` there.
    name = f"{ours.__name__}_httpx2"
    # In records, logs and metrics it goes by the name that it has under httpx.
    return type(ours.__name__, (ours, theirs), {"__module__": errors.__name__, "__qualname__": name})


@functools.cache
def flavor(name: FlavorName) -> Flavor:
    """The flavour of that name; raises `ImportError` when its package is not installed."""
    if name not in ("httpx", "httpx2"):
        raise ValueError(f"flavor={name!r}: it must be 'httpx' or 'httpx2'")
    return Flavor(name)


def flavor_of(transport: object) -> Flavor:
    """The flavour that a transport or client was written for.

    Its own word, or where its base comes from, or what is true of the transport inside it.
    """
    httpx2: Any = sys.modules.get("httpx2")
    # Asked for by identity as well: some SDKs export a base under a name of theirs and rename its module.
    bases = () if httpx2 is None else (httpx2.BaseTransport, httpx2.AsyncBaseTransport)
    seen: list[object] = []
    while transport is not None and not any(transport is one for one in seen):
        seen.append(transport)
        known = getattr(transport, "flavor", None)
        if isinstance(known, Flavor):
            return known
        for base in type(transport).__mro__:
            root = base.__module__.partition(".")[0]
            if root == "httpx2" or base in bases:
                return flavor("httpx2")
            if root == "httpx":
                return flavor("httpx")
        transport = inside_of(transport)
    return flavor("httpx")


def copy_of(request: Any, **changes: Any) -> Any:
    """The request with other attributes, of its own class, whichever flavour's; the rest is shared."""
    copy: Any = object.__new__(request.__class__)
    copy.__dict__.update(request.__dict__)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


def inside_of(transport: object) -> Any:
    """What a transport wraps, by the names that are usual for it; `None` where it wraps nothing."""
    # Not by getattr: a mock has every attribute.
    inside: dict[str, Any] = getattr(transport, "__dict__", {})
    return next((inside[name] for name in _INSIDE if inside.get(name) is not None), None)
