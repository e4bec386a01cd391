"""Faults on purpose: a layer that makes a good network bad, the same way for the same seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from aragora_transport._call import CALL
from aragora_transport._clock import SYSTEM
from aragora_transport._flavor import flavor_of

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
        for name, share in self.shares().items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"Faults({name}={share!r}): a share must be from 0 to 1")
        if sum(self.shares().values()) > 1.0 + 1e-9:
            raise ValueError(f"Faults(...): the shares add up to {sum(self.shares().values()):g}, above 1")
        if self.delay < 0:
            raise ValueError(f"Faults(delay={self.delay!r}): delay must be seconds of at least 0")

    def shares(self) -> dict[str, float]:
        """Each fault with its share."""
        named = {name: getattr(self, name) for name in ("connect", "read", "truncated", "stalled", "delayed")}
        return {**named, **{str(status): share for status, share in self.statuses.items()}}


class FaultTransport(httpx.AsyncBaseTransport):
    """Injects faults above a transport: `FaultTransport(below, faults=Faults(read=0.1), seed=7)`.

    It stands where the network is, beneath the layers under test. `injected` counts each fault by name.
    """

    def __init__(self, below: Any, *, faults: Faults, seed: int = 0, clock: Clock = SYSTEM) -> None:
        self.below = below
        self.flavor = flavor_of(below)
        self.faults = faults
        self.injected: dict[str, int] = {}
        self._rng = random.Random(seed)  # noqa: S311  # reproducible on purpose
        self._clock = clock

    async def handle_async_request(self, request: Any) -> Any:
        call = request.extensions.get(CALL)
        blocking = call is not None and call.blocking
        fault = self._draw()
        module = self.flavor.module
        if fault == "connect":
            raise module.ConnectError("injected", request=request)
        if fault == "delayed":
            await self._clock.sleep(self.faults.delay, blocking=blocking)
        response = await self.below.handle_async_request(request)
        if fault is None or fault == "delayed":
            return response
        if fault in ("truncated", "stalled"):
            base = module.SyncByteStream if blocking else module.AsyncByteStream
            ours = _BlockingFaulty if blocking else _AsyncFaulty
            stream = type("FaultyStream", (ours, base), {})(self, response.stream, request, fault)
            return module.Response(response.status_code, headers=response.headers, stream=stream)
        if blocking:
            response.stream.close()
        else:
            await response.stream.aclose()
        if fault == "read":
            raise module.ReadError("injected", request=request)
        return module.Response(int(fault), headers={"content-length": "0"})

    def _draw(self) -> str | None:
        chance = self._rng.random()
        for name, share in self.faults.shares().items():
            if chance < share:
                self.injected[name] = self.injected.get(name, 0) + 1
                return name
            chance -= share
        return None

    async def end_of(self, fault: str, request: Any, *, blocking: bool) -> None:
        """What comes after the first bytes of a faulty body."""
        if fault == "stalled":
            await self._clock.sleep(float("inf"), blocking=blocking)
        raise self.flavor.module.RemoteProtocolError("injected: the body was cut", request=request)

    async def aclose(self) -> None:
        await self.below.aclose()


class _Faulty:
    def __init__(self, transport: FaultTransport, inner: Any, request: Any, fault: str) -> None:
        self.transport = transport
        self.inner = inner
        self.request = request
        self.fault = fault


class _AsyncFaulty(_Faulty):
    async def __aiter__(self) -> Any:
        async for chunk in self.inner:
            yield chunk[: max(1, len(chunk) // 2)]
            break
        await self.transport.end_of(self.fault, self.request, blocking=False)

    async def aclose(self) -> None:
        await self.inner.aclose()


class _BlockingFaulty(_Faulty):
    def __iter__(self) -> Any:
        from aragora_transport.sync import drive  # noqa: PLC0415  # only blocking clients need it

        for chunk in self.inner:
            yield chunk[: max(1, len(chunk) // 2)]
            break
        drive(self.transport.end_of(self.fault, self.request, blocking=True))

    def close(self) -> None:
        self.inner.close()
