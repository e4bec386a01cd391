"""The demo in colour: phases and outcomes over time, and the numbers of both clients beside each other.

The only file that imports rich; it fits 80 columns and 24 lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aragora_transport.cli import _demo_text as text
from aragora_transport.cli._flaky_api import PHASES, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aragora_transport.cli._demo_state import Run

_LABEL = 6
_LABEL_LIVE = 10
_WIDEST = 120
_HEIGHTS = "▁▂▃▄▅▆▇█"
_REFRESHES = 8
_COLOURS: dict[Kind, str] = {
    "healthy": "green",
    "flaky": "yellow",
    "limited": "blue",
    "outage": "red",
    "stalled": "magenta",
    "recovered": "green",
}
_SHORT: dict[Kind, str] = {"limited": "429", "outage": "outage", "stalled": "stalls"}
_CIRCUIT_COLOURS = {"closed": "green", "half-open": "yellow", "open": "red"}


class RichView:
    """A live picture, replaced by the result when it ends."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False)
        self._live: Live | None = None

    def begin(self, run: Run) -> None:
        """Take over a few lines of the terminal."""
        self._live = Live(
            self._picture(run), console=self._console, refresh_per_second=_REFRESHES, transient=True
        )
        self._live.start()

    def update(self, run: Run) -> None:
        """Show the run as it is now."""
        if self._live is not None:
            self._live.update(self._picture(run))

    def end(self, run: Run, files: dict[str, str]) -> None:
        """Replace the picture by the result."""
        self.close()
        if run.has_calls:
            self._console.print(self._result(run), end="\n\n")
        for line in text.closing_lines(run, files):
            self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _picture(self, run: Run) -> RenderableType:
        numbers = Table.grid(padding=(0, 1, 0, 0), expand=False)
        numbers.add_column(width=_LABEL_LIVE)
        for _ in text.TITLES:
            numbers.add_column(width=(self._width - _LABEL_LIVE - 2) // 2, no_wrap=True)
        numbers.add_row("", *(Text(title, "bold") for title in text.TITLES.values()))
        for label, bare, ours in text.live_rows(run):
            numbers.add_row(Text(label, "dim"), bare, _coloured(label, ours, run))
        left = f"{min(run.elapsed, run.settings.seconds):.1f} of {run.settings.seconds:g} s   "
        return Group(self._time_line(run, left), Text(), numbers)

    @property
    def _width(self) -> int:
        return min(self._console.width, _WIDEST)

    def _result(self, run: Run) -> RenderableType:
        totals = _table(("", *text.TITLES.values()), text.total_rows(run))
        head = ("served, sends per call", "bare", "", "ours", "")
        return Group(self._time_line(run, ""), totals, _table(head, text.phase_rows(run)))

    def _time_line(self, run: Run, left: str) -> RenderableType:
        width = self._width - _LABEL - 1
        done = run.elapsed / run.settings.seconds
        lines = Table.grid(padding=(0, 1, 0, 0))
        lines.add_column(width=_LABEL)
        lines.add_column(width=width)
        lines.add_row("", _phase_bar(width, done))
        for name in text.TITLES:
            lines.add_row(name, _strip(run, name, width))
        legend = f"{left}height: share served; blue: some still wait"
        lines.add_row("", Text(legend, "dim", no_wrap=True, overflow="ellipsis"))
        return Group(Text(text.heading(run), "bold"), Text(), lines)


def _phase_bar(width: int, done: float) -> Text:
    """The phases as long as they last; those to come are dim."""
    bar, begins = Text(), 0.0
    for phase in PHASES:
        ends = begins + phase.share
        cells = round(ends * width) - round(begins * width)
        name = _SHORT.get(phase.kind, phase.name)[:cells].center(cells)
        reached = max(0, min(cells, round((done - begins) * width)))
        bar.append(name[:reached], f"bold white on {_COLOURS[phase.kind]}")
        bar.append(name[reached:], f"{_COLOURS[phase.kind]} on grey15")
        begins = ends
    return bar


def _strip(run: Run, name: str, width: int) -> Text:
    """One cell for each slot of time: how many of the calls that came in it were served."""
    strip = Text()
    for came, served, failed in text.slots(run, name, width):
        strip.append(*_cell(came, served, failed))
    return strip


def _cell(came: int, served: int, failed: int) -> tuple[str, str]:
    if not came:
        return " ", ""
    share = served / came
    height = _HEIGHTS[round(share * (len(_HEIGHTS) - 1))]
    if served + failed < came:
        return height, "blue"
    return height, "green" if not failed else "red" if share < 0.5 else "yellow"


def _coloured(label: str, value: str, run: Run) -> Text:
    return Text(value, _CIRCUIT_COLOURS[run.activity.circuit] if label == "circuit" else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(head[0])
    for title in head[1:]:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*row)
    return table
