"""The command line. Each command is one module with `add_parser(subparsers)` and `run(args) -> int`.

Only the module of the command that was asked for is imported, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

INTERRUPTED = 130  # what shells expect of a process that Ctrl-C ended

_COMMANDS = {
    "demo": "watch a flaky API being survived: bare httpx and this library side by side",
    "explain": "see what a policy does: its values, waits, worst case, and what it sends again",
    "simulate": "see how policies fare in an outage, in virtual time, before you choose one",
    "bench": "measure what each layer costs",
    "rules": "write alert and recording rules for Prometheus",
    "dashboard": "write a dashboard for Grafana",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; wrong arguments exit with 2, as argparse does."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = _parser(words).parse_args(words)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aragora-transport",
        description="Resilience for HTTP as httpx transports.",
        epilog="aragora-transport COMMAND --help tells more about a command.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, summary in _COMMANDS.items():
        if name == asked:
            importlib.import_module(f"{__name__}.{name}").add_parser(subparsers, summary)
        else:
            subparsers.add_parser(name, help=summary)
    return parser
