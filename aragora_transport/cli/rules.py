"""`aragora-transport rules`: Prometheus recording and alert rules for the metrics of this package.

  aragora-transport rules -o aragora_transport.rules.yml
  promtool check rules aragora_transport.rules.yml

Name the file under `rule_files:` in prometheus.yml. docs/runbook.md says of each alert what it means and
what to do.
"""

from __future__ import annotations

import argparse
from typing import Any

from aragora_transport.cli import _output, _rules


def add_parser(subparsers: Any, summary: str) -> None:
    """Declare the command's options."""
    parser = subparsers.add_parser(
        "rules",
        help=summary,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_output.EXIT_STATUS,
    )
    _output.add_output(parser)
    parser.add_argument(
        "--runbook",
        default="docs/runbook.md",
        metavar="URL",
        help="where your copy of the runbook is; each alert links to its part of it (docs/runbook.md)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the rules and return the exit status."""
    return _output.write(_rules.text(args.runbook), args.output, "rules")
