"""The command, end to end: tables, JSON, pictures, targets, and what is refused."""

from __future__ import annotations

import io
import json
import re
from xml.etree import ElementTree as ET

import pytest

from aragora_transport.cli import _simulate_targets, main, simulate
from aragora_transport.cli._simulate_run import Progress
from aragora_transport.simulation import peers
from aragora_transport.simulation.targets import targets

QUICK = ["simulate", "--outage", "3+4", "--seconds", "12", "--rate", "30", "--seeds", "2"]
SVG = "{http://www.w3.org/2000/svg}"


def said(capsys, *options):
    assert main([*QUICK, *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_table_has_the_median_and_the_worst_of_each_policy(capsys):
    out = said(capsys)
    assert "failing server, severity 1, outage 3+4 s; 30 calls/s steady for 12 s" in out
    assert "seeds 1 to 2" in out
    assert re.search(r"none +guide +recommended$", out, re.MULTILINE)
    assert re.search(r"^served during +0.0 %", out, re.MULTILINE)
    assert re.search(r"^retries refused +- +- +\d", out, re.MULTILINE)
    assert re.search(r"^usual again after +0 ms +0 ms +never +never +\d+ ms", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80


def test_the_same_command_says_the_same_and_another_seed_something_else(capsys):
    one, again, other = (said(capsys, "--policy", "recommended", "--seed", seed) for seed in "117")
    assert one == again != other


def test_more_than_three_contenders_go_into_further_tables(capsys):
    changed = "recommended,breaker.failure_rate=0.5"
    out = said(capsys, *(f"--policy={name}" for name in ("none", "guide", "recommended", changed)))
    assert out.count("served during") == 2
    assert f"recommended,bre..: {changed}" in out


def test_a_queue_is_told_when_it_was_empty(capsys):
    out = said(
        capsys, "--policy", "recommended", "--server", "queue", "--severity", "0.9", "--processes", "2"
    )
    assert "its queue empty after" in out
    assert "from 2 processes" in out


def test_a_line_that_nobody_has_a_number_for_is_left_out(capsys):
    assert "waits at a gate" not in said(capsys, "--policy", "none")


def test_json_has_the_scenario_the_summaries_and_every_run(capsys):
    found = json.loads(said(capsys, "--json", "--policy", "none", "--policy", "recommended", "--seed", "3"))
    assert found["scenario"]["outages"] == [{"start": 3.0, "seconds": 4.0}]
    assert found["seeds"] == [3, 4]
    advised = found["contenders"]["recommended"]
    assert [run["seed"] for run in advised["runs"]] == [3, 4]
    opened = [run["layers"]["breaker"]["opened"] for run in advised["runs"]]
    assert (advised["median"]["circuit opened"], advised["worst"]["circuit opened"]) == (
        min(opened),
        max(opened),
    )
    assert found["contenders"]["none"]["median"]["retries"] is None


def test_a_picture_is_well_formed_and_shows_the_outage_the_circuits_and_two_curves_each(capsys, tmp_path):
    file = tmp_path / "outage.svg"
    said(capsys, "--svg", str(file), "--processes", "2", "--policy", "none", "--policy", "recommended")
    root = ET.parse(file).getroot()  # noqa: S314  # our own picture
    assert root.tag == f"{SVG}svg"
    outage = root.find(f".//{SVG}rect[@class='outage']")
    left, width = float(outage.get("x")), float(outage.get("width"))
    plane = 900 - 64 - 16
    assert (left - 64) / plane == pytest.approx(3 / 12, abs=0.001)
    assert width / plane == pytest.approx(4 / 12, abs=0.001)
    opened = [float(rect.get("x")) for rect in root.iterfind(f".//{SVG}rect[@class='open']")]
    assert left <= min(opened) <= max(opened) <= left + width + plane * 2 / 12
    assert len(list(root.iterfind(f".//{SVG}path[@class='curve']"))) == 4
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"none", "recommended", "served, of the calls that came then"} <= texts


def test_seconds_without_a_call_leave_a_gap_in_the_curve(capsys, tmp_path):
    file = tmp_path / "quiet.svg"
    said(capsys, "--svg", str(file), "--rate", "1", "--policy", "none")
    *_, served = ET.parse(file).getroot().iterfind(f".//{SVG}path[@class='curve']")  # noqa: S314  # ours
    assert served.get("d").count("M") > 1


def test_a_picture_that_cannot_be_written_is_told(capsys, tmp_path):
    assert main([*QUICK, "--policy", "none", "--svg", str(tmp_path / "no" / "way.svg")]) == 1
    assert "way.svg cannot be written: No such file" in capsys.readouterr().err


def test_other_libraries_join_where_they_are_installed(capsys):
    assert tuple(simulate.PEERS) == peers.NAMES
    found = json.loads(said(capsys, "--json", "--peers", "--policy", "tenacity", "--policy", "none"))
    names = list(found["contenders"])
    assert names[:2] == ["tenacity", "none"]
    assert sorted(names[2:]) == sorted({one.name for one in peers.installed()} - {"tenacity"})


@pytest.fixture
def few_targets(monkeypatch):
    wanted = targets(partial=5.0, after=5.0)
    chosen = [
        next(target for target in wanted if text in target.what) for text in ("served", "all fail: all")
    ]
    mean = next(target for target in wanted if target.mean)
    monkeypatch.setattr(_simulate_targets, "targets", lambda: [*chosen, mean])


def test_targets_are_told_with_their_limits_and_missed_ones_by_the_exit_status(capsys, few_targets):
    status = main(["simulate", "--targets", "--seeds", "1"])
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["recommended"] * 3
    assert ">= 98.5 %" in lines[0]
    assert re.search(r"\d ms +<= 1.00 s", lines[1])
    assert re.search(r"\(mean\) +1\.\d{3} +<= 1.420", lines[2])
    assert status == (1 if any(line.endswith("MISSED") for line in lines) else 0)


def test_targets_as_json(capsys, few_targets):
    main(["simulate", "--targets", "--seeds", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [target["at_most"] for target in found] == [False, True, True]
    assert all(target["held"] in {True, False} for target in found)


def test_a_target_that_is_never_reached_is_shown_as_missed(capsys, few_targets, monkeypatch):
    missed = _simulate_targets.Verdict(targets()[4], None)
    monkeypatch.setattr(_simulate_targets, "check", lambda *_, **__: iter([missed]))
    assert main(["simulate", "--targets"]) == 1
    assert re.search(r"never  <= 1.00 s +MISSED", capsys.readouterr().out)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_one_line_that_a_terminal_sees_and_that_is_gone_in_the_end():
    out = Terminal()
    with Progress(out) as progress:
        progress.show("guide: run 1 of 5,  50%")
        progress.show("guide: run 1 of 5,  50%")
        progress.show("short")
    first, second, *rest = out.getvalue().split("\r")[1:]
    assert (first, second.rstrip()) == ("guide: run 1 of 5,  50%", "short")
    assert len(second) == len(first)
    assert not "".join(rest).strip()


def test_progress_without_anything_to_show_leaves_no_trace():
    out = Terminal()
    with Progress(out):
        pass
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--rate", "0"], "argument --rate: '0' is not a number from 0.01 to 10000"),
        (["--severity", "1.5"], "argument --severity: '1.5' is not a number from 0 to 1 (share)"),
        (["--outage", "10"], "argument --outage: '10' is no outage; write 10+30"),
        (["--outage", "a+b"], "'a+b' is no outage"),
        (["--outage", "5+-1"], "must begin at 0 s or later and last for more than 0 s"),
        (["--outage", "10+30", "--seconds", "40"], "must end before the run does, at 40 s"),
        (["--outage", "10+30", "--outage", "20+5"], "two outages overlap"),
        (["--seeds", "0"], "argument --seeds: '0' is not a whole number from 1 to 1000"),
        (["--seed", str(2**32 - 1)], "goes beyond 4294967295"),
        (["--rate", "10000", "--seconds", "3600"], "a run makes at most 2000000; lower one of them"),
        (
            ["--policy", "guide,retry.max_attempts=0"],
            "argument --policy: guide,retry.max_attempts=0: RetryPolicy",
        ),
        (["--policy", "nobody"], "argument --policy: nobody: it is neither guide nor recommended"),
        (["--server", "ftp"], "argument --server: invalid choice: 'ftp'"),
    ],
)
def test_wrong_arguments_are_refused_with_the_reason(options, complaint, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["simulate", *options])
    assert refused.value.code == 2
    assert complaint in capsys.readouterr().err
