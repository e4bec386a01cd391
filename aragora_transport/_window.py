"""How an attempt fared lately: counted over a window of time, or over the last few where those are more."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

from aragora_transport._notes import ENOUGH, Notes

if TYPE_CHECKING:
    from aragora_transport._clock import Clock
    from aragora_transport.policy import BreakerPolicy

_SLICES = 20  # the window slides in twentieths of its length


class Window:
    """The attempts of the last `window` seconds, or the last `failure_threshold` where those are more.

    A success is only noted, in `fresh`, by whoever knows of it; it is counted when a failure asks, or when
    there are `ENOUGH` of them.
    """

    def __init__(self, policy: BreakerPolicy, clock: Clock) -> None:
        self._policy = policy
        self._least = policy.min_attempts or policy.failure_threshold
        self._now = clock.monotonic
        self._slices_a_second = _SLICES / policy.window
        self._lock = threading.Lock()
        self.fresh = Notes()  # when attempts succeeded
        self.clear()

    def clear(self) -> None:
        """Forget every outcome."""
        with self._lock:
            self._recent: deque[bool] = deque(maxlen=self._least)  # True is a failure
            self._slices: deque[list[int]] = deque()  # [slice number, attempts, failures]
            self._newest: list[int] = [-1, 0, 0]
            self.fresh.clear()
            self._attempts = 0
            self._failures = 0

    def succeeded(self) -> None:
        """One attempt succeeded."""
        self.fresh.append(self._now())
        if len(self.fresh) > ENOUGH:
            with self._lock:
                self._take_in()

    def _take_in(self) -> None:
        times = self.fresh.take()
        if times:
            self._recent.extend([False] * min(len(times), self._least))
        begin = 0
        while begin < len(times):
            number = self._number(times[begin])
            end = bisect_left(times, number + 1, begin, key=self._number)
            self._slide(number)
            self._newest[1] += end - begin
            self._attempts += end - begin
            begin = end
        self._slide(self._number(self._now()))

    def _number(self, time: float) -> int:
        """Of the slice that a time lies in."""
        return int(time * self._slices_a_second)

    def failed(self) -> None:
        """One attempt failed."""
        with self._lock:
            self._take_in()
            self._newest[1] += 1
            self._newest[2] += 1
            self._attempts += 1
            self._failures += 1
            self._recent.append(True)

    def _slide(self, number: int) -> None:
        """Forget the slices that lie outside of the window, and begin that of `number`."""
        slices = self._slices
        while slices and slices[0][0] <= number - _SLICES:
            _, attempts, failures = slices.popleft()
            self._attempts -= attempts
            self._failures -= failures
        if not slices or slices[-1][0] != number:
            slices.append([number, 0, 0])
        self._newest = slices[-1]

    def _seen(self) -> tuple[int, int]:
        """The attempts that count at present, and how many of them failed."""
        with self._lock:
            self._take_in()
            if self._attempts < len(self._recent):
                return len(self._recent), sum(self._recent)
            return self._attempts, self._failures

    @property
    def failures(self) -> int:
        return self._seen()[1]

    def count(self) -> int:
        """The failures; one less than would open the circuit, while the policy says that they should not."""
        attempts, failures = self._seen()
        threshold = self._policy.failure_threshold
        if failures < threshold:
            return failures
        enough = attempts >= self._least and failures >= self._policy.failure_rate * attempts
        return failures if enough else threshold - 1
