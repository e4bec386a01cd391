"""`aragora-transport dashboard`: a Grafana dashboard for the metrics of this package.

  aragora-transport dashboard -o dashboard.json

In Grafana: Dashboards, New, Import. It asks for the Prometheus data source.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from aragora_transport.cli import _dashboard, _output


def add_parser(subparsers: Any, summary: str) -> None:
    """Declare the command's options."""
    parser = subparsers.add_parser(
        "dashboard",
        help=summary,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_output.EXIT_STATUS,
    )
    _output.add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the dashboard and return the exit status."""
    text = json.dumps(_dashboard.dashboard(), indent=2) + "\n"
    return _output.write(text, args.output, "dashboard")
