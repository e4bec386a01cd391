"""How figures are shown and judged, from tables that were made up."""

import io
import threading
from xml.etree import ElementTree as ET

import pytest

from aragora_transport.cli import bench

docs = bench.part("_docs")
peers = bench.part("_peers")
progress = bench.part("_progress")
report = bench.part("_report")
stacks = bench.part("_stacks")
svg = bench.part("_svg")
table = bench.part("_table")
targets = bench.part("_targets")

SVG = "{http://www.w3.org/2000/svg}"


def made_up(name, columns, **rows):
    return table.Table(name=name, title="made up", columns=columns, rows=rows)


TWO = made_up("two", {"us": ".1f", "n": ".0f"}, first=(1.25, 10), second=(None, 3))


def test_a_table_as_text_as_markdown_and_as_json():
    assert table.plain(TWO.cells()).splitlines() == [
        "         us   n",
        "first   1.2  10",
        "second    -   3",
    ]
    assert table.markdown(TWO.cells()).splitlines() == [
        "| | us | n |",
        "| --- | ---: | ---: |",
        "| first | 1.2 | 10 |",
        "| second | - | 3 |",
    ]
    assert TWO.as_json() == {
        "name": "two",
        "title": "made up",
        "rows": {"first": {"us": 1.25, "n": 10}, "second": {"us": None, "n": 3}},
        "notes": [],
    }


def counted(**whole):
    figures = {"bytecodes": 600, "frames": 16} | whole
    columns = dict.fromkeys(figures, ".0f")
    added = table.Table(name="added", title="", columns=columns, rows={stacks.WHOLE: tuple(figures.values())})
    rows = dict.fromkeys(stacks.OFF, (0,)) | {"retry": (1,)}
    left_out = table.Table(name="left out", title="", columns={"bytecodes": ".0f"}, rows=rows)
    return {"counts": [added, left_out]}


def test_a_target_is_held_up_to_its_limit():
    held = {one.name: one.held for one in targets.targets(counted(frames=17))}
    assert held["bytecodes per request"] is True
    assert held["Python frames per request"] is False
    assert held["bytecodes of layers that are left out"] is False


def overhead(client=1.1, **added):
    columns = {"added": ".2f", "x bare": ".3f"}
    rows = {name.replace("_", " "): (figure, client) for name, figure in added.items()}
    return {
        "overhead": [
            table.Table(name=name, title="", columns=columns, rows=rows) for name in ("direct", "client")
        ]
    }


def test_a_target_that_needs_a_missing_peer_or_suite_is_neither_held_nor_broken():
    rows = {stacks.WHOLE: 4.0, peers.CLIENTWRIGHT: None, peers.PYBREAKER: 4.0}
    seen = {one.name: (one.measured, one.held) for one in targets.targets(overhead(**rows))}
    assert seen["added time, as a share of clientwright's"] == (None, None)
    assert seen["added time, as a share of pybreaker's `calling()`"] == (1.0, True)
    assert seen["`AsyncClient.get` on the null network, x bare"] == (1.1, True)
    assert seen["bytecodes per request"] == (None, None)
    assert targets.cells(targets.targets({}))[1][1:] == ["0.06667", "-", "-"]


def direct(missing=()):
    names = (
        stacks.FIVE,
        stacks.CALL,
        *(f"{name} alone" for name in stacks.LAYERS),
        stacks.WHOLE,
        *peers.PEERS,
    )
    rows = {name: (None if name in missing else float(n),) for n, name in enumerate(names)}
    return table.Table(name="direct", title="", columns={"added": ".2f"}, rows=rows)


def test_the_picture_has_a_bar_for_every_case_within_its_frame():
    drawn = ET.fromstring(svg.picture(direct(missing=("opentelemetry",))))  # noqa: S314  # ours
    width, height = float(drawn.get("width")), float(drawn.get("height"))
    frame, *bars = drawn.findall(f"{SVG}rect")
    words = [one.text for one in drawn.findall(f"{SVG}text")]
    assert frame.get("width") == drawn.get("width")
    assert set(direct().rows) <= set(words)
    assert words.count("not measured") == 1
    assert len(bars) == len(direct().rows)  # the whole stack twice, the missing one not at all
    for bar in bars:
        assert float(bar.get("x")) + float(bar.get("width")) <= width - svg.FIGURE
        assert float(bar.get("y")) + float(bar.get("height")) <= height
        assert float(bar.get("width")) >= 1.0


def test_names_in_the_picture_are_escaped(monkeypatch):
    monkeypatch.setattr(svg, "PEERS", {"<&>": None})
    rows = {**direct().rows, "<&>": (1.0,)}
    odd = table.Table(name="direct", title="", columns={"added": ".2f"}, rows=rows)
    drawn = ET.fromstring(svg.picture(odd))  # noqa: S314  # ours
    assert "<&>" in [one.text for one in drawn.findall(f"{SVG}text")]


def test_a_picture_of_nothing_but_noise_can_be_drawn():
    rows = dict.fromkeys(direct().rows, (-0.1,))
    noise = table.Table(name="direct", title="", columns={"added": ".2f"}, rows=rows)
    ET.fromstring(svg.picture(noise))  # noqa: S314  # ours


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("out", "environ"),
    [(io.StringIO, {}), (Terminal, {"NO_COLOR": "1"}), (Terminal, {"TERM": "dumb"})],
)
def test_progress_is_a_line_for_each_quarter_where_no_bar_is_wanted(out, environ):
    out = out()
    with progress.progress(out, "paths", environ) as tell:
        for done in range(1, 101):
            tell(done, 100)
    assert out.getvalue().splitlines() == [f"paths: {percent} %" for percent in (1, 25, 50, 75, 100)]


def test_without_rich_a_terminal_gets_lines(monkeypatch):
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda _name: None)
    out = Terminal()
    with progress.progress(out, "paths", {}) as tell:
        tell(1, 1)
    assert out.getvalue() == "paths: 100 %\n"


def test_a_terminal_gets_a_bar_that_needs_no_thread():
    out, threads = Terminal(), threading.active_count()
    with progress.progress(out, "paths", {"TERM": "xterm"}) as tell:
        tell(1, 2)
        assert threading.active_count() == threads
        tell(2, 2)
    assert "paths" in out.getvalue()
    assert "100%" in out.getvalue()


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "there is no directory "),
        ({"docs/x.md": ""}, "README.md has no lines <!-- benchmarks: begin --> and"),
        ({"docs/x.md": "", "README.md": f"{docs.END} {docs.BEGIN}"}, "for the table to stand between"),
        ({"docs/x.md": "", "README.md": f"{docs.BEGIN} {docs.END}"}, None),
    ],
)
def test_pages_are_written_only_where_they_belong(files, complaint, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    problem = docs.check(tmp_path)
    assert problem is None if complaint is None else complaint in problem
