"""The demo's numbers and how they are shown, from a run that was made up."""

import io
import json
import re
from collections import Counter

import pytest

from aragora_transport.cli import _demo_report as report
from aragora_transport.cli import _demo_text as text
from aragora_transport.cli._demo_server import LaneReport
from aragora_transport.cli._demo_state import Activity, Run, Settings
from aragora_transport.cli._demo_traffic import UNFINISHED, Arrival, Outcome
from aragora_transport.cli._demo_view import JsonView, PlainView, View, choose_view
from aragora_transport.events import (
    AttemptFinished,
    CircuitChanged,
    RateLimitWaited,
    RetryRefused,
    RetryScheduled,
)

EVERY = {"platform": "demo", "operation": "get_item", "correlation_id": "1", "attempt": 1}
FILES = {"metrics": "/tmp/m", "logs": "/tmp/l"}  # noqa: S108  # never opened


def made_up_run(*, bare: int = 4, ours: int = 8, of: int = 10) -> Run:
    """Ten calls, a second apart, of which the first so many are served; each takes 10 ms more."""
    run = Run(settings=Settings(seconds=10.0, rate=1.0, seed=7, policy="recommended"))
    for name, served in (("bare", bare), ("ours", ours)):
        for number in range(of):
            arrival = Arrival(number, float(number), "GET")
            run.tallies[name].begun.append(arrival)
            failure = None if number < served else "503"
            run.tallies[name].end(Outcome(arrival, failure, 0.01 * (number + 1)))
    fates = {"serve": 4, "503": 6}
    run.lanes["bare"] = LaneReport(sends=[1, 2, 2, 2, 1, 2], fates=fates)
    run.lanes["ours"] = LaneReport(sends=[1, 3, 3, 0, 1, 2], fates=fates)
    run.elapsed = 10.0
    return run


def shown(view: View, out: io.StringIO, run: Run) -> str:
    view.begin(run)
    view.update(run)
    view.end(run, FILES)
    return out.getvalue()


def test_a_summary_is_of_all_calls() -> None:
    numbers = report.summary(made_up_run(), "ours")
    assert (numbers["calls"], numbers["served"], numbers["failed"]) == (10, 8, 2)
    assert (numbers["sends"], numbers["sends_per_call"], numbers["served_share"]) == (10, 1.0, 0.8)
    assert (numbers["p50_seconds"], numbers["p99_seconds"], numbers["longest_seconds"]) == (0.05, 0.1, 0.1)
    assert numbers["failures"] == {"503": 2}
    assert [phase["sends"] for phase in numbers["phases"]] == [1, 3, 3, 0, 1, 2]


def test_a_run_that_was_stopped_before_its_first_call_has_a_summary_too() -> None:
    run = Run(settings=Settings(seconds=10.0, rate=1.0, seed=7, policy="guide"), interrupted=True)
    numbers = report.as_json(run, FILES)
    assert numbers["bare"]["p50_seconds"] is None
    assert numbers["ours"]["sends"] == 0
    out = io.StringIO()
    seen = shown(PlainView(out), out, run)
    assert "Stopped before the first call" in seen
    assert "sends per call" not in seen


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(number) for number in range(1, 201)]
    assert report.percentile(values, 0.5) == 100.0
    assert report.percentile(values, 0.99) == 198.0
    assert report.percentile([3.0], 0.99) == 3.0
    assert report.percentile([], 0.5) is None


def test_a_share_is_never_rounded_up_to_all() -> None:
    assert [text.as_percent(share) for share in (1.0, 0.99999, 0.0, None)] == [
        "100 %",
        "99.9 %",
        "0.0 %",
        "-",
    ]


def test_times_are_in_the_unit_that_fits() -> None:
    assert [text.as_time(seconds) for seconds in (0.0123, 0.9, 2.5, None)] == [
        "12 ms",
        "900 ms",
        "2.50 s",
        "-",
    ]


def test_activity_counts_what_was_sent_again() -> None:
    activity = Activity()
    for attempt in (1, 2, 3):
        activity(AttemptFinished(**EVERY | {"attempt": attempt}, status=503, error=None, seconds=0.1))
    assert activity.retries == 2


def test_activity_counts_each_wait_once() -> None:
    activity = Activity()
    failed = {"status": 429, "error": None, "max_attempts": 4}
    activity(RetryScheduled(**EVERY, **failed, wait=0.5, told=False))
    activity(RetryScheduled(**EVERY, **failed, wait=1.0, told=True))  # the gate tells of this one
    activity(RateLimitWaited(**EVERY, key="demo", seconds=1.0, refused=False))
    activity(RateLimitWaited(**EVERY, key="demo", seconds=90.0, refused=True))
    activity(RetryRefused(**EVERY, **failed, wait=None, reason="budget"))
    assert (activity.waits, activity.waited) == (2, 1.5)
    assert activity.refused == {"budget": 1}


def test_activity_follows_the_circuit() -> None:
    activity = Activity()
    change = {"key": "demo", "worst": "open", "failures": 5, "next_probe_in": 1.0, "cause": "503"}
    for old, new in (("closed", "open"), ("open", "half-open"), ("half-open", "open")):
        activity(CircuitChanged(**EVERY, **change, old=old, new=new))
    assert (activity.circuit, activity.opened) == ("open", 2)


def test_an_open_circuit_tells_when_it_looks_again() -> None:
    run = made_up_run()
    assert text.circuit_text(run) == "closed"
    run.activity.circuit = "open"
    assert text.circuit_text(run) == "open"
    run.next_probe_in = 0.75
    assert text.circuit_text(run) == "open, next probe in 0.8 s"


def test_failures_are_named_for_people_commonest_first() -> None:
    failures = Counter({"503": 5, "CircuitOpenError": 9, "ReadTimeout": 1, "WriteError": 1})
    assert text.errors_text(failures) == "circuit open x9, 503 x5, +2"
    assert text.errors_text(Counter()) == "none"


@pytest.mark.parametrize(
    ("bare", "ours", "said"),
    [(4, 8, "served 4 calls more than bare"), (5, 5, "as many"), (8, 4, "Bare httpx served 4 calls more")],
)
def test_the_verdict_is_what_was_counted(bare: int, ours: int, said: str) -> None:
    run = made_up_run(bare=bare, ours=ours)
    assert said in text.remarks(run)[0]
    assert run.ours_served_more == (ours > bare)


def test_a_circuit_that_outlasts_the_run_is_explained() -> None:
    run = made_up_run(ours=3)
    run.activity.circuit = "open"
    assert "--policy recommended" in " ".join(text.remarks(run))


def test_a_machine_too_busy_to_trust_is_told() -> None:
    run = made_up_run()
    assert "busy" not in " ".join(text.remarks(run))
    run.tallies["bare"].begun.append(Arrival(10, 9.0, "GET").begun(9.75))
    assert "calls began up to 750 ms late" in " ".join(text.remarks(run))


def test_stalled_bodies_that_cost_ours_more_are_explained() -> None:
    run = made_up_run(ours=6)
    assert "Stalled bodies" not in " ".join(text.remarks(run))
    run.tallies["bare"].end(Outcome(Arrival(10, 7.5, "GET"), None, 0.1))
    assert "Stalled bodies" in " ".join(text.remarks(run))


def test_unfinished_calls_are_told() -> None:
    run = made_up_run()
    run.tallies["ours"].end(Outcome(Arrival(10, 9.9, "GET"), UNFINISHED, 6.0))
    assert "1 calls had not ended" in " ".join(text.remarks(run))


def test_slots_hold_every_call_once() -> None:
    run = made_up_run()
    run.tallies["bare"].begun.append(Arrival(10, 9.99, "GET"))
    slots = text.slots(run, "bare", 5)
    assert slots == [(2, 2, 0), (2, 2, 0), (2, 0, 2), (2, 0, 2), (3, 0, 2)]


def test_plain_lines_are_ascii_without_escapes_and_fit_80_columns() -> None:
    run = made_up_run()
    run.activity.circuit = "half-open"
    out = io.StringIO()
    seen = shown(PlainView(out), out, run)
    assert seen.isascii()
    assert "\x1b" not in seen
    assert max(map(len, seen.splitlines())) <= 80
    assert re.search(r"served % +40\.0 % +80\.0 %", seen)
    assert "metrics:  /tmp/m" in seen


def test_plain_lines_come_once_a_second() -> None:
    out = io.StringIO()
    view, run = PlainView(out), made_up_run()
    view.begin(run)
    head = len(out.getvalue().splitlines())
    for tenth in range(25):
        run.elapsed = tenth / 10
        view.update(run)
    assert len(out.getvalue().splitlines()) - head == 3
    view.close()


def test_json_is_all_there_is() -> None:
    out = io.StringIO()
    view = JsonView(out)
    result = json.loads(shown(view, out, made_up_run()))
    assert result["ours_served_more"] is True
    assert result["seed"] == 7
    assert result["files"] == FILES
    view.close()


def test_nothing_but_a_word_is_shown_of_a_run_without_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = Run(settings=Settings(seconds=10.0, rate=1.0, seed=7, policy="guide"), interrupted=True)
    out = Screen()
    choose_view(out, as_json=False, environ=COLOUR).end(run, FILES)
    assert out.getvalue().splitlines()[0] == "Stopped before the first call."


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


COLOUR = {"TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("out", "as_json", "environ", "expected"),
    [
        (Screen(), True, COLOUR, "JsonView"),
        (Screen(), False, COLOUR, "RichView"),
        (Screen(), False, COLOUR | {"NO_COLOR": ""}, "RichView"),  # no-color.org: an empty one does not count
        (Screen(), False, COLOUR | {"NO_COLOR": "1"}, "PlainView"),
        (Screen(), False, {"TERM": "dumb"}, "PlainView"),
        (io.StringIO(), False, COLOUR, "PlainView"),
    ],
)
def test_the_view_fits_what_it_is_shown_on(
    out: io.StringIO, as_json: bool, environ: dict[str, str], expected: str
) -> None:
    assert type(choose_view(out, as_json=as_json, environ=environ)).__name__ == expected


def test_without_rich_a_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert isinstance(choose_view(Screen(), as_json=False, environ=COLOUR), PlainView)


@pytest.mark.parametrize("columns", [80, 60, 200])
def test_the_picture_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "24")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    out, run = Screen(), made_up_run()
    run.elapsed = 4.2
    run.tallies["ours"].begun.append(Arrival(10, 3.5, "GET"))
    view = choose_view(out, as_json=False, environ=COLOUR)
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown(view, out, run))
    assert max(len(line) for line in re.split(r"[\r\n]+", seen)) <= columns
    assert "4.2 of 10 s" in seen
    assert "in flight" in seen
    assert "sends per call" in seen
    view.update(run)  # after the end there is no picture to bring up to date
    view.close()
