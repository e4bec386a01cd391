"""How many records of one kind are written: in an outage each call has the same to say."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

    from aragora_transport._clock import Clock

_MOST_KINDS = 256  # that are told apart; more share one limit
_ALL_OTHERS = object()


class _Kind:
    __slots__ = ("held_back", "left", "since")

    def __init__(self, left: float, since: float) -> None:
        self.left = left  # records that may be written at once
        self.since = since  # when that was so
        self.held_back = 0  # since the last one that was written


class LogLimit:
    """Lets the first `burst` records of a kind through, then one each `per` seconds."""

    def __init__(self, clock: Clock, *, burst: int, per: float) -> None:
        self._clock = clock
        self._burst = burst
        self._per = per
        self._lock = threading.Lock()
        self._kinds: dict[Any, _Kind] = {}

    def admit(self, kind: Hashable) -> int | None:
        """How many of this kind were held back before this one, or `None` where it is one more of them."""
        now = self._clock.monotonic()
        with self._lock:
            found = self._kind(kind, now)
            found.left = min(self._burst, found.left + (now - found.since) / self._per)
            found.since = now
            if found.left < 1.0:
                found.held_back += 1
                return None
            found.left -= 1.0
            held_back, found.held_back = found.held_back, 0
            return held_back

    def take_held_back(self) -> int:
        """How many were held back that no record has told of yet."""
        with self._lock:
            held_back = sum(kind.held_back for kind in self._kinds.values())
            self._kinds.clear()
            return held_back

    def _kind(self, kind: Hashable, now: float) -> _Kind:
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= _MOST_KINDS:
                self._forget(now)
            if len(self._kinds) >= _MOST_KINDS:
                kind = _ALL_OTHERS
            found = self._kinds.setdefault(kind, _Kind(self._burst, now))
        return found

    def _forget(self, now: float) -> None:
        """What has been silent for so long that it is as good as new, and has nothing left to tell."""
        quiet = now - self._burst * self._per
        for kind, found in list(self._kinds.items()):
            if found.since <= quiet and not found.held_back:
                del self._kinds[kind]
