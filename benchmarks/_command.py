"""The command: its options, the suites one after the other, and what is written at the end."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ._suites import SUITES, module

ROUNDS = (1, 10_000)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    told = "\n".join(f"  {name:10}{summary}" for name, summary in SUITES.items())
    parser.epilog = f"suites:\n{told}\n\n{parser.epilog}"
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="which suites to run (all)")
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement: few rounds, small")
    parser.add_argument("--rounds", type=_rounds, metavar="N", help="how often everything is timed (40)")
    parser.add_argument("--check", action="store_true", help="fail when counts exceed their budget")
    parser.add_argument("--json", type=_file, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--svg", type=_file, metavar="FILE", help="draw the overhead of each layer")
    parser.add_argument(
        "--write-docs",
        type=Path,
        metavar="DIR",
        help="write docs/benchmarks.md, its picture and the README's table below DIR",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FILE",
        help="with --write-docs: the --json of another run, such as another Python's, to be told as well",
    )
    parser.set_defaults(run=run, refuse=parser.error)


def _rounds(text: str) -> int:
    low, high = ROUNDS
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from {low} to {high}; choose one of these"
        )
    return int(text)


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be written: name a file in a directory that is there and yours"
        )
    return path


def _refuse(args: argparse.Namespace) -> None:
    """What only shows when all arguments are known, before anything is measured."""
    for name in args.suites:
        if name not in SUITES:
            args.refuse(f"there is no suite {name!r}; choose from {', '.join(SUITES)}")
    suites = args.suites or list(SUITES)
    for option, needed in (("check", ["counts"]), ("svg", ["overhead"]), ("write_docs", list(SUITES))):
        missing = [name for name in needed if name not in suites]
        if getattr(args, option) and missing:
            flag = f"--{option.replace('_', '-')}"
            args.refuse(f"{flag} needs the suites {', '.join(missing)}, too; name them, or no suite for all")
    if args.beside and not args.write_docs:
        args.refuse("--beside needs --write-docs, too: it is told on the page alone")


def run(args: argparse.Namespace) -> int:
    """Run the suites; the exit status."""
    _refuse(args)
    # Imported here: httpx, the stack and the peers cost more than all of `--help`.
    from . import _docs, _harness, _svg, counts  # noqa: PLC0415  # as above
    from ._progress import progress  # noqa: PLC0415  # as above
    from ._report import Report  # noqa: PLC0415  # as above

    if args.write_docs and (problem := _docs.check(args.write_docs)):
        args.refuse(f"--write-docs: {problem}; name the top of a checkout")
    beside = None
    try:
        beside = None if args.beside is None else _docs.read_beside(args.beside)
    except ValueError as error:
        args.refuse(f"--beside: {error}")
    effort = _harness.QUICK if args.quick else _harness.FULL
    effort = replace(effort, rounds=args.rounds or effort.rounds)
    gc.collect()
    gc.freeze()  # what is loaded stays: suites collect often, and it would take most of their time
    suites: dict[str, Any] = {}
    for name in SUITES:
        if not args.suites or name in args.suites:
            with progress(sys.stderr, name) as tell:
                suites[name] = module(name).run(effort, tell)
    report = Report(suites=suites, rounds=effort.rounds)
    for line in report.lines():
        print(line)
    if args.json:
        args.json.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    if args.svg:
        args.svg.write_text(_svg.picture(report.table("overhead", "direct")), encoding="utf-8")
    if args.write_docs:
        _docs.write(report, args.write_docs, beside)
    problems = counts.over_budget(report.table("counts", "added")) if args.check else []
    for problem in problems:
        print(f"aragora-transport bench: {problem}", file=sys.stderr)
    return 1 if problems else 0
