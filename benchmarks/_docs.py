"""docs/benchmarks.md, its picture, and the table in the README, all from one report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from . import _svg, _targets
from ._peers import PEERS
from ._report import Report
from ._stacks import CALL, FIVE, LAYERS, ONE, WHOLE
from ._suites import module
from ._table import markdown

README, PAGE, PICTURE = "README.md", "docs/benchmarks.md", "docs/benchmarks.svg"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
COMMANDS = """\
pip install -e '.[bench,cli]' && aragora-transport bench --write-docs .
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


def write(report: Report, root: Path) -> None:
    """All three; what stands around the table in the README stays."""
    (root / PAGE).write_text(page(report), encoding="utf-8")
    (root / PICTURE).write_text(_svg.picture(report.table("overhead", "direct")), encoding="utf-8")
    readme = root / README
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{short_table(report)}\n{END}{after}", encoding="utf-8")


def short_table(report: Report) -> str:
    """What each case adds, direct and by a client."""
    direct, client = (report.table("overhead", name) for name in ("direct", "client"))
    rows = {row[0]: row for row in direct.cells()}
    of_client = {row[0]: row for row in client.cells()}
    header = ["", "added µs", "in bare layers", "`AsyncClient.get`, x bare"]
    figures = ([name, rows[name][1], rows[name][4], of_client[name][3]] for name in IN_README)
    return markdown([header, *figures])


def page(report: Report) -> str:
    """docs/benchmarks.md."""
    return "\n\n".join(_parts(report)) + "\n"


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
