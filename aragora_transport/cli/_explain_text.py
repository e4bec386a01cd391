"""A policy explained: in plain values for machines, in lines for people."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, TextIO, cast

from aragora_transport import _backoff
from aragora_transport.policy import Policy
from aragora_transport.profiles import profile_for
from aragora_transport.simulation.tried import IDEMPOTENT, UNSAFE, Tried, described, tried

if TYPE_CHECKING:
    from aragora_transport.policy import RetryPolicy

_WIDTH = 80
_WHY = {
    "attempts": "the policy makes one attempt",
    "budget": "the budget is empty",
    "circuit_open": "the circuit has opened",
    "deadline": "the call would take longer than it may",
    "retry_after_too_long": "the wait is above max_retry_after",
    "rate_limited": "the wait is above max_retry_after",
    "unsafe_method": "it may have been carried out already",
    "body_not_replayable": "its body is gone",
}
_PROFILE = {
    "classify": "what its answers mean",
    "rate_key": "its rate-limit buckets",
    "long_poll": "its long polls",
    "secrets": "where its URLs hold secrets",
}
_FINAL = "another attempt would get the same"


def explain(platform: str, name: str, policy: Policy) -> dict[str, Any]:
    """All of it as plain values."""
    stack, found, profile = described(platform, policy), tried(platform, policy), profile_for(platform)
    return {
        "platform": platform,
        "profile": profile.name,
        "profile_knows": [what for field, what in _PROFILE.items() if getattr(profile, field) is not None],
        "policy": name,
        "layers": stack["layers"],
        "worst_case_sends": stack["worst_case_sends"],
        "worst_case_seconds": stack["worst_case_seconds"],
        "waits": waits(policy.retry),
        "told_waits": None if policy.retry is None else {"kept_up_to": policy.retry.max_retry_after},
        "sent_again": [
            {"outcome": outcome, "idempotent": _verdict(by[IDEMPOTENT]), "unsafe": _verdict(by[UNSAFE])}
            for outcome, by in found.items()
        ],
    }


def waits(retry: RetryPolicy | None) -> list[dict[str, float | int | None]]:
    """The seconds before each further attempt, from `least` to `most`; `None` for a strategy of yours."""
    if retry is None:
        return []
    return [
        {"attempt": failed + 1, "least": None, "most": None}
        if retry.wait is not None
        else {"attempt": failed + 1, "least": _least(retry, failed), "most": _backoff.longest(retry, failed)}
        for failed in range(1, retry.max_attempts)
    ]


def _least(retry: RetryPolicy, failed: int) -> float:
    if retry.jitter == "full":
        return 0.0
    return (
        min(retry.base_delay, retry.max_delay)
        if retry.jitter == "decorrelated"
        else _backoff.ceiling(retry, failed)
    )


def _verdict(found: Tried) -> dict[str, Any]:
    return {"again": found.again, "reason": found.reason}


def show(explained: dict[str, Any], out: TextIO, *, as_json: bool) -> None:
    """Print it."""
    text = json.dumps(explained, indent=2) if as_json else "\n".join(_lines(explained))
    print(text, file=out)


def _lines(explained: dict[str, Any]) -> list[str]:
    profile = explained["profile"]
    known = (
        "plain HTTP" if profile == "http" else f"its profile knows {', '.join(explained['profile_knows'])}"
    )
    return [
        *textwrap.wrap(f"{explained['platform']}: {known}; policy {explained['policy']}", _WIDTH),
        "",
        "Layers, outermost first (* is not the guide's)",
        *_layer_lines(explained),
        "",
        "One call",
        *_worst_lines(explained),
        "",
        "Sent again".ljust(44) + "GET, PUT, ..   POST, PATCH",
        *_again_lines(explained["sent_again"]),
    ]


def _layer_lines(explained: dict[str, Any]) -> list[str]:
    guide = {layer["layer"]: layer for layer in described("guide", Policy())["layers"]}
    lines: list[str] = []
    for layer in explained["layers"]:
        name = layer["layer"]
        same = guide.get(name, {})
        shown = [
            f"{field}{'' if same.get(field, value) == value else '*'} {_short(value)}"
            for field, value in layer.items()
            if field != "layer" and _of_layer(name, field)
        ]
        lines += textwrap.wrap(
            ", ".join(shown),
            _WIDTH,
            initial_indent=f"  {name:<20}",
            subsequent_indent=" " * 22,
            break_on_hyphens=False,
        ) or [f"  {name}"]
    return lines


def _of_layer(layer: str, field: str) -> bool:
    """The two layers of time limits share one policy."""
    if layer == "DeadlineTransport":
        return field == "total"
    return not (layer == "TimeoutTransport" and field == "total")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return "(" + ", ".join(f"{name} {_short(inner)}" for name, inner in fields.items()) + ")"
    if isinstance(value, list):
        return " ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]  # of whatever
    if value is None:
        return "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _worst_lines(explained: dict[str, Any]) -> list[str]:
    seconds = explained["worst_case_seconds"]
    longest = "nothing bounds its time" if seconds is None else f"at most {seconds:g} s to its headers"
    lines = [f"  at most {_times(explained['worst_case_sends'])}, {longest}"]
    for wait in explained["waits"]:
        given = "by your own strategy"
        if wait["most"] is not None:
            given = f"{wait['least']:g} to {wait['most']:g} s"
        lines.append(f"  wait before attempt {wait['attempt']}: {given}")
    if explained["told_waits"] is not None:
        kept = explained["told_waits"]["kept_up_to"]
        lines.append(f"  a told wait of at most {kept:g} s is kept; a longer one ends the call at once")
    return lines


def _times(count: int) -> str:
    return "1 send" if count == 1 else f"{count} sends"


def _again_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The outcomes that fare alike in one row, with the reason why not."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        verdicts = tuple((row[kind]["again"], row[kind]["reason"]) for kind in ("idempotent", "unsafe"))
        alike.setdefault(verdicts, []).append(row["outcome"])
    lines: list[str] = []
    for (idempotent, unsafe), outcomes in alike.items():
        first, *more = textwrap.wrap(", ".join(outcomes), 40, break_on_hyphens=False)
        cells = ("yes" if idempotent[0] else "no", "yes" if unsafe[0] else "no")
        lines.append(f"  {first:<42}{cells[0]:<15}{cells[1]}".rstrip())
        lines += [f"  {line}" for line in more]
        why = dict.fromkeys(_why(again, reason) for again, reason in (idempotent, unsafe))
        lines += [f"      {reason}" for reason in why]
    return lines


def _why(again: bool, reason: str | None) -> str:
    if again:
        return "yes: the failure may pass"
    return f"no: {_FINAL if reason is None else _WHY[reason]}"
