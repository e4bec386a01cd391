"""`aragora-transport bench`: what each layer costs, measured here and now.

On a network that answers at once and over loopback, beside other libraries where they are installed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = "aragora_transport._benchmarks"


def add_parser(subparsers: Any, summary: str) -> None:
    """Declare the command's options."""
    parser = subparsers.add_parser(
        "bench",
        help=summary,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit status: 0, or with --check 1 when the whole stack exceeds its budget, 2 for wrong "
        "arguments, 130 after Ctrl-C",
    )
    part("_command").add_options(parser)


def part(name: str) -> ModuleType:
    """A module of the benchmarks. A wheel has them inside the package, a checkout beside it."""
    if importlib.util.find_spec(_PACKAGE) is None:
        # By path: a `benchmarks` that the working directory or another project has is not ours.
        directory = Path(__file__).parents[2] / "benchmarks"
        spec = importlib.util.spec_from_file_location(
            _PACKAGE, directory / "__init__.py", submodule_search_locations=[str(directory)]
        )
        assert spec is not None  # noqa: S101  # for type checkers: a file that ends in .py has one
        sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{_PACKAGE}.{name}")
