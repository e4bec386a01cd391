"""What each layer adds to a request on a network that answers at once.

Microseconds of CPU time of the thread. The cases run in turns, in a fresh random order each round,
each between two batches of the bare case. `added` is how far the 10th percentile of its batches lies above
that of the bare ones: both as they are while nobody else uses the machine. `median` and `p10` are the median
and the 10th percentile of the differences, batch by batch, to the mean of the two around it. The control is
the bare case measured against itself, and shows the noise. `x bare` is the whole request as a multiple of
the bare one, and `layers` is `added` in units of one bare layer (of five, one being lost in the noise),
which is an `httpx.AsyncBaseTransport` that does nothing but call the one below it. A layer alone comes with
the call that it works on: its own share is what it adds to `the call alone`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from aragora_transport import resilient_sync

from . import _batches as batches
from ._harness import CONTROL, Added, Effort, Tell, measure
from ._null import BlockingNullTransport, NullTransport
from ._peers import PEERS, peers
from ._stacks import FIVE, WHOLE, transports
from ._table import Table

COLUMNS = {"added": "z.2f", "median": "z.2f", "p10": "z.2f", "x bare": ".3f", "layers": "z.0f"}


def run(effort: Effort, tell: Tell) -> list[Table]:
    """Direct and by a client, async and blocking."""
    few = replace(effort, batch=max(1, effort.batch // 4))  # a client's request takes longer
    ours = transports()
    others, missing = peers()
    everything = {**ours, **others}

    def told(part: int) -> Tell:
        return lambda done, of: tell(part * of + done, 4 * of)

    def sync_stack() -> Any:
        return resilient_sync("bench", BlockingNullTransport(), registry=CollectorRegistry())

    with asyncio.Runner() as runner:
        direct = measure(
            batches.direct(runner, NullTransport()),
            {name: batches.direct(runner, transport) for name, transport in everything.items()},
            effort,
            tell=told(0),
        )
        client = measure(
            batches.client(runner, NullTransport()),
            {name: batches.client(runner, transport) for name, transport in everything.items()},
            few,
            tell=told(1),
        )
    blocking_direct = measure(
        batches.blocking_direct(BlockingNullTransport()),
        {WHOLE: batches.blocking_direct(sync_stack())},
        effort,
        tell=told(2),
    )
    blocking_client = measure(
        batches.blocking_client(BlockingNullTransport()),
        {WHOLE: batches.blocking_client(sync_stack())},
        few,
        tell=told(3),
    )
    unit = direct[FIVE].quiet / 5
    names = [CONTROL, *ours, *PEERS]
    both = [CONTROL, WHOLE]

    def table(name: str, title: str, rows: list[str], found: Mapping[str, Added]) -> Table:
        bare = found[CONTROL].bare
        return Table(
            name=name,
            title=f"{title}: added microseconds per request (bare: {bare:.1f})",
            columns=COLUMNS,
            rows={row: _figures(found.get(row), unit) for row in rows},
            notes=missing if rows is names else (),
        )

    return [
        table("direct", "straight into `handle_async_request`", names, direct),
        table("client", "by `AsyncClient.get`", names, client),
        table("blocking", "`resilient_sync`, straight into `handle_request`", both, blocking_direct),
        table("blocking client", "`resilient_sync`, by `Client.get`", both, blocking_client),
    ]


def _figures(added: Added | None, unit: float) -> tuple[float | None, ...]:
    if added is None:
        return (None,) * len(COLUMNS)
    layers = added.quiet / unit if unit > 0 else None  # noise may hide it
    return (added.quiet, added.median, added.p10, added.ratio, layers)
