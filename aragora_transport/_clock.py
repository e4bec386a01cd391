"""Time as the layers see it: reading it, and parking a call until a time or until somebody wakes it.

Layers wait nowhere else. A waiter parks an asyncio or trio task, or a thread when the layers are driven
by a blocking client (`sync`), and can be woken from any of these. `testing.ManualClock` is the other
clock.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """The system's clocks: monotonic for every wait and limit, wall-clock only to read HTTP dates."""

    manual = False  # a manual clock is told when calls begin and end, to know when it may move

    # Static, so that reading the time costs no Python frame: every layer does.
    monotonic = staticmethod(time.monotonic)  # seconds since some fixed point; never goes back
    time = staticmethod(time.time)  # seconds since the epoch, as the system believes

    async def sleep(self, seconds: float, *, blocking: bool = False) -> None:
        """Park the caller for `seconds`; the thread when `blocking`, else the task."""
        until = None if seconds == math.inf else self.monotonic() + seconds
        await Waiter(self, blocking=blocking).wait(until)

    async def park(self, waiter: Waiter, bell: Bell, until: float | None) -> None:
        """Return when `waiter` was woken or the clock reads `until`."""
        while not waiter.woken:
            left = None if until is None else until - self.monotonic()
            if left is not None and left <= 0:
                return
            await bell.wait(left)

    def call_at(self, due: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Run `callback` in this event loop's thread at `due`; returns what calls that off."""
        import asyncio  # noqa: PLC0415  # trio programs get by without it

        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, due - self.monotonic()), callback).cancel


class Waiter:
    """One parked call. `wake()` may come from any task, thread or event loop, also before `wait()`."""

    __slots__ = ("_bell", "_blocking", "_clock", "woken")

    def __init__(self, clock: Clock, *, blocking: bool) -> None:
        self._clock = clock
        self._blocking = blocking
        self._bell: Bell | None = None
        self.woken = False

    async def wait(self, until: float | None) -> bool:
        """Park until woken (true) or until the clock reads `until` (false); `None` is for ever."""
        self._bell = ThreadBell() if self._blocking else LoopBell()
        try:
            await self._clock.park(self, self._bell, until)
        finally:
            self._bell = None
        return self.woken

    def wake(self) -> None:
        """End the wait now."""
        self.woken = True
        bell = self._bell
        if bell is not None:
            bell.ring()


class ThreadBell:
    """Parks the thread. Its coroutines never suspend, so that the blocking driver can run them."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        self._event.wait(seconds)
        self._event.clear()

    async def pause(self) -> None:
        time.sleep(0)  # noqa: ASYNC251  # this is the blocking side: no event loop to hold up


class LoopBell:
    """Parks the task, on asyncio or trio, and is rung from any thread."""

    __slots__ = ("_event", "_soon")

    def __init__(self) -> None:
        try:
            token: Any = anyio.lowlevel.current_token()
        except RuntimeError:
            import asyncio  # noqa: PLC0415  # trio programs get by without it

            # In a callback, where anyio misses a task, or takes the word of the thread that asked for it.
            token = asyncio.get_running_loop()
        native: Any = getattr(token, "native_token", token)
        # asyncio's loop and trio's token name the same thing differently.
        self._soon = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe
        self._event = anyio.Event()

    def ring(self) -> None:
        self.run_soon(self._set)

    def run_soon(self, callback: Callable[[], object]) -> None:
        """Run it in the event loop that made this bell."""
        try:
            self._soon(callback)
        except RuntimeError:
            pass  # that event loop is closed, and whatever waited in it with it

    def _set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        with anyio.move_on_after(seconds):
            await self._event.wait()
        self._event = anyio.Event()

    async def pause(self) -> None:
        await anyio.lowlevel.checkpoint()


Bell = ThreadBell | LoopBell

SYSTEM = Clock()
