"""A table of figures: what every suite makes, and what text, Markdown, JSON and the picture are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Figures by row and column.

    `columns`: each with the format of its figures, such as ".2f". A figure that could not be taken is
    `None`, and `notes` say why.
    """

    name: str
    title: str
    columns: Mapping[str, str]
    rows: Mapping[str, Sequence[float | None]]
    notes: tuple[str, ...] = ()

    def figure(self, row: str, column: str) -> float | None:
        """One figure; KeyError or ValueError where there is no such row or column."""
        return self.rows[row][list(self.columns).index(column)]

    def cell(self, row: str, column: str) -> str:
        """The same as text."""
        return _text(self.figure(row, column), self.columns[column])

    def cells(self) -> list[list[str]]:
        """The header and the rows, as text."""
        header = ["", *self.columns]
        formats = list(self.columns.values())
        return [header, *([name, *map(_text, row, formats)] for name, row in self.rows.items())]

    def as_json(self) -> dict[str, Any]:
        """Figures by row, then column."""
        rows = {name: dict(zip(self.columns, row, strict=True)) for name, row in self.rows.items()}
        return {"name": self.name, "title": self.title, "rows": rows, "notes": list(self.notes)}


def _text(figure: float | None, how: str) -> str:
    return MISSING if figure is None else format(figure, how)


def plain(cells: Sequence[Sequence[str]]) -> str:
    """For a terminal: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells
    )
    return "\n".join(lines)


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """The same for a page."""
    header, *rows = cells
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in (header, rule, *rows))
