"""Runs simulations one after the other, tells how far it is, and shows what they came to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from aragora_transport.cli import _simulate_report as report
from aragora_transport.cli._simulate_svg import picture
from aragora_transport.simulation import numbers, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aragora_transport.simulation import Contender, Run, Scenario

_ABREAST = 3  # contenders side by side in 80 columns
_CELL = 8


def show(
    scenario: Scenario,
    contenders: Sequence[Contender],
    seeds: Sequence[int],
    out: TextIO,
    *,
    as_json: bool,
    svg: str | None,
) -> int:
    """Run every contender under every seed and show it; the exit status."""
    results: report.Results = {}
    firsts: list[Run] = []
    with Progress(sys.stderr) as progress:
        for contender in contenders:
            results[contender.name] = []
            for seed in seeds:

                def tell(
                    second: float, name: str = contender.name, number: int = seed - seeds[0] + 1
                ) -> None:
                    progress.show(f"{name}: run {number} of {len(seeds)}, {second / scenario.seconds:4.0%}")

                run = simulate(contender, scenario, seed, progress=tell)
                results[contender.name].append(numbers(run))
                if seed == seeds[0]:
                    firsts.append(run)
    if svg is not None:
        try:
            Path(svg).write_text(picture(firsts, f"{heading(scenario)}, seed {seeds[0]}"), encoding="utf-8")
        except OSError as error:
            print(f"aragora-transport simulate: {svg} cannot be written: {error.strerror}", file=sys.stderr)
            return 1
    if as_json:
        print(json.dumps(report.as_json(results, scenario, seeds), indent=2), file=out)
    else:
        print_tables(results, scenario, seeds, out)
    return 0


def heading(scenario: Scenario) -> str:
    """The scenario in a line."""
    outages = ", ".join(f"{outage.start:g}+{outage.seconds:g} s" for outage in scenario.outages)
    return (
        f"{scenario.server} server, severity {scenario.severity:g}, outage {outages}; "
        f"{scenario.rate:g} calls/s {scenario.arrivals} for {scenario.seconds:g} s"
        + (f" from {scenario.processes} processes" if scenario.processes > 1 else "")
    )


def print_tables(results: report.Results, scenario: Scenario, seeds: Sequence[int], out: TextIO) -> None:
    """Three contenders side by side; the median of the seeds, and the worst."""
    print(f"{heading(scenario)}\nseeds {seeds[0]} to {seeds[-1]}: the median, and the worst\n", file=out)
    names = list(results)
    for first in range(0, len(names), _ABREAST):
        part = {name: results[name] for name in names[first : first + _ABREAST]}
        lines = report.rows(part, scenario)
        label = max(len(line[0]) for line in lines)
        width = 2 * _CELL + 1
        heads = [(name if len(name) <= width else f"{name[: width - 2]}..").rjust(width) for name in part]
        print("  ".join([" " * label, *heads]), file=out)
        for line in lines:
            pairs = zip(line[1::2], line[2::2], strict=True)
            cells = [f"{median:>{_CELL}} {worst:>{_CELL}}" for median, worst in pairs]
            print("  ".join([line[0].ljust(label), *cells]).rstrip(), file=out)
        print(file=out)
    for name in names:
        if len(name) > 2 * _CELL + 1:
            print(f"{name[: 2 * _CELL - 1]}..: {name}", file=out)


class Progress:
    """One line that is written over and over, on a terminal; nothing elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def show(self, text: str) -> None:
        """Write the line anew, where it has changed."""
        if self._out.isatty() and text != self._shown:
            self._write(text)

    def _write(self, text: str) -> None:
        print("\r" + text.ljust(len(self._shown)), end="", file=self._out, flush=True)
        self._shown = text

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._write("")
            print("\r", end="", file=self._out, flush=True)
