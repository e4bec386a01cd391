"""Calls that do not go straight, each against the same without layers; microseconds of CPU time per call.

* `refused by an open circuit`, against a network that raises at once.
* `one retry`: a 503, then a 200, without a wait between them, against the same two sends one after the other.
* `a call with a deadline` of its own (`call_options(total_timeout=...)`).
* `a body of 1 MB` that comes in 16 chunks through the watcher of bodies.

`added` and `x bare` are as in overhead.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from aragora_transport import BreakerPolicy, RetryPolicy, call_options

from ._batches import direct, new_request, one_call, running
from ._harness import Batch, Effort, Tell, measure
from ._null import NullStream, NullTransport
from ._stacks import WHOLE, stack
from ._table import Table

REFUSED = "refused by an open circuit"
COLUMNS = {"bare": ".1f", "ours": ".1f", "added": ".2f", "x bare": ".2f"}
CHUNKS = (bytes(65536),) * 16


def run(effort: Effort, tell: Tell) -> list[Table]:
    """One row for each path."""
    rows: dict[str, tuple[float, ...]] = {}
    with asyncio.Runner() as runner:
        for part, (name, make) in enumerate(PATHS.items()):
            bare, ours = make(runner)

            def told(done: int, of: int, part: int = part) -> None:
                tell(part * of + done, len(PATHS) * of)

            whole = measure(bare, {WHOLE: ours}, effort, tell=told)[WHOLE]
            rows[name] = (whole.bare, whole.total, whole.quiet, whole.ratio)
    return [Table(name="paths", title="CPU microseconds per call", columns=COLUMNS, rows=rows)]


class Raising(httpx.AsyncBaseTransport):
    """A network that refuses every connection."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)


class EveryOther(httpx.AsyncBaseTransport):
    """Answers 503 and 200 in turn."""

    def __init__(self) -> None:
        self._statuses = itertools.cycle((503, 200))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(self._statuses), stream=NullStream())


class Large(httpx.AsyncBaseTransport):
    """Answers with a body of a megabyte."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=LargeStream())


class LargeStream(NullStream):
    """A megabyte, chunk by chunk."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in CHUNKS:
            yield chunk


def _refused(runner: asyncio.Runner) -> tuple[Batch, Batch]:
    def failing(transport: Any) -> Batch:
        request = new_request()

        async def batch(count: int) -> None:
            for _ in range(count):
                with contextlib.suppress(httpx.TransportError):
                    await transport.handle_async_request(request)

        return running(runner, batch)

    ours = stack()
    ours.isolate()
    return failing(Raising()), failing(ours)


def _one_retry(runner: asyncio.Runner) -> tuple[Batch, Batch]:
    network, request = EveryOther(), new_request()

    async def twice(count: int) -> None:
        for _ in range(count):
            await one_call(network, request)
            await one_call(network, request)

    ours = stack(
        EveryOther(),
        retry=RetryPolicy(base_delay=0.0, budget=None),
        breaker=BreakerPolicy(failure_rate=1.0),  # half of the sends fail, and it must stay closed
    )
    return running(runner, twice), direct(runner, ours)


def _with_a_deadline(runner: asyncio.Runner) -> tuple[Batch, Batch]:
    request = new_request(**call_options(total_timeout=60.0))
    return direct(runner, NullTransport()), direct(runner, stack(), request)


def _large_body(runner: asyncio.Runner) -> tuple[Batch, Batch]:
    return direct(runner, Large()), direct(runner, stack(Large()))


PATHS: dict[str, Callable[[asyncio.Runner], tuple[Batch, Batch]]] = {
    REFUSED: _refused,
    "one retry": _one_retry,
    "a call with a deadline": _with_a_deadline,
    "a body of 1 MB": _large_body,
}
