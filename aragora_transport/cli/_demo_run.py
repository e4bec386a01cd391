"""One run of the demo: the server process, both clients, the traffic, and the view kept up to date."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import httpx

from aragora_transport import Policy, call_options, resilient
from aragora_transport.cli._demo_files import Files, FilesError
from aragora_transport.cli._demo_server import FlakyServer, ServerError, flaky_server
from aragora_transport.cli._demo_traffic import Arrival, Caller, arrivals, drive

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aragora_transport.cli._demo_state import Run
    from aragora_transport.cli._demo_view import View
    from aragora_transport.stack import Stack

INTERRUPTED = 130
POLICIES = {"guide": Policy, "recommended": Policy.recommended}
_TIMEOUT = 2.0  # the same for both clients
_REFRESH = 0.2
_GRACE = 6.0  # after the last arrival; with the default time a run stays under 30 s


def play(run: Run, view: View) -> int:
    """Run it and show it; the exit status."""
    try:
        with Files() as files:
            _play_until_stopped(run, view, files)
    except (FilesError, ServerError) as error:
        print(f"aragora-transport demo: {error}", file=sys.stderr)
        return 1
    view.end(run, files.paths)
    if run.interrupted:
        return INTERRUPTED
    return 0 if run.ours_served_more else 1


def _play_until_stopped(run: Run, view: View, files: Files) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        asyncio.run(_play(run, view, files))
    except asyncio.CancelledError:
        run.interrupted = True
    finally:
        signal.signal(signal.SIGINT, before)
        view.close()


def _stop_at_ctrl_c() -> None:
    """Cancel this task at the first Ctrl-C; more of them change nothing, for stopping takes a moment.

    asyncio's own handler raises at the second one wherever the program is, which ends in tracebacks.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101  # a coroutine that runs is a task's
    stopping = iter([task.cancel])

    def stop(*_: object) -> None:
        for cancel in stopping:
            loop.call_soon_threadsafe(cancel)

    signal.signal(signal.SIGINT, stop)


async def _play(run: Run, view: View, files: Files) -> None:
    _stop_at_ctrl_c()
    chosen = run.settings
    plan = arrivals(seconds=chosen.seconds, rate=chosen.rate, seed=chosen.seed)
    async with (
        flaky_server(seconds=chosen.seconds, rate=chosen.rate, seed=chosen.seed) as server,
        _callers(run, server, files) as (callers, transport),
    ):
        view.begin(run)
        server.start()
        started = time.monotonic()
        calling = asyncio.create_task(drive(plan, callers, started=started, grace=_GRACE))
        watching = asyncio.create_task(_watch(run, view, server, transport, started))
        try:
            await _first_of(calling, watching)
        finally:
            run.elapsed = time.monotonic() - started
            run.lanes = await server.report()


async def _first_of(*tasks: asyncio.Task[None]) -> None:
    """Wait until one task ends, and raise what it raised; none of them is left running."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(run: Run, view: View, server: FlakyServer, transport: Stack, started: float) -> None:
    """Keep the view up to date; ends only by cancellation, or because the server is gone."""
    while True:
        run.elapsed = time.monotonic() - started
        run.lanes = await server.report()
        probes = [circuit["next_probe_in"] for circuit in transport.circuits().values()]
        run.next_probe_in = min((seconds for seconds in probes if seconds is not None), default=None)
        view.update(run)
        await asyncio.sleep(_REFRESH)


@asynccontextmanager
async def _callers(
    run: Run, server: FlakyServer, files: Files
) -> AsyncGenerator[tuple[dict[str, Caller], Stack], None]:
    transport = resilient(
        "demo",
        _network(),
        policy=POLICIES[run.settings.policy](),
        registry=files.registry,
        on_event=run.activity,
        rng=Random(run.settings.seed),  # noqa: S311  # jitter, not secrets
    )
    async with (
        _client(_network(), server.ports["bare"]) as bare,
        _client(transport, server.ports["ours"]) as ours,
    ):
        yield (
            {
                "bare": Caller(bare, lambda _: {}, run.tallies["bare"]),
                "ours": Caller(ours, _operation, run.tallies["ours"]),
            },
            transport,
        )


def _network() -> httpx.AsyncHTTPTransport:
    """The same for both clients: no proxy, and no limit on connections that stalled bodies could use up."""
    return httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None), trust_env=False)


def _client(transport: httpx.AsyncBaseTransport, port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport, base_url=f"http://127.0.0.1:{port}", timeout=_TIMEOUT, trust_env=False
    )


def _operation(arrival: Arrival) -> dict[str, Any]:
    return call_options(operation="create_item" if arrival.method == "POST" else "get_item")
