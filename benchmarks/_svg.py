"""The picture: what each layer adds, and the whole beside other libraries, as bars. Written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ._peers import PEERS
from ._stacks import CALL, FIVE, LAYERS, WHOLE
from ._table import Table

WIDTH, LABEL, FIGURE, ROW, BAR = 760, 200, 90, 22, 14  # pixels
OURS, BARE, OTHERS = "#2a78b8", "#8a9199", "#c4803a"

Bar = tuple[str, float | None, str]  # its name, microseconds, its colour


def picture(direct: Table) -> str:
    """An SVG document, from the overhead of calls straight into the transport."""

    def bar(row: str, colour: str) -> Bar:
        return row, direct.figure(row, "added"), colour

    layers = [bar(FIVE, BARE), bar(CALL, OURS), *(bar(f"{name} alone", OURS) for name in LAYERS)]
    panels = [
        ("Each layer alone, and all of them", [*layers, bar(WHOLE, OURS)]),
        ("The whole stack beside others", [bar(WHOLE, OURS), *(bar(name, OTHERS) for name in PEERS)]),
    ]
    parts: list[str] = []
    top = 34
    for title, bars in panels:
        parts += _panel(title, bars, top)
        top += 34 + ROW * len(bars) + 20
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}"',
            f'     width="{WIDTH}" height="{top}" font-family="system-ui, sans-serif" font-size="13"',
            '     fill="#1c2126">',
            "<title>Microseconds that each layer adds to a request</title>",
            f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>',
            _text(16, 22, "Microseconds of CPU time added to a request on a null network", weight="bold"),
            *parts,
            "</svg>\n",
        ]
    )


def _panel(title: str, bars: Sequence[Bar], top: int) -> list[str]:
    longest = max((microseconds or 0.0 for _, microseconds, _ in bars), default=0.0)
    scale = (WIDTH - LABEL - FIGURE) / longest if longest > 0 else 0.0
    parts = [_text(16, top + 20, title, weight="600")]
    for line, (name, microseconds, colour) in enumerate(bars):
        middle = top + 34 + ROW * line + ROW // 2
        parts.append(_text(LABEL - 8, middle + 4, name, anchor="end"))
        if microseconds is None:
            parts.append(_text(LABEL, middle + 4, "not measured"))
            continue
        width = max(1.0, microseconds * scale)  # noise may be below nothing
        parts.append(
            f'<rect x="{LABEL}" y="{middle - BAR // 2}" width="{width:.1f}" height="{BAR}" rx="2" '
            f'fill="{colour}"/>'
        )
        parts.append(_text(LABEL + width + 6, middle + 4, f"{microseconds:.2f}"))
    return parts


def _text(x: float, y: float, words: str, *, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}" text-anchor="{anchor}">{escape(words)}</text>'
    )
