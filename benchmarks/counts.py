"""What a request costs in numbers that do not hang on the machine, on one version of Python.

`bytecodes` and `frames` are what the interpreter executes of Python code, and `allocations` the
blocks of memory that it takes from one bytecode to the next, also those that it gives back at once; they
hang on its free lists, and so may differ by one or two. All are counted by `sys.monitoring` in requests with
their bodies, after many that warmed everything up, less what the bare request takes: bytecodes and frames
are the mean of as many requests as it takes until everything that is done only now and then was done once,
and so may differ by one, too.
Python 3.11 has nothing like it: there only frames are counted, by `sys.setprofile`.

`--check` compares bytecodes and frames of the whole stack with a budget. The budget is what it takes today,
and is lowered when it takes less: a change that costs something has to say so.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aragora_transport._notes import ENOUGH

from ._batches import new_request, one_call
from ._harness import QUICK, Effort, Tell
from ._null import NullTransport
from ._stacks import LAYERS, OFF, WHOLE, stack, transports
from ._table import Table, plain

BUDGETS: dict[tuple[int, int], dict[str, int]] = {  # of the whole stack, by Python version
    (3, 11): {"frames": 19},
    (3, 12): {"bytecodes": 592, "frames": 16},
    (3, 13): {"bytecodes": 584, "frames": 16},
}

WARM_UP = 50
REQUESTS = ENOUGH + 1  # until all that was noted in passing is counted, in one go
SEVERAL = 3
_TOOL = 2  # sys.monitoring.PROFILER_ID
COLUMNS = {"bytecodes": ".1f", "frames": ".1f", "allocations": ".0f"}
_SMALL = 256  # whole numbers up to this one exist once and for all

monitoring: Any = getattr(sys, "monitoring", None)  # Python 3.12 and newer


def run(effort: Effort, tell: Tell) -> list[Table]:
    """Two tables; they take no longer for more effort."""
    cases = transports()
    bare = figures(NullTransport())
    rows: dict[str, tuple[float | None, ...]] = {}
    for done, (name, transport) in enumerate(cases.items()):
        pairs = zip(figures(transport), bare, strict=True)
        rows[name] = tuple(None if a is None or b is None else round(a - b, 1) for a, b in pairs)
        tell(done + 1, len(cases))
    notes = () if monitoring else ("bytecodes and allocations: Python 3.12 or newer can count them",)
    title = "what is added to a bare request"
    return [Table(name="added", title=title, columns=COLUMNS, rows=rows, notes=notes), _left_out()]


def _left_out() -> Table:
    rows = {name: (executed_in(name, stack(**off)) if monitoring else None,) for name, off in OFF.items()}
    title = "what is executed of a layer that the policy leaves out"
    return Table(name="left out", title=title, columns={"bytecodes": ".1f"}, rows=rows)


def executed_in(names: str, transport: Any) -> float:
    """Bytecodes that one request executes in the files of these layers, joined by "and"."""
    modules = (LAYERS[name].__module__ for name in names.split(" and "))
    files = tuple(f"{module.rpartition('.')[2]}.py:" for module in modules)
    bytecodes, _ = by_place(transport)
    return sum(number for place, number in bytecodes.items() if place.startswith(files))


def over_budget(table: Table, version: tuple[int, int] = sys.version_info[:2]) -> list[str]:
    """What the whole stack takes too much of, as messages; none when it keeps to the budget."""
    name = f"Python {version[0]}.{version[1]}"
    if version not in BUDGETS:
        return [f"{name} has no budget: add one to BUDGETS in benchmarks/counts.py, with today's figures"]
    return [
        f"the whole stack takes {found:g} {what} on {name}, {limit} is the budget: make it take less, or "
        "raise BUDGETS in benchmarks/counts.py and say why"
        for what, limit in BUDGETS[version].items()
        if (found := table.figure(WHOLE, what)) is None or found > limit
    ]


def figures(transport: Any) -> tuple[float | None, float, int | None]:
    """Bytecodes, frames and allocations of one request."""
    if not monitoring:
        return None, by_profile(transport), None
    bytecodes, frames = by_place(transport)
    return sum(bytecodes.values()), sum(frames.values()), allocations(transport)


def by_place(transport: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Bytecodes and frames of one request, by the function they are executed in."""
    bytecodes: Counter[str] = Counter()
    frames: Counter[str] = Counter()

    def reset() -> None:
        bytecodes.clear()
        frames.clear()

    @contextmanager
    def watching() -> Iterator[None]:
        starts = monitoring.events.PY_START
        monitoring.register_callback(_TOOL, starts, _here(lambda code, _: frames.update([_name(code)])))
        with _instructions(lambda code, _: bytecodes.update([_name(code)]), starts):
            yield

    _watch_calls(REQUESTS, transport, watching, reset)
    return _each(bytecodes), _each(frames)


def _each(of_all: Counter[str]) -> dict[str, float]:
    return {place: number / REQUESTS for place, number in of_all.items()}


def allocations(transport: Any) -> int:
    """Blocks of memory that one request takes: what comes in between each two bytecodes, added up.

    The least of several requests: now and then a list or a dict has to grow.
    """
    return min(_allocations(transport) for _ in range(SEVERAL))


def _allocations(transport: Any) -> int:
    taken = before = 0

    def look(_code: Any, offset: int) -> None:
        nonlocal taken, before
        now = sys.getallocatedblocks() - (offset > _SMALL)  # a large offset is a number of ours
        taken += max(0, now - before)
        before = now

    def reset() -> None:
        nonlocal taken
        taken = 0

    _watch_calls(1, transport, lambda: _instructions(look), reset)
    return taken


def by_profile(transport: Any) -> float:
    """Frames of one request, on any Python."""
    frames = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal frames
        frames += event == "call"

    def reset() -> None:
        nonlocal frames
        frames = 0

    @contextmanager
    def watching() -> Iterator[None]:
        sys.setprofile(count)
        try:
            yield
        finally:
            sys.setprofile(None)

    _watch_calls(REQUESTS, transport, watching, reset)
    return frames / REQUESTS


def _here(callback: Callable[[Any, int], object]) -> Callable[[Any, int], object]:
    """For this thread alone: what others execute meanwhile is told, too."""
    thread = threading.get_ident()

    def told(code: Any, offset: int) -> None:
        if threading.get_ident() == thread:
            callback(code, offset)

    return told


@contextmanager
def _instructions(callback: Callable[[Any, int], object], more: int = 0) -> Iterator[None]:
    events = monitoring.events
    monitoring.use_tool_id(_TOOL, "aragora-transport bench")
    monitoring.register_callback(_TOOL, events.INSTRUCTION, _here(callback))
    monitoring.set_events(_TOOL, events.INSTRUCTION | more)
    try:
        yield
    finally:
        monitoring.set_events(_TOOL, 0)
        monitoring.free_tool_id(_TOOL)


def _watch_calls(number: int, transport: Any, watching: Callable[[], Any], reset: Callable[[], None]) -> None:
    request = new_request()

    async def calls() -> None:
        for _ in range(WARM_UP):
            await one_call(transport, request)
        with watching():
            await one_call(transport, request)  # what watches has to get warm, too
            reset()
            for _ in range(number):
                await one_call(transport, request)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(calls())
    finally:
        gc.enable()


def _name(code: Any) -> str:
    return f"{code.co_filename.rpartition('/')[2]}:{code.co_qualname}"


def main() -> int:
    """`python -m benchmarks.counts`: where in the whole stack they are executed."""
    table, *_ = run(QUICK, lambda _done, _of: None)
    print(plain(table.cells()))
    if monitoring:
        (codes, frames), (bare_codes, bare_frames) = by_place(stack()), by_place(NullTransport())
        added = {place: number - bare_codes.get(place, 0) for place, number in codes.items()}
        places = sorted((place for place in added if added[place] > 0), key=added.__getitem__, reverse=True)
        called = {place: frames.get(place, 0) - bare_frames.get(place, 0) for place in places}
        print("\nwhole stack, by place")
        print(plain([[place, f"{added[place]:.1f}", f"{called[place]:.1f}"] for place in places]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
