"""Layers that only look on. They send nothing, so a request need not pass through them.

Where a call begins they are known already (see `CallScope`), and are told there of its answer, its error
and its end: that costs a request neither a coroutine nor the memory of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._clock import SYSTEM
from aragora_transport.layers._layer import Layer
from aragora_transport.profile import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from aragora_transport._call import Call, Hook
    from aragora_transport._clock import Clock
    from aragora_transport._scope import Entry
    from aragora_transport.events import Observers
    from aragora_transport.profile import Judgement, Profile


class Watcher(Layer):
    """A layer that observes calls: each of its methods is told of something, and none may raise."""

    observer: Observers  # is given the events of the layers below
    begun: Callable[[], object] | None = None  # is called when a call begins: of every call, so a quick one
    hook: Hook | None = None  # is told how the body of an answer ended: of every one, too

    def __init__(
        self,
        below: Any,
        *,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        self.profile = profile

    def entry(self) -> Entry:
        below = self.entry_below()
        return below._replace(watchers=(self, *below.watchers))

    def answered(self, call: Call, status: int, judged: Judgement | None) -> None:
        """Headers have come, and there is something about them: an error, retries, or a profile's word."""

    def failed(self, call: Call, error: BaseException) -> None:
        """There is no answer."""
