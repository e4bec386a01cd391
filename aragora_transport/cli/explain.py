"""`aragora-transport explain`: what a policy does, before it does it.

The values that hold, the waits between attempts, the worst case of one call, and what is sent again and
what is not; the last is found by trying it on the real layers.

  aragora-transport explain
  aragora-transport explain slack --policy recommended
  aragora-transport explain --policy our-policy.toml,retry.max_attempts=5
"""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_parser(subparsers: Any, summary: str) -> None:
    """Declare the command's options."""
    parser = subparsers.add_parser(
        "explain",
        help=summary,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit status: 0, 2 for wrong arguments",
    )
    parser.add_argument(
        "platform",
        nargs="?",
        default="my-api",
        metavar="PLATFORM",
        help="a known one brings its profile (my-api)",
    )
    parser.add_argument(
        "--policy",
        default="guide",
        metavar="P",
        help="guide, recommended or a TOML file, with changes (as in recommended,retry.budget=off) (guide)",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON and nothing else")
    parser.set_defaults(run=run, refuse=parser.error)


def run(args: argparse.Namespace) -> int:
    """Explain the policy and return the exit status."""
    # Imported here: httpx and the stack cost more than all of `--help`.
    from aragora_transport.cli import _explain_text  # noqa: PLC0415  # not for --help
    from aragora_transport.cli._policies import parse_policy  # noqa: PLC0415  # not for --help

    try:
        policy = parse_policy(args.policy)
    except ValueError as error:
        args.refuse(f"argument --policy: {error}")
        raise AssertionError from error  # pragma: no cover  # `refuse` has left
    if not args.platform.strip():
        args.refuse("argument PLATFORM: it must be a name, such as my-api or slack")
    explained = _explain_text.explain(args.platform, args.policy, policy)
    _explain_text.show(explained, sys.stdout, as_json=args.json)
    return 0
