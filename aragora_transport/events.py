"""What happened inside a call, as frozen values that observers are given.

Layers emit them through the call object and know nothing of who listens. `on_event=` takes any
callable of one event; it runs in the call's task, so it must be quick and must not block.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AttemptFinished",
    "BodyFailed",
    "CallFinished",
    "CircuitChanged",
    "Event",
    "Observer",
    "Observers",
    "RateLimitWaited",
    "RetryRefused",
    "RetryScheduled",
]

CircuitState = Literal["closed", "open", "half-open"]
RefusalReason = Literal[
    "attempts",
    "budget",
    "circuit_open",
    "deadline",
    "retry_after_too_long",
    "rate_limited",
    "no_token",
    "unsafe_method",
    "body_not_replayable",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What every event tells: whose call it was. `attempt` counts from 1; times are seconds."""

    platform: str
    operation: str
    correlation_id: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFinished(Event):
    """One send came back: with `status`, or with `error` (the class's name) after `seconds`."""

    status: int | None
    error: str | None
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryScheduled(Event):
    """The attempt failed and is sent again after `wait` seconds (`told`: the platform set that wait)."""

    status: int | None
    error: str | None
    wait: float
    told: bool
    max_attempts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryRefused(Event):
    """The attempt failed and is not sent again, for `reason`; `wait` is what the platform told."""

    status: int | None
    error: str | None
    reason: RefusalReason
    wait: float | None
    max_attempts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CircuitChanged(Event):
    """The circuit of `key` went from `old` to `new`; `worst` is the worst state of all keys then."""

    key: str
    old: CircuitState
    new: CircuitState
    worst: CircuitState
    failures: int
    next_probe_in: float | None
    cause: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimitWaited(Event):
    """The gate of `key` held the attempt for `seconds`, or refused it (`refused`) for so long a wait."""

    key: str
    seconds: float
    refused: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyFailed(Event):
    """The body of an answer died or stalled after its headers, with `status`.

    `error` is the class's name, `text` what the error says of itself.
    """

    status: int | None
    error: str
    text: str
    max_attempts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CallFinished(Event):
    """The call is over, its body included, after `seconds`: the last event of each call.

    `status` of the answer, where one came; `error` (the class's name) that the call or its body ended in.
    `attempts`: sends in all. `complete`: whether the body was read to its end.
    """

    status: int | None
    error: str | None
    seconds: float
    attempts: int
    complete: bool


Observer = Callable[[Event], object]


class Observers:
    """Several observers as one. One that raises is counted in `failures` and never breaks a call."""

    __slots__ = ("_observers", "failures")

    def __init__(self, observers: Observer | Iterable[Observer]) -> None:
        try:
            self._observers = (observers,) if callable(observers) else tuple(observers)
        except TypeError:
            raise TypeError(f"on_event={observers!r}: it must be a callable, or several in a list") from None
        for observer in self._observers:
            if not callable(observer):
                raise TypeError(f"on_event must be a callable or several; {observer!r} is not callable")
            if inspect.iscoroutinefunction(observer):
                raise TypeError(
                    f"on_event={observer!r}: an observer is called, never awaited; give a plain function, "
                    "which may start a task"
                )
        self.failures = 0

    def __call__(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001  # whatever an observer raises, the call goes on
                self.failures += 1

    def __iter__(self) -> Iterator[Observer]:
        return iter(self._observers)

    def __bool__(self) -> bool:
        return bool(self._observers)
