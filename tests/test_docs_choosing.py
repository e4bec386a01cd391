"""What docs/choosing.md says of commands, policies and promises, compared with the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from aragora_transport import Policy
from aragora_transport.cli import _parser
from aragora_transport.cli._policies import parse_policy
from aragora_transport.cli._simulate_report import METRICS, QUEUE
from aragora_transport.cli._simulate_targets import _line
from aragora_transport.simulation.scenario import ARRIVALS, SERVERS
from aragora_transport.simulation.targets import Verdict, targets

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "choosing.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"aragora-transport ((?:simulate|explain)[^`;\n)]*)", PAGE)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_every_command_is_one_that_there_is(command):
    words = shlex.split(command)
    _parser(words).parse_args(words)


def test_the_policy_file_is_read_as_it_stands(tmp_path):
    file = tmp_path / "policy.toml"
    (text,) = blocks("toml")
    file.write_text(text)
    policy, advised = parse_policy(str(file)), Policy.recommended()
    assert (policy.timeout.total, policy.retry.max_attempts, policy.breaker.key) == (20.0, 3, "host")
    assert policy.retry.budget.per_second == 2.0
    assert (policy.retry.jitter, policy.breaker.window) == (advised.retry.jitter, advised.breaker.window)


def test_the_servers_and_the_ways_to_come_are_all_there():
    first = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert first[: len(SERVERS + ARRIVALS)] == [*SERVERS, *ARRIVALS]


def test_the_promises_are_those_that_the_command_checks():
    printed = next(block for block in blocks("text") if "held" in block).splitlines()[2:]
    true = [_line(Verdict(target, target.limit)) for target in targets()]

    def promise(line):
        return re.split(r"\s{2,}", re.sub(r"(\)?)\s+\S+( m?s| %)?\s+([<>]=)", r"\1  \3", line))

    assert [promise(line) for line in printed] == [promise(line) for line in true]
    assert all(line.endswith(" held") for line in printed)


def test_the_tables_have_rows_that_the_command_prints():
    labels = {metric.label for metric in (*METRICS, QUEUE)}
    tables = [block for block in blocks("text") if "served during" in block]
    assert len(tables) == 3
    for table in tables:
        _, rows = table.split("\n\n", 1)
        assert {re.split(r"\s{2,}", row)[0] for row in rows.splitlines()[1:]} <= labels


def test_the_pictures_are_well_formed():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE)
    assert len(pictures) == 2
    for picture in pictures:
        root = ET.parse(DOCS / picture).getroot()  # noqa: S314  # our own pictures
        assert root.tag.endswith("svg")
