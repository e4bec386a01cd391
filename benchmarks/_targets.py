"""What the whole stack is meant to cost at most, and what it was seen to cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import loopback, memory, paths
from ._peers import CLIENTWRIGHT, PYBREAKER
from ._stacks import OFF, WHOLE
from ._table import MISSING, Table

Tables = Mapping[str, Sequence[Table]]  # by suite
Figure = Callable[[str, str, str, str], float]  # suite, table, row, column


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A limit and what was measured; `None` where a suite did not run or a peer is missing."""

    name: str
    limit: float
    measured: float | None

    @property
    def held(self) -> bool | None:
        """Whether it is; `None` when nobody knows."""
        return None if self.measured is None else self.measured <= self.limit

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "held": self.held}


def _added_beside(peer: str) -> Callable[[Figure], float]:
    def ratio(figure: Figure) -> float:
        return figure("overhead", "direct", WHOLE, "added") / figure("overhead", "direct", peer, "added")

    return ratio


def _left_by_nothing(figure: Figure) -> float:
    return sum(figure("counts", "left out", row, "bytecodes") for row in OFF)


def _in_flight(figure: Figure) -> float:
    return max(figure("memory", "memory", row, "added") for row in (memory.HEADERS, memory.BODY))


TARGETS: dict[str, tuple[float, Callable[[Figure], float]]] = {
    "added time, as a share of clientwright's": (1 / 15, _added_beside(CLIENTWRIGHT)),
    "added time, as a share of pybreaker's `calling()`": (1.0, _added_beside(PYBREAKER)),
    "`AsyncClient.get` on the null network, x bare": (
        1.12,
        lambda figure: figure("overhead", "client", WHOLE, "x bare"),
    ),
    "the same over loopback, one at once, x bare": (
        1.025,
        lambda figure: figure("loopback", "loopback", loopback.at_once(1), "x bare"),
    ),
    "bytecodes per request": (600, lambda figure: figure("counts", "added", WHOLE, "bytecodes")),
    "Python frames per request": (16, lambda figure: figure("counts", "added", WHOLE, "frames")),
    "bytecodes of layers that are left out": (0, _left_by_nothing),
    "bytes per request in flight, of 10,000": (1700, _in_flight),
    "a refusal by an open circuit, x a bare raise": (
        4.0,
        lambda figure: figure("paths", "paths", paths.REFUSED, "x bare"),
    ),
}


def targets(suites: Tables) -> list[Target]:
    """All of them, as far as these suites tell."""

    def figure(suite: str, table: str, row: str, column: str) -> float:
        (found,) = (one for one in suites.get(suite, ()) if one.name == table)
        value = found.figure(row, column)
        if value is None:
            raise ValueError(f"{row} was not measured")
        return value

    def measured(compute: Callable[[Figure], float]) -> float | None:
        try:
            return compute(figure)
        except (ValueError, ZeroDivisionError):
            return None

    return [
        Target(name=name, limit=limit, measured=measured(compute))
        for name, (limit, compute) in TARGETS.items()
    ]


def cells(found: Sequence[Target]) -> list[list[str]]:
    """As a table."""
    words = {True: "yes", False: "no", None: MISSING}
    rows = [
        [
            one.name,
            f"{one.limit:.4g}",
            MISSING if one.measured is None else f"{one.measured:.4g}",
            words[one.held],
        ]
        for one in found
    ]
    return [["target", "at most", "measured", "held"], *rows]
