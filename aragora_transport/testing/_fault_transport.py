"""Faults on purpose: a layer that makes a good network bad, the same way for the same seed."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx

from aragora_transport._body import finish
from aragora_transport._call import CALL
from aragora_transport._clock import SYSTEM
from aragora_transport._drive import drive
from aragora_transport._flavor import flavor_of
from aragora_transport.policy import http_statuses
from aragora_transport.testing._scripted import pause, read_timeout

if TYPE_CHECKING:
    from aragora_transport._clock import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """How often each fault is injected, as shares from 0 to 1; in all at most 1.

    `connect`, `read`: `ConnectError` and `ReadError` in place of the answer (the request of a read error
    has reached the transport below). `statuses`: answers made up in place of the real one, such as
    `{503: 0.3}`. `truncated`: the body ends in an error after its first bytes. `stalled`: the body
    stops for ever after its first bytes. `delayed`: the answer comes `delay` seconds later (default 1).
    """

    connect: float = 0.0
    read: float = 0.0
    statuses: Mapping[int, float] = field(default_factory=dict[int, float])
    truncated: float = 0.0
    stalled: float = 0.0
    delayed: float = 0.0
    delay: float = 1.0

    def __post_init__(self) -> None:
        http_statuses("Faults", "statuses", self.statuses)
        shares = self.shares()
        for name, share in shares.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share <= 1.0:  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may pass anything
                raise ValueError(f"Faults({name}={share!r}): a share must be a number from 0 to 1")
        if sum(shares.values()) > 1.0 + 1e-9:
            raise ValueError(f"Faults(...): the shares add up to {sum(shares.values()):g}, above 1")
        delay: Any = self.delay
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not delay >= 0:
            raise ValueError(f"Faults(delay={delay!r}): delay must be seconds of at least 0")

    def shares(self) -> dict[str, float]:
        """Each fault with its share."""
        named = {name: getattr(self, name) for name in ("connect", "read", "truncated", "stalled", "delayed")}
        return {**named, **{str(status): share for status, share in self.statuses.items()}}


class FaultTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Injects faults above a transport: `FaultTransport(below, faults=Faults(read=0.1), seed=7)`.

    It stands where the network is, beneath the layers under test, for async and blocking clients alike.
    `injected` counts each fault by name.
    """

    def __init__(self, below: Any, *, faults: Faults, seed: int = 0, clock: Clock = SYSTEM) -> None:
        if not isinstance(faults, Faults):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may pass anything
            raise TypeError(f"FaultTransport(faults={faults!r}): faults must be Faults(...)")
        self.below = below
        self.flavor = flavor_of(below)
        self.faults = faults
        self.injected: dict[str, int] = {}
        self._rng = random.Random(seed)  # noqa: S311  # reproducible on purpose
        self._lock = threading.Lock()
        self._clock = clock

    async def handle_async_request(self, request: Any) -> Any:
        call = request.extensions.get(CALL)
        return await self._handle(request, blocking=call is not None and call.blocking)

    def handle_request(self, request: Any) -> Any:
        return drive(self._handle(request, blocking=True))

    async def _handle(self, request: Any, *, blocking: bool) -> Any:
        fault = self._draw()
        module = self.flavor.module
        if fault == "connect":
            raise module.ConnectError("injected", request=request)
        if fault == "delayed":
            await self.pause(self.faults.delay, read_timeout(request), request, blocking=blocking)
        if blocking and hasattr(self.below, "handle_request"):
            response = self.below.handle_request(request)
        else:
            response = await self.below.handle_async_request(request)
        if fault is None or fault == "delayed":
            return response
        if fault in ("truncated", "stalled"):
            base = module.SyncByteStream if blocking else module.AsyncByteStream
            ours = _BlockingFaulty if blocking else _AsyncFaulty
            stream = type("FaultyStream", (ours, base), {})(self, response.stream, request, fault)
            return module.Response(
                response.status_code, headers=response.headers, stream=stream, extensions=response.extensions
            )
        if blocking:
            response.stream.close()
        else:
            await response.stream.aclose()
        if fault == "read":
            raise module.ReadError("injected", request=request)
        return module.Response(int(fault), headers={"content-length": "0"})

    def _draw(self) -> str | None:
        with self._lock:
            chance = self._rng.random()
            for name, share in self.faults.shares().items():
                if chance < share:
                    self.injected[name] = self.injected.get(name, 0) + 1
                    return name
                chance -= share
        return None

    async def pause(self, seconds: float, read: float | None, request: Any, *, blocking: bool) -> None:
        """Keep the client waiting, as long as its own read timeout allows."""
        if not await pause(self._clock, seconds, read, blocking=blocking):
            raise self.flavor.module.ReadTimeout("injected", request=request)

    async def __aenter__(self) -> Self:
        await self.below.__aenter__()
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.below.__aexit__(*details)

    async def aclose(self) -> None:
        await self.below.aclose()

    def __enter__(self) -> Self:
        self.below.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self.below.__exit__(*details)

    def close(self) -> None:
        self.below.close()


class _Faulty:
    def __init__(self, transport: FaultTransport, inner: Any, request: Any, fault: str) -> None:
        self.transport = transport
        self.inner = inner
        self.request = request
        self.read: float | None = None
        self.fault = fault

    async def end(self, *, blocking: bool) -> None:
        """What comes after the first bytes."""
        if self.fault == "stalled":
            await self.transport.pause(math.inf, self.read, self.request, blocking=blocking)
        raise self.transport.flavor.module.RemoteProtocolError(
            "injected: the body was cut", request=self.request
        )


class _AsyncFaulty(_Faulty):
    async def __aiter__(self) -> Any:
        self.read = read_timeout(self.request)
        chunks = aiter(self.inner)
        try:
            chunk = await anext(chunks, b"")
            if chunk:
                yield chunk[: max(1, len(chunk) // 2)]
            await self.end(blocking=False)
        finally:
            await finish(chunks)

    async def aclose(self) -> None:
        await self.inner.aclose()


class _BlockingFaulty(_Faulty):
    def __iter__(self) -> Any:
        self.read = read_timeout(self.request)
        chunk = next(iter(self.inner), b"")
        if chunk:
            yield chunk[: max(1, len(chunk) // 2)]
        drive(self.end(blocking=True))

    def close(self) -> None:
        self.inner.close()
