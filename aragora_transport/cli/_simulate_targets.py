"""Holds the policies to what this project promises of them in an outage, and shows it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, TextIO

from aragora_transport.cli._demo_text import as_percent, as_time
from aragora_transport.cli._simulate_run import Progress
from aragora_transport.simulation.targets import (
    Verdict,
    check,
    recovery,
    recovery_after_drain,
    served,
    targets,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMES = (recovery, recovery_after_drain)


def show(seeds: Sequence[int], out: TextIO, *, as_json: bool) -> int:
    """Check every target over the seeds; the exit status tells whether all were held."""
    with Progress(sys.stderr) as progress:
        verdicts = list(check(targets(), seeds, progress=progress.show))
    if as_json:
        print(json.dumps([_plain(verdict) for verdict in verdicts], indent=2), file=out)
    else:
        print(
            f"50 calls/s, seeds {seeds[0]} to {seeds[-1]}: the worst, or the mean where it says so\n",
            file=out,
        )
        for verdict in verdicts:
            print(_line(verdict), file=out)
    return 0 if all(verdict.held for verdict in verdicts) else 1


def _line(verdict: Verdict) -> str:
    target = verdict.target
    what = target.what + (" (mean)" if target.mean else "")
    limit = f"{'<=' if target.at_most else '>='} {_shown(verdict, target.limit)}"
    held = "held" if verdict.held else "MISSED"
    return f"{target.policy:<24}{what:<46}{_shown(verdict, verdict.value):>9}  {limit:<11} {held}"


def _shown(verdict: Verdict, value: float | None) -> str:
    if value is None:
        return "never"
    measure = verdict.target.measure
    if measure is served:
        return as_percent(value)
    return as_time(value) if measure in _TIMES else f"{value:.3f}"


def _plain(verdict: Verdict) -> dict[str, object]:
    target = verdict.target
    return {
        "policy": target.policy,
        "what": target.what,
        "value": verdict.value,
        "limit": target.limit,
        "at_most": target.at_most,
        "mean": target.mean,
        "held": verdict.held,
    }
