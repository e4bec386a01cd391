"""`aragora-transport demo`: a flaky API, and two clients that meet the same calls.

A process of its own serves the API on loopback through phases; bare httpx and httpx with our stack
call it side by side. Ctrl-C ends the run early and shows what there is.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = (2.0, 120.0)
RATE = (1.0, 200.0)
MOST_CALLS = 6000
MOST_SEED = 2**32


def add_parser(subparsers: Any, summary: str) -> None:
    """Declare the command's options."""
    parser = subparsers.add_parser(
        "demo",
        help=summary,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit status: 0 when aragora_transport served more calls than bare httpx, 1 when not, "
        "2 for wrong arguments, 130 after Ctrl-C",
    )
    parser.add_argument(
        "--seconds", type=number("s", SECONDS), default=22.0, metavar="S", help="how long calls come (22)"
    )
    parser.add_argument(
        "--rate", type=number("calls a second", RATE), default=40.0, metavar="N", help="calls a second (40)"
    )
    parser.add_argument(
        "--policy",
        choices=("guide", "recommended"),
        default="recommended",
        help="Policy() or Policy.recommended() (the default)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")
    parser.add_argument(
        "--seed", type=seed, default=1, metavar="N", help="the same seed makes the same luck (1)"
    )
    parser.set_defaults(run=run, refuse=parser.error)


def number(unit: str, limits: tuple[float, float]) -> Callable[[str], float]:
    """What turns an argument into a number within limits."""
    low, high = limits

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number from {low:g} to {high:g} ({unit}); choose one within that range"
            )
        return value

    return convert


def seed(text: str) -> int:
    """What turns an argument into a seed."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST_SEED)) and int(text) < MOST_SEED):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from 0 to {MOST_SEED - 1}; choose one of these"
        )
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the demo and return its exit status."""
    if args.seconds * args.rate > MOST_CALLS:
        args.refuse(
            f"--seconds {args.seconds:g} at --rate {args.rate:g} makes about {args.seconds * args.rate:.0f} "
            f"calls, and a demo makes at most {MOST_CALLS}; lower one of them"
        )
    # Imported here: httpx and the stack cost more than all of `--help`.
    from aragora_transport.cli import _demo_run, _demo_state, _demo_view  # noqa: PLC0415  # not for --help

    settings = _demo_state.Settings(seconds=args.seconds, rate=args.rate, seed=args.seed, policy=args.policy)
    state = _demo_state.Run(settings=settings)
    return _demo_run.play(state, _demo_view.choose_view(sys.stdout, as_json=args.json))
