"""`aragora-transport simulate`: policies meet an outage, in virtual time, before your users do.

The real layers run under simulated traffic against a simulated server: minutes pass in seconds, and the
same seed is the same run. Each policy meets the same calls.

  aragora-transport simulate
  aragora-transport simulate --severity 0.3 --seeds 10
  aragora-transport simulate --server queue --severity 0.9 --outage 10+40 --seconds 110 --svg queue.svg
  aragora-transport simulate --policy recommended --policy recommended,breaker=off
  aragora-transport simulate --targets
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from aragora_transport.cli.demo import MOST_SEED, number, seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aragora_transport.simulation import Contender, Scenario

SHOWN = ("none", "guide", "recommended")
PEERS = ("tenacity", "httpx-retries", "clientwright")
MOST_CALLS = 2_000_000
AFTERMATH = 20.0  # seconds that follow the last outage where --seconds does not say


def add_parser(subparsers: Any, summary: str) -> None:
    """Declare the command's options."""
    parser = subparsers.add_parser(
        "simulate",
        help=summary,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit status: 0; 1 when --targets finds one missed or a file cannot be written, 2 for wrong "
        "arguments, 130 after Ctrl-C",
    )
    who = parser.add_argument_group("who calls")
    who.add_argument(
        "--policy",
        action="append",
        metavar="P",
        help="guide, recommended or a TOML file, with changes (as in recommended,retry.budget=off), "
        f"none, or {', '.join(PEERS)}; several times (default: {', '.join(SHOWN)})",
    )
    who.add_argument("--peers", action="store_true", help="add the other libraries that are installed")
    who.add_argument(
        "--rate",
        type=number("calls a second", (0.01, 10_000)),
        default=50.0,
        metavar="N",
        help="calls a second (50)",
    )
    who.add_argument("--arrivals", choices=("steady", "burst", "diurnal"), default="steady", help="(steady)")
    who.add_argument(
        "--processes",
        type=_whole(1, 1000),
        default=1,
        metavar="N",
        help="that share the calls, each for itself (1)",
    )
    who.add_argument(
        "--client-timeout",
        type=number("s", (0.0, 86_400.0)),
        default=5.0,
        metavar="S",
        help="httpx's own timeout; 0 for none (5, as httpx has it)",
    )
    what = parser.add_argument_group("what answers")
    what.add_argument(
        "--server",
        choices=("failing", "queue", "limited", "slow", "bodies"),
        default="failing",
        help="(failing)",
    )
    what.add_argument(
        "--severity",
        type=number("share", (0.0, 1.0)),
        default=1.0,
        metavar="P",
        help="share of answers that fail, of capacity that is lost, of slow answers or broken bodies (1)",
    )
    what.add_argument(
        "--outage",
        action="append",
        type=_outage,
        metavar="AT+S",
        help="from AT on for S seconds; several times (10+30)",
    )
    what.add_argument(
        "--seconds",
        type=number("s", (0.1, 864_000.0)),
        metavar="S",
        help="how long calls come (20 after the last outage)",
    )
    what.add_argument(
        "--latency",
        type=number("s", (0.000_1, 3600.0)),
        default=0.05,
        metavar="S",
        help="of an ordinary answer, in the mean (0.05)",
    )
    what.add_argument(
        "--capacity",
        type=number("requests a second", (0.01, 1e6)),
        default=100.0,
        metavar="N",
        help="of a queue or limited server (100)",
    )
    what.add_argument(
        "--slow",
        type=number("s", (0.001, 86_400.0)),
        default=20.0,
        metavar="S",
        help="that a slow answer takes (20)",
    )
    what.add_argument(
        "--body",
        type=number("s", (0.001, 86_400.0)),
        default=2.0,
        metavar="S",
        help="that a body takes at most (2)",
    )
    how = parser.add_argument_group("how it is shown")
    how.add_argument("--seeds", type=_whole(1, 1000), default=5, metavar="N", help="so many runs (5)")
    how.add_argument("--seed", type=seed, default=1, metavar="N", help="of the first run (1)")
    how.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")
    how.add_argument("--svg", metavar="FILE", help="draw the first run of each as a picture")
    how.add_argument(
        "--targets",
        action="store_true",
        help="hold the policies to what this project promises of them; minutes",
    )
    parser.set_defaults(run=run, refuse=parser.error)


def _whole(low: int, high: int) -> Any:
    def convert(text: str) -> int:
        if not (
            text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high
        ):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return convert


def _outage(text: str) -> tuple[float, float]:
    start, plus, seconds = text.partition("+")
    try:
        if plus:
            return float(start), float(seconds)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no outage; write 10+30 for one from 10 s on, for 30 s")


def run(args: argparse.Namespace) -> int:
    """Run the simulations and return the exit status."""
    # Imported here: httpx and the stack cost more than all of `--help`.
    from aragora_transport.cli import _simulate_run, _simulate_targets  # noqa: PLC0415  # not for --help

    if args.seed + args.seeds > MOST_SEED:
        args.refuse(
            f"--seed {args.seed} with --seeds {args.seeds} goes beyond {MOST_SEED - 1}; lower one of them"
        )
    seeds = range(args.seed, args.seed + args.seeds)
    if args.targets:
        return _simulate_targets.show(seeds, sys.stdout, as_json=args.json)
    scenario, contenders = _scenario(args), _contenders(args)
    return _simulate_run.show(scenario, contenders, seeds, sys.stdout, as_json=args.json, svg=args.svg)


def _scenario(args: argparse.Namespace) -> Scenario:
    from aragora_transport.simulation import Outage, Scenario  # noqa: PLC0415  # as above

    try:
        outages = tuple(Outage(start=at, seconds=seconds) for at, seconds in args.outage or [(10.0, 30.0)])
        scenario = Scenario(
            server=args.server,
            severity=args.severity,
            capacity=args.capacity,
            latency=args.latency,
            slow=args.slow,
            body=args.body,
            rate=args.rate,
            arrivals=args.arrivals,
            seconds=args.seconds or max(outage.end for outage in outages) + AFTERMATH,
            outages=outages,
            processes=args.processes,
            client_timeout=args.client_timeout or None,
        )
    except ValueError as error:
        args.refuse(str(error))
        raise AssertionError from error  # pragma: no cover  # `refuse` has left
    if scenario.seconds * scenario.rate > MOST_CALLS:
        args.refuse(
            f"{scenario.seconds:g} s at --rate {scenario.rate:g} make about "
            f"{scenario.seconds * scenario.rate:.0f} calls, and a run makes at most {MOST_CALLS}; "
            "lower one of them"
        )
    return scenario


def _contenders(args: argparse.Namespace) -> Sequence[Contender]:
    from aragora_transport.cli._policies import parse_policy  # noqa: PLC0415  # as above
    from aragora_transport.simulation import bare, ours, peers  # noqa: PLC0415  # as above

    names: list[str] = list(dict.fromkeys(args.policy or SHOWN))
    found: list[Contender] = []
    for name in names:
        try:
            if name == "none":
                found.append(bare())
            elif name in PEERS:
                found.append(peers.peer(name))
            else:
                found.append(ours(name, parse_policy(name)))
        except (ValueError, LookupError) as error:
            args.refuse(f"argument --policy: {error}")
    if args.peers:
        found += [one for one in peers.installed() if one.name not in names]
    return found
