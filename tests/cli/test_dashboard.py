"""The files that `rules` and `dashboard` write."""

from __future__ import annotations

import json
import re

import pytest

from aragora_transport.cli import main
from aragora_transport.cli._panels import ROWS
from aragora_transport.cli._rules import ALERTS, RECORDED
from aragora_transport.layers import _families

FAMILIES = {**_families.COUNTERS, **_families.GAUGES, **_families.HISTOGRAMS}


@pytest.fixture
def dashboard(capsys):
    assert main(["dashboard"]) == 0
    return json.loads(capsys.readouterr().out)


def test_no_panel_covers_another_and_none_is_beyond_the_edge(dashboard):
    taken = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert 0 <= x < 24
                assert taken.setdefault((x, y), panel["id"]) == panel["id"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_panel_says_what_it_shows_and_asks_the_chosen_source(dashboard):
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == list(ROWS)
    for panel in (panel for panel in dashboard["panels"] if panel["type"] != "row"):
        assert panel["description"].endswith(".")
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert sources == [{"type": "prometheus", "uid": "${source}"}] * len(sources)
        assert [target["refId"] for target in panel["targets"]] == list("ABC")[: len(panel["targets"])]
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == [
        "source",
        "platform",
        "operation",
    ]


def test_what_is_bad_is_red_and_a_state_has_its_name(dashboard):
    panels = {
        panel["title"]: panel["fieldConfig"]["defaults"]
        for panel in dashboard["panels"][1:]
        if "targets" in panel
    }
    assert panels["Sends for each call"]["thresholds"]["steps"][-1] == {"color": "red", "value": 1.5}
    assert panels["Failed calls by platform"]["custom"] == {"thresholdsStyle": {"mode": "dashed"}}
    options = panels["The worst circuit of each platform"]["mappings"][0]["options"]
    assert {int(value): shown["text"] for value, shown in options.items()} == {
        code: state for state, code in _families.STATES.items()
    }


def test_every_family_is_in_a_panel_with_labels_that_it_has(dashboard):
    exprs = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    exprs += [*RECORDED.values(), *(alert.expr for alert in ALERTS)]
    shown = set()
    for name, matching in re.findall(
        r"\b(platform_[a-z_]+?)(?:_bucket)?(?:\{([^}]*)\}|[\[\s)])", " ".join(exprs)
    ):
        assert name in FAMILIES
        assert set(re.findall(r'(\w+)(?:=~|!=|=)"', matching)) <= set(FAMILIES[name][1])
        shown.add(name)
    assert shown == set(FAMILIES)


@pytest.mark.parametrize("command", ["rules", "dashboard"])
def test_a_file_gets_what_else_goes_to_stdout(command, tmp_path, capsys):
    file = tmp_path / "file"
    assert main([command, "-o", str(file)]) == 0
    assert capsys.readouterr().out == ""
    assert main([command]) == 0
    assert capsys.readouterr().out == file.read_text(encoding="utf-8") != ""


@pytest.mark.parametrize("command", ["rules", "dashboard"])
def test_a_file_that_cannot_be_written_is_told_of(command, tmp_path, capsys):
    assert main([command, "-o", str(tmp_path / "missing" / "file")]) == 1
    assert "file cannot be written: No such file or directory" in capsys.readouterr().err


def test_the_runbook_may_be_anywhere(capsys):
    assert main(["rules", "--runbook", 'https://wiki.test/"us"']) == 0
    assert r'runbook_url: "https://wiki.test/\"us\"#platformdown"' in capsys.readouterr().out
