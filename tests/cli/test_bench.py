"""`aragora-transport bench` as a user runs it, and the pages that it has written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

from aragora_transport.cli import bench, main

counts = bench.part("counts")
docs = bench.part("_docs")
peers = bench.part("_peers")
stacks = bench.part("_stacks")
suites = bench.part("_suites")
targets = bench.part("_targets")

ROOT = Path(__file__).parents[2]
PATIENCE = 120


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All suites, each for a moment, in a process of their own that writes all it can."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "docs").mkdir()
    shutil.copy(ROOT / "README.md", root)
    files = {"--json": root / "figures.json", "--svg": root / "picture.svg", "--write-docs": root}
    words = [word for option, path in files.items() for word in (option, str(path))]
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-m", "aragora_transport", "bench", "--quick", "--rounds", "1", *words],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=untraced | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(
        root=root,
        out=done.stdout,
        err=done.stderr,
        svg=(root / "picture.svg").read_text(encoding="utf-8"),
        json=json.loads((root / "figures.json").read_text(encoding="utf-8")),
    )


def figures(finished, suite, name, row):
    (table,) = (table for table in finished.json["suites"][suite] if table["name"] == name)
    return table["rows"][row]


def test_every_suite_tells_its_progress_on_stderr_and_its_tables_on_stdout(finished):
    assert set(re.findall(r"^(\w+): 100 %$", finished.err, re.MULTILINE)) == set(suites.SUITES)
    for tables in finished.json["suites"].values():
        for table in tables:
            assert table["title"] in finished.out
            assert all(note in finished.out for note in table["notes"])
    assert all(name in finished.out for name in targets.TARGETS)


def test_the_json_tells_figures_circumstances_and_targets(finished):
    told = finished.json
    assert list(told) == ["schema", "rounds", "machine", "versions", "suites", "targets"]
    assert (told["schema"], told["rounds"]) == (1, 1)
    assert list(told["suites"]) == list(suites.SUITES)
    for tables in told["suites"].values():
        for table in tables:
            assert list(table) == ["name", "title", "rows", "notes"]
            (columns,) = {tuple(row) for row in table["rows"].values()}
            assert columns
            values = [value for row in table["rows"].values() for value in row.values()]
            assert all(value is None or isinstance(value, int | float) for value in values)
    assert [target["name"] for target in told["targets"]] == list(targets.TARGETS)
    for target in told["targets"]:
        assert list(target) == ["name", "limit", "measured", "held"]
        assert (target["measured"] is None) == (target["held"] is None)


def test_a_peer_has_figures_or_a_note_that_tells_why_not(finished):
    for name in ("direct", "client"):
        (table,) = (table for table in finished.json["suites"]["overhead"] if table["name"] == name)
        for peer in peers.PEERS:
            noted = any(note.startswith(f"{peer}: not measured") for note in table["notes"])
            assert (table["rows"][peer]["added"] is None) == noted
    assert figures(finished, "overhead", "direct", "tenacity per call")["added"] is not None


def test_counts_are_exact_and_what_is_left_out_costs_nothing(finished):
    def added(row):
        return figures(finished, "counts", "added", row)

    for what in ("bytecodes", "frames"):
        one = added(stacks.ONE)[what]
        assert added(stacks.FIVE)[what] == (None if one is None else 5 * one)
    assert added(stacks.ONE)["frames"] == 1
    for left_out in stacks.OFF:
        nothing = 0 if counts.monitoring else None
        assert figures(finished, "counts", "left out", left_out) == {"bytecodes": nothing}


def test_more_calls_in_flight_hold_memory_and_finished_ones_next_to_none(finished):
    for row in ("in flight, before headers", "in flight, in the body"):
        found = figures(finished, "memory", "memory", row)
        assert found["ours"] > found["bare"] > 0
    assert figures(finished, "memory", "memory", "left behind")["ours"] < 100


def names(text):
    """Headings, and of each table its header and the names of its rows: all but figures and prose."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("#"):
            found.append(line)
        elif line.startswith(("| |", "| target")):
            found.append(cells)
        elif line.startswith("| "):
            found.append(cells[0])
    return found


def test_the_page_of_the_benchmarks_has_the_names_that_the_command_writes(finished):
    written = (finished.root / docs.PAGE).read_text(encoding="utf-8")
    kept = (ROOT / docs.PAGE).read_text(encoding="utf-8")
    again = "run `aragora-transport bench --write-docs .` again"
    assert names(kept.partition(docs.BESIDE)[0]) == names(written), again
    assert docs.COMMANDS in kept, again


def test_another_run_stands_at_the_end_of_the_page(finished, tmp_path):
    told = tmp_path / "another.json"
    told.write_text(json.dumps(finished.json), encoding="utf-8")
    section = "\n\n".join(docs._beside(docs.read_beside(told)))
    assert finished.json["machine"]["Python"] in section
    direct, client = (line for line in section.splitlines() if line.startswith("| whole stack |"))
    for line, table in ((direct, "direct"), (client, "client")):
        added = figures(finished, "overhead", table, "whole stack")["added"]
        assert line.split("|")[2].strip() == f"{added:z.2f}"
    kept = docs.BESIDE + (ROOT / docs.PAGE).read_text(encoding="utf-8").partition(docs.BESIDE)[2]
    assert names(kept) == names(section)
    told.write_text('{"schema": 0}', encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"another\.json is of another release: its schema is 0, not 1; make it anew"
    ):
        docs.read_beside(told)


def test_the_table_of_the_readme_has_them_too_and_the_rest_of_it_stays(finished):
    def parts(path):
        before, rest = path.read_text(encoding="utf-8").split(docs.BEGIN)
        inside, after = rest.split(docs.END)
        return before, names(inside), after

    written = parts(finished.root / "README.md")
    assert parts(ROOT / "README.md") == written
    assert written[1][1:] == ["---", *docs.IN_README]


def test_the_table_of_the_readme_tells_the_figures_of_the_page(finished):
    table = (finished.root / "README.md").read_text(encoding="utf-8").partition(docs.BEGIN)[2]
    (whole,) = (line for line in table.splitlines() if line.startswith("| whole stack |"))
    direct, client = (figures(finished, "overhead", name, "whole stack") for name in ("direct", "client"))
    layers = "-" if direct["layers"] is None else f"{direct['layers']:z.0f}"
    assert whole == f"| whole stack | {direct['added']:z.2f} | {layers} | {client['x bare']:.3f} |"


def test_the_picture_has_them_as_well(finished):
    def words(svg):
        texts = [one.text for one in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314  # ours
        return [text for text in texts if not re.fullmatch(r"-?[\d.]+|not measured", text)]

    assert words((ROOT / docs.PICTURE).read_text(encoding="utf-8")) == words(finished.svg)
    assert (finished.root / docs.PICTURE).read_text(encoding="utf-8") == finished.svg


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["overheat"], "there is no suite 'overheat'; choose from memory, counts, paths, loopback, overhead"),
        (["--rounds", "0"], "argument --rounds: '0' is not a whole number from 1 to 10000; choose one"),
        (["--rounds", "many"], "'many' is not a whole number"),
        (["--rounds", "1" * 5000], "is not a whole number"),
        (["--json", "/nowhere/at/all.json"], "argument --json: '/nowhere/at/all.json' cannot be written"),
        (["--svg", "."], "argument --svg: '.' cannot be written: name a file in a directory that is there"),
        (
            ["counts", "--svg", "x.svg"],
            "--svg needs the suites overhead, too; name them, or no suite for all",
        ),
        (["overhead", "--check"], "--check needs the suites counts, too"),
        (
            ["counts", "--write-docs", "."],
            "--write-docs needs the suites memory, paths, loopback, overhead, too",
        ),
        (["--beside", "another.json"], "--beside needs --write-docs, too: it is told on the page alone"),
        (
            ["--write-docs", ".", "--beside", "/nowhere.json"],
            "--beside: /nowhere.json is no --json of all suites (FileNotFoundError(2, 'No such file or dir",
        ),
        (
            ["--write-docs", "/nowhere"],
            "--write-docs: there is no directory /nowhere/docs; name the top of a checkout",
        ),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_measured(options, complaint, capsys, monkeypatch):
    monkeypatch.setattr(bench.part("_command"), "module", None)
    with pytest.raises(SystemExit) as refused:
        main(["bench", *options])
    assert refused.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(("budget", "status"), [(7, 0), (6, 1)])
def test_check_fails_when_the_whole_stack_exceeds_its_budget(budget, status, capsys, monkeypatch):
    costs = iter([0] + [7] * 99)  # the bare request comes first
    monkeypatch.setattr(counts, "figures", lambda _transport: (None, next(costs), None))
    monkeypatch.setattr(counts, "BUDGETS", {sys.version_info[:2]: {"frames": budget}})
    assert main(["bench", "counts", "--check"]) == status
    assert ("the whole stack takes 7 frames" in capsys.readouterr().err) == bool(status)


def test_one_suite_by_its_name_is_all_that_runs(capsys, monkeypatch):
    monkeypatch.setattr(counts, "figures", lambda _transport: (None, 1, None))
    assert main(["bench", "counts"]) == 0
    out, err = capsys.readouterr()
    assert "counts, what is added" in out
    assert "memory" not in err


def test_the_suites_are_those_of_this_checkout():
    assert Path(suites.__file__) == ROOT / "benchmarks" / "_suites.py"


def test_python_m_benchmarks_is_the_same_command():
    done = subprocess.run(  # our own command
        [sys.executable, "-m", "benchmarks", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout.startswith("usage: aragora-transport bench")
    assert all(name in done.stdout for name in suites.SUITES)
