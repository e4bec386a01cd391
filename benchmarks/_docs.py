"""docs/benchmarks.md, its picture, and the table in the README, all from one report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import _svg, _targets, overhead
from ._harness import CONTROL
from ._peers import PEERS
from ._report import SCHEMA, Report
from ._stacks import CALL, FIVE, LAYERS, ONE, WHOLE
from ._suites import module
from ._table import Table, markdown

README, PAGE, PICTURE = "README.md", "docs/benchmarks.md", "docs/benchmarks.svg"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
BESIDE = "## Another run"
COMMANDS = """\
pip install -e '.[bench,cli]' && aragora-transport bench --write-docs .
aragora-transport bench --json 311.json  # on another Python; --beside 311.json then tells of both
python -m benchmarks --quick  # the same command, for a look
python -m benchmarks counts --check  # fails when a request costs more than it did"""
IN_README = (ONE, FIVE, CALL, *(f"{name} alone" for name in LAYERS), WHOLE, *PEERS)


def check(root: Path) -> str | None:
    """Why the pages below `root` cannot be written; None when they can."""
    docs = (root / PAGE).parent
    if not docs.is_dir():
        return f"there is no directory {docs}"
    readme = root / README
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if not 0 <= text.find(BEGIN) < text.find(END):
        return f"{readme} has no lines {BEGIN} and {END} for the table to stand between"
    return None


def write(report: Report, root: Path, beside: Mapping[str, Any] | None = None) -> None:
    """All three; what stands around the table in the README stays. `beside`: the JSON of another run."""
    (root / PAGE).write_text(page(report, beside), encoding="utf-8")
    (root / PICTURE).write_text(_svg.picture(report.table("overhead", "direct")), encoding="utf-8")
    readme = root / README
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{short_table(report)}\n{END}{after}", encoding="utf-8")


def short_table(report: Report) -> str:
    """What each case adds, direct and by a client."""
    direct, client = (report.table("overhead", name) for name in ("direct", "client"))
    header = ["", "added µs", "in bare layers", "`AsyncClient.get`, x bare"]
    figures = (
        [name, direct.cell(name, "added"), direct.cell(name, "layers"), client.cell(name, "x bare")]
        for name in IN_README
    )
    return markdown([header, *figures])


def page(report: Report, beside: Mapping[str, Any] | None = None) -> str:
    """docs/benchmarks.md."""
    parts = [*_parts(report), *(() if beside is None else _beside(beside))]
    return "\n\n".join(parts) + "\n"


def read_beside(path: Path) -> dict[str, Any]:
    """The `--json` of another run; raises ValueError where it is none."""
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = told["schema"]
        if schema == SCHEMA:
            "".join(_beside(told))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is no --json of all suites ({error!r}); make it anew") from error
    if schema != SCHEMA:
        raise ValueError(
            f"{path} is of another release: its schema is {schema!r}, not {SCHEMA}; make it anew"
        )
    return told


def _beside(told: Mapping[str, Any]) -> Iterator[str]:
    """The whole stack and other libraries, as another run has found them."""
    yield BESIDE
    yield f"The whole stack and other libraries on {told['machine']['Python']}, measured in the same way."
    targets = [
        _targets.Target(name=one["name"], limit=one["limit"], measured=one["measured"])
        for one in told["targets"]
    ]
    yield markdown(_targets.cells(targets))
    for table in told["suites"]["overhead"][:2]:
        rows = {name: tuple(table["rows"][name].values()) for name in (CONTROL, FIVE, WHOLE, *PEERS)}
        yield f"{table['title'][0].upper()}{table['title'][1:]}:"
        yield markdown(Table(name="", title="", columns=overhead.COLUMNS, rows=rows).cells())


def _parts(report: Report) -> Iterator[str]:
    yield "# Benchmarks"
    yield (
        "What the layers cost, as `aragora-transport bench` measured it; `--write-docs` wrote this page.\n"
        "The figures are those of one machine and change with it; `bytecodes` and `frames` do not."
    )
    yield f"```sh\n{COMMANDS}\n```"
    yield f"![What each layer adds]({Path(PICTURE).name})"
    yield "## Targets"
    yield "The limits that the project has set itself, for the whole stack."
    yield markdown(_targets.cells(report.targets))
    for name, tables in report.suites.items():
        yield f"## {name.capitalize()}"
        yield re.sub(r"^    ", "", (module(name).__doc__ or "").strip(), flags=re.MULTILINE)
        for table in tables:
            if len(tables) > 1:
                yield f"### {name.capitalize()}: {table.name}"
            yield f"{table.title[0].upper()}{table.title[1:]}:"
            yield markdown(table.cells())
            if table.notes:
                yield "\n".join(f"* {note}" for note in table.notes)
    yield "## Machine"
    yield f"{report.rounds} rounds."
    told = [*report.machine.items(), *report.versions.items()]
    yield markdown([["", "here"], *([name, value or "not installed"] for name, value in told)])
