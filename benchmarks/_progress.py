"""Progress of the suites: a bar where rich is installed and stderr is a terminal, else plain lines.

Nothing here has a thread: it would run beside what is measured, and be counted with it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from ._harness import Tell

STEP = 25  # percent, between two plain lines


@contextmanager
def progress(out: TextIO, suite: str, environ: Mapping[str, str] = os.environ) -> Iterator[Tell]:
    """What a suite tells how far it is."""
    wants_colour = out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    if wants_colour and importlib.util.find_spec("rich") is not None:
        with _bar(out, suite) as tell:
            yield tell
    else:
        yield _lines(out, suite)


@contextmanager
def _bar(out: TextIO, suite: str) -> Iterator[Tell]:
    from rich.console import Console  # noqa: PLC0415  # optional
    from rich.progress import Progress  # noqa: PLC0415  # only where they are installed

    with Progress(console=Console(file=out), auto_refresh=False) as bars:
        task = bars.add_task(suite)

        def tell(done: int, of: int) -> None:
            bars.update(task, completed=done, total=of, refresh=True)

        yield tell


def _lines(out: TextIO, suite: str) -> Tell:
    told = -1

    def tell(done: int, of: int) -> None:
        nonlocal told
        percent = done * 100 // of
        if percent // STEP > told:
            told = percent // STEP
            print(f"{suite}: {percent} %", file=out, flush=True)

    return tell
