"""A run of the demo in words and rows, for whichever view shows them. Nothing here prints."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from aragora_transport.cli import _demo_report as report
from aragora_transport.cli._demo_traffic import UNFINISHED

if TYPE_CHECKING:
    from collections import Counter

    from aragora_transport.cli._demo_state import Run
    from aragora_transport.cli._demo_traffic import Tally

TITLES = {"bare": "bare httpx", "ours": "aragora_transport"}
WIDTH = 80
NOTABLY_LATE = 0.25  # seconds
Row = tuple[str, str, str]


def total_rows(run: Run) -> list[Row]:
    """The final table: what, for bare httpx, for ours."""
    bare, ours = report.summary(run, "bare"), report.summary(run, "ours")
    shown = (
        ("calls", "calls", _plain),
        ("served", "served", _plain),
        ("failed", "failed", _plain),
        ("served %", "served_share", as_percent),
        ("sends per call", "sends_per_call", _two_digits),
        ("p50", "p50_seconds", as_time),
        ("p99", "p99_seconds", as_time),
        ("longest", "longest_seconds", as_time),
        ("POSTs carried out twice", "posts_repeated", _plain),
    )
    return [(label, show(bare[key]), show(ours[key])) for label, key, show in shown]


def phase_rows(run: Run) -> list[tuple[str, ...]]:
    """The table by phase: name, served % and sends per call, for bare httpx and for ours."""
    sides = zip(report.phase_numbers(run, "bare"), report.phase_numbers(run, "ours"), strict=True)
    return [
        (bare["phase"], *_phase_cells(bare), *_phase_cells(ours)) for bare, ours in sides if bare["calls"]
    ]


def _phase_cells(numbers: dict[str, Any]) -> tuple[str, str]:
    calls = numbers["calls"]
    return as_percent(numbers["served"] / calls), _two_digits(numbers["sends"] / calls)


def live_rows(run: Run) -> list[Row]:
    """The table while it goes on."""
    bare, ours = run.tallies["bare"], run.tallies["ours"]
    activity = run.activity
    return [
        ("served", _counted(bare.served, bare), _counted(ours.served, ours)),
        ("failed", _counted(bare.failed, bare), _counted(ours.failed, ours)),
        ("in flight", str(bare.in_flight), str(ours.in_flight)),
        ("sends", str(sum(run.lanes["bare"].sends)), str(sum(run.lanes["ours"].sends))),
        ("retries", "-", str(activity.retries)),
        ("waits", "-", f"{activity.waits}, {activity.waited:.1f} s in all"),
        ("circuit", "-", circuit_text(run)),
        ("errors", errors_text(bare.failures), errors_text(ours.failures)),
    ]


def _counted(count: int, tally: Tally) -> str:
    ended = len(tally.outcomes)
    return f"{count}  {as_percent(count / ended)}" if ended else str(count)


def circuit_text(run: Run) -> str:
    """The circuit's state, and when it looks again."""
    probe = run.next_probe_in
    following = f", next probe in {probe:.1f} s" if run.activity.circuit == "open" and probe else ""
    return f"{run.activity.circuit}{following}"


_FAILURE_WORDS = {
    "CircuitOpenError": "circuit open",
    "DeadlineExceededError": "deadline",
    "RateLimitedError": "rate limited",
    "ReadTimeout": "timed out",
    "RemoteProtocolError": "dropped",
}


def errors_text(failures: Counter[str], most: int = 2) -> str:
    """The commonest failures with their counts."""
    named = [f"{_FAILURE_WORDS.get(name, name)} x{count}" for name, count in failures.most_common(most)]
    others = sum(failures.values()) - sum(count for _, count in failures.most_common(most))
    return ", ".join([*named, f"+{others}"] if others else named) or "none"


def remarks(run: Run) -> list[str]:
    """What the numbers mean, in a line or two."""
    if not run.has_calls:
        return ["Stopped before the first call."]
    bare, ours = run.tallies["bare"], run.tallies["ours"]
    found = ["Stopped early; these are the calls until then."] if run.interrupted else []
    found.append(_verdict(ours.served - bare.served))
    if not run.interrupted:
        found += _explanations(run)
    if unfinished := bare.failures[UNFINISHED] + ours.failures[UNFINISHED]:
        found.append(f"{unfinished} calls had not ended when the demo did; they count as failed.")
    if (late := max(arrival.late for arrival in bare.begun)) > NOTABLY_LATE:
        found.append(f"This machine was busy: calls began up to {as_time(late)} late, so judge with care.")
    return found


_STILL_OPEN = (
    "The circuit was still open at the end: its cooldown outlasts this demo's outage. "
    "Compare --policy recommended."
)
_STALLED = (
    "Stalled bodies: a call is not sent again once its answer has begun, and ours still refused "
    "some until its circuit had closed after the outage."
)


def _explanations(run: Run) -> list[str]:
    if run.activity.circuit == "open":
        return [_STILL_OPEN]
    return [_STALLED] if _stalled_more(run) else []


def _stalled_more(run: Run) -> bool:
    sides = [report.phase_numbers(run, name) for name in ("bare", "ours")]
    bare, ours = (phase["served"] for side in sides for phase in side if phase["phase"] == "stalled bodies")
    return bool(ours < bare)


def _verdict(more: int) -> str:
    if more > 0:
        return f"aragora_transport served {more} calls more than bare httpx."
    if more == 0:
        return "Both served as many calls."
    return f"Bare httpx served {-more} calls more than aragora_transport."


def slots(run: Run, name: str, count: int) -> list[tuple[int, int, int]]:
    """The run cut into `count` slots of time: how many calls came in each, were served, failed."""
    came, served, failed = [0] * count, [0] * count, [0] * count
    width = run.settings.seconds / count
    tally = run.tallies[name]
    for arrival in tally.begun:
        came[_slot(arrival.at, width, count)] += 1
    for outcome in tally.outcomes:
        column = served if outcome.failure is None else failed
        column[_slot(outcome.arrival.at, width, count)] += 1
    return list(zip(came, served, failed, strict=True))


def _slot(at: float, width: float, count: int) -> int:
    return min(count - 1, int(at / width))


def as_percent(share: float | None) -> str:
    """A share for people; never 100 % of what was not all of it."""
    if share is None:
        return "-"
    percent = math.floor(share * 1000) / 10
    return f"{percent:.0f} %" if percent == 100 else f"{percent:.1f} %"


def as_time(seconds: float | None) -> str:
    """A duration for people, in ms or s."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _plain(value: object) -> str:
    return str(value)


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def heading(run: Run) -> str:
    """The settings in a line."""
    chosen = run.settings
    return (
        f"aragora-transport demo: {chosen.rate:g} calls/s for {chosen.seconds:g} s, "
        f"policy {chosen.policy}, seed {chosen.seed}"
    )


def closing_lines(run: Run, files: dict[str, str]) -> list[str]:
    """What follows the tables: what it means, and where the rest can be read."""
    lines = [line for remark in remarks(run) for line in textwrap.wrap(remark, WIDTH)]
    return [*lines, "", *(f"{what + ':':<9} {path}" for what, path in files.items())]
