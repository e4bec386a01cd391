"""A policy as a command line names it: `guide`, `recommended` or a TOML file, and changes to it.

recommended,breaker.cooldown=0.5,retry.budget=off
our-policy.toml,retry.max_attempts=2
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any, cast

from aragora_transport.policy import (
    BreakerPolicy,
    Policy,
    RateLimitPolicy,
    RetryBudget,
    RetryPolicy,
    TimeoutPolicy,
)

READY = {"guide": Policy, "recommended": Policy.recommended}
_KINDS: dict[str, Any] = {
    "timeout": TimeoutPolicy,
    "retry": RetryPolicy,
    "breaker": BreakerPolicy,
    "rate_limit": RateLimitPolicy,
    "budget": RetryBudget,
}
_CHANGE = re.compile(r",(?=[a-z_.]+=)")
_OFF = ("off", "false")


def parse_policy(text: str) -> Policy:
    """The policy that the text names. Raises `ValueError` that says what is wrong with it, and where."""
    name, *changes = _CHANGE.split(text)
    try:
        policy = READY[name]() if name in READY else _from_file(name)
        for change in changes:
            path, _, value = change.partition("=")
            policy = _changed(policy, path.split("."), _value(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text}: {error}") from error
    return policy


def _from_file(name: str) -> Policy:
    try:
        tables = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"it is neither {' nor '.join(READY)}, nor a file that can be read ({error.strerror})"
        ) from error
    base = tables.pop("base", "guide")
    if base not in READY:
        raise ValueError(f"base = {base!r}: it must be one of {', '.join(READY)}")
    policy = READY[base]()
    for path, value in _leaves(tables, ()):
        policy = _changed(policy, list(path), value)
    return policy


def _leaves(table: dict[str, Any], path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += _leaves(cast("dict[str, Any]", value), (*path, name))
        else:
            found.append(((*path, name), value))
    return found


def _value(text: str) -> Any:
    """A TOML value; a bare word is a string, as in `retry.jitter=full`."""
    if text in _OFF:
        return False
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _changed(value: Any, path: list[str], new: Any) -> Any:
    """The value with the field at `path` set to `new`; `False` switches off whatever is no switch itself."""
    name, *rest = path
    fields = [field.name for field in dataclasses.fields(value)]
    if name not in fields:
        raise ValueError(f"{type(value).__name__} has no {name!r}; it has {', '.join(fields)}")
    old = getattr(value, name)
    if rest:
        if name not in _KINDS:
            raise ValueError(f"{name} is one value; it has no {'.'.join(rest)!r}")
        new = _changed(_KINDS[name]() if old is None else old, rest, new)
    elif new is False and not isinstance(old, bool):
        new = None
    return dataclasses.replace(value, **{name: new})
