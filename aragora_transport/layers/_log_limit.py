"""How many records of one kind are written: in an outage each call has the same to say."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

from aragora_transport._notes import Count

if TYPE_CHECKING:
    from collections.abc import Hashable

    from aragora_transport._clock import Clock

_MOST_KINDS = 256  # that are told apart; more share one limit
_ALL_OTHERS = object()


class _Kind:
    __slots__ = ("_told", "held_back", "paid_until")

    def __init__(self) -> None:
        self.paid_until = -math.inf  # when all its records so far have had their `per` seconds
        self.held_back = Count()
        self._told = 0  # of those that were held back

    def take_held_back(self) -> int:
        """How many were held back that no record has told of yet."""
        told, self._told = self._told, self.held_back.so_far()
        return self._told - told

    @property
    def told_all(self) -> bool:
        return self.held_back.so_far() == self._told


class LogLimit:
    """Lets the first `burst` records of a kind through, then one each `per` seconds."""

    def __init__(self, clock: Clock, *, burst: int, per: float) -> None:
        self._now = clock.monotonic
        self._per = per
        # Seconds that a kind may be ahead of its time. The sums of times are rounded: hence a bit more.
        self._ahead = (burst - 1 + 1e-6) * per
        self._lock = threading.Lock()
        self._kinds: dict[Any, _Kind] = {}

    def admit(self, kind: Hashable) -> int | None:
        """How many of this kind were held back before this one, or `None` where it is one more of them."""
        now = self._now()
        found = self._kinds.get(kind)
        if found is None or found.paid_until - now <= self._ahead:
            with self._lock:
                found = self._kinds.get(kind) or self._new(kind, now)
                if found.paid_until - now <= self._ahead:
                    found.paid_until = max(found.paid_until, now) + self._per
                    return found.take_held_back()
        found.held_back.one()
        return None

    def take_held_back(self) -> int:
        """How many were held back that no record has told of yet."""
        with self._lock:
            return sum(kind.take_held_back() for kind in self._kinds.values())

    def _new(self, kind: Hashable, now: float) -> _Kind:
        if len(self._kinds) >= _MOST_KINDS:
            self._forget(now)
        if len(self._kinds) >= _MOST_KINDS:
            kind = _ALL_OTHERS
        return self._kinds.setdefault(kind, _Kind())

    def _forget(self, now: float) -> None:
        """What has been silent for so long that it is as good as new, and has nothing left to tell."""
        for kind, found in list(self._kinds.items()):
            if found.paid_until <= now and found.told_all:
                del self._kinds[kind]
