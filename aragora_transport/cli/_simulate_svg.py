"""A run of each contender as a picture: load, circuit and calls served over time, outages shaded."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from aragora_transport.simulation.numbers import open_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aragora_transport.simulation.run import Deeds, Run
    from aragora_transport.simulation.scenario import Scenario

WIDTH, LEFT, RIGHT = 900, 64, 16  # pixels
_TOP, _PANEL, _STRIP, _GAP = 64, 150, 16, 44
_COLOURS = ("#767676", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#b45309")  # told apart by the legend, too
_STEPS = 300  # points of a curve at most


def picture(runs: Sequence[Run], title: str) -> str:
    """The SVG, of one run for each contender, all of one scenario."""
    return "\n".join(_Picture(runs, title).lines()) + "\n"


class _Picture:
    def __init__(self, runs: Sequence[Run], title: str) -> None:
        self._runs = runs
        self._title = title
        self._scenario: Scenario = runs[0].scenario
        self._bins = max(1, min(_STEPS, int(self._scenario.seconds)))
        self._bin = self._scenario.seconds / self._bins
        self._circuits = [(run, colour) for run, colour in zip(runs, _colours(), strict=False) if run.deeds]

    def lines(self) -> Iterator[str]:
        circuit_top = _TOP + _PANEL + _GAP
        served_top = circuit_top + max(1, len(self._circuits)) * _STRIP + _GAP
        height = served_top + _PANEL + _GAP
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" font-family="sans-serif" font-size="12" role="img" '
            f"aria-label={quoteattr(self._title)}>"
        )
        yield f"<title>{escape(self._title)}</title>"
        yield f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
        yield _text(LEFT, 20, self._title, weight="bold")
        for outage in self._scenario.outages:
            left, right = self._x(outage.start), self._x(outage.end)
            yield (
                f'<rect class="outage" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" '
                f'height="{served_top + _PANEL - _TOP}" fill="#fee2e2"/>'
            )
        yield from self._legend()
        yield from self._load(_TOP)
        yield from self._circuit(circuit_top)
        yield from self._served(served_top)
        yield _text(LEFT, height - 10, f"seconds, 0 to {self._scenario.seconds:g}")
        yield "</svg>"

    def _legend(self) -> Iterator[str]:
        x = float(LEFT)
        for run, colour in zip(self._runs, _colours(), strict=False):
            yield f'<rect x="{x:.0f}" y="32" width="12" height="12" fill="{colour}"/>'
            yield _text(x + 16, 42, run.contender)
            x += 40 + 7 * len(run.contender)

    def _load(self, top: int) -> Iterator[str]:
        curves = [[sends / self._bin for sends in self._count(run.server.sends)] for run in self._runs]
        highest = max(1.0, *(max(curve) for curve in curves))
        yield from self._axes(top, "load, sends a second", f"{highest:.0f}")
        for curve, colour in zip(curves, _colours(), strict=False):
            yield self._curve(top, [value / highest for value in curve], colour)

    def _served(self, top: int) -> Iterator[str]:
        yield from self._axes(top, "served, of the calls that came then", "100 %")
        for run, colour in zip(self._runs, _colours(), strict=False):
            came = self._count(call.at for call in run.calls)
            served = self._count(call.at for call in run.calls if call.failure is None)
            shares = [good / of if of else None for good, of in zip(served, came, strict=True)]
            yield self._curve(top, shares, colour)

    def _circuit(self, top: int) -> Iterator[str]:
        yield _text(LEFT, top - 6, "circuit not closed (darker: in more of the processes)")
        for row, (run, colour) in enumerate(self._circuits):
            y = top + row * _STRIP
            for index, share in enumerate(self._not_closed(run.deeds)):
                if share > 0.0:
                    x, width = self._x(index * self._bin), self._x(self._bin) - LEFT
                    yield (
                        f'<rect class="open" x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_STRIP - 4}" '
                        f'fill="{colour}" fill-opacity="{share:.2f}"/>'
                    )

    def _not_closed(self, deeds: Sequence[Deeds]) -> list[float]:
        """In each bin the share of the time, over all processes, in which a circuit was not closed."""
        until = [
            sum(open_seconds(told, (index + 1) * self._bin) for told in deeds) for index in range(self._bins)
        ]
        return [
            (now - before) / (self._bin * len(deeds))
            for before, now in zip([0.0, *until], until, strict=False)
        ]

    def _count(self, times: Sequence[float] | Iterator[float]) -> list[int]:
        counts = Counter(int(at / self._bin) for at in times)
        return [counts[index] for index in range(self._bins)]

    def _x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / self._scenario.seconds

    def _axes(self, top: int, label: str, highest: str) -> Iterator[str]:
        bottom = top + _PANEL
        yield _text(LEFT, top - 6, label)
        yield _text(LEFT - 6, top + 10, highest, anchor="end")
        yield _text(LEFT - 6, bottom, "0", anchor="end")
        yield f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#444444"/>'

    def _curve(self, top: int, shares: Sequence[float | None], colour: str) -> str:
        """A line through the middles of the bins; one without a value breaks it."""
        drawn, pen = list[str](), "M"
        for index, share in enumerate(shares):
            if share is None:
                pen = "M"
                continue
            # The line of no length makes a dot of a point that stands alone.
            drawn.append(
                f"{pen}{self._x((index + 0.5) * self._bin):.1f} {top + _PANEL * (1.0 - share):.1f}h0"
            )
            pen = "L"
        return (
            f'<path class="curve" d="{"".join(drawn)}" fill="none" stroke="{colour}" stroke-width="1.6" '
            'stroke-linecap="round"/>'
        )


def _colours() -> Iterator[str]:
    while True:
        yield from _COLOURS


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" fill="#111111" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
