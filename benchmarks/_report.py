"""The result of a run: what was measured, where, and how it is written down as text and JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import _targets
from ._peers import versions
from ._table import Table, plain

SCHEMA = 1  # of the JSON; it changes when a reader of the old one would stumble


def _machine() -> dict[str, str]:
    """What the figures hang on."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "CPU": _cpu(),
        "CPUs": str(os.cpu_count()),
        "load at the end": load,  # of one program, this one, it would be 1 at most
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All tables by suite, and the circumstances."""

    suites: Mapping[str, Sequence[Table]]
    rounds: int
    machine: Mapping[str, str] = field(default_factory=_machine)
    versions: Mapping[str, str | None] = field(default_factory=versions)

    @property
    def targets(self) -> list[_targets.Target]:
        """The limits beside what was measured."""
        return _targets.targets(self.suites)

    def table(self, suite: str, name: str) -> Table:
        """One table; ValueError when there is none."""
        (found,) = (table for table in self.suites.get(suite, ()) if table.name == name)
        return found

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "schema": SCHEMA,
            "rounds": self.rounds,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "suites": {name: [table.as_json() for table in made] for name, made in self.suites.items()},
            "targets": [target.as_json() for target in self.targets],
        }

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield ", ".join(f"{name}: {value}" for name, value in self.machine.items())
        yield ", ".join(f"{name} {version}" for name, version in self.versions.items() if version)
        for suite, tables in self.suites.items():
            for table in tables:
                yield f"\n{suite}, {table.title}"
                yield plain(table.cells())
                yield from table.notes
        yield "\ntargets"
        yield plain(_targets.cells(self.targets))
