"""How the demo is shown: one view for machines, one in plain lines, and the choice among them.

The coloured one lives in `_demo_rich`, which alone needs rich and is imported only when it is used.
Plain lines are ASCII and fit 80 columns, for pipes, logs and terminals that want no colour.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from typing import TYPE_CHECKING, Protocol, TextIO

from aragora_transport.cli import _demo_report as report
from aragora_transport.cli import _demo_text as text
from aragora_transport.cli._flaky_api import PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aragora_transport.cli._demo_state import Run

_LINE = "{:>7}  {:<16} {:>8} {:>6}   {:>8} {:>6} {:>7}  {}"


class View(Protocol):
    """Something that shows a run. `update` is called a few times a second."""

    def begin(self, run: Run) -> None:
        """Show what is about to happen."""

    def update(self, run: Run) -> None:
        """Show the run as it is now."""

    def end(self, run: Run, files: dict[str, str]) -> None:
        """Show the result, or as much of it as there is; `files` are what the run left behind."""

    def close(self) -> None:
        """Give the terminal back, whatever happened."""


def choose_view(out: TextIO, *, as_json: bool, environ: Mapping[str, str] = os.environ) -> View:
    """JSON where asked for; colour and movement where `out` is a terminal that wants them; else lines."""
    if as_json:
        return JsonView(out)
    wants_colour = out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    if wants_colour and importlib.util.find_spec("rich") is not None:
        view: View = importlib.import_module("aragora_transport.cli._demo_rich").RichView(out)
        return view
    return PlainView(out)


class JsonView:
    """One JSON object at the end and nothing else."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def begin(self, run: Run) -> None:
        """Nothing: the result is all."""

    def update(self, run: Run) -> None:
        """Nothing: the result is all."""

    def end(self, run: Run, files: dict[str, str]) -> None:
        """Print the result."""
        print(json.dumps(report.as_json(run, files), indent=2), file=self._out)

    def close(self) -> None:
        """Nothing to give back."""


class PlainView:
    """A line a second, then tables."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._next_line = 0.0

    def begin(self, run: Run) -> None:
        """Print the settings."""
        self._print(text.heading(run))
        self._print()
        self._print(
            _LINE.format("time", "phase", "bare: ok", "failed", "ours: ok", "failed", "retries", "circuit")
        )

    def update(self, run: Run) -> None:
        """Print a line if a second has passed since the last."""
        if run.elapsed < self._next_line:
            return
        self._next_line = int(run.elapsed) + 1.0
        bare, ours, activity = run.tallies["bare"], run.tallies["ours"], run.activity
        phase = PHASES[run.phase[0]].name if run.elapsed < run.settings.seconds else "last answers"
        numbers = (bare.served, bare.failed, ours.served, ours.failed, activity.retries, activity.circuit)
        self._print(_LINE.format(f"{run.elapsed:.1f} s", phase, *numbers))

    def end(self, run: Run, files: dict[str, str]) -> None:
        """Print the tables."""
        self._print()
        if run.has_calls:
            self._table(("", *text.TITLES.values()), text.total_rows(run))
            self._print()
            self._table(("served, sends per call", "bare", "", "ours", ""), text.phase_rows(run))
            self._print()
        for line in text.closing_lines(run, files):
            self._print(line)

    def close(self) -> None:
        """Nothing to give back."""

    def _table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        for row in (head, *rows):
            cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(row)))]
            self._print("  ".join(cells).rstrip())

    def _print(self, line: str = "") -> None:
        print(line, file=self._out, flush=True)
