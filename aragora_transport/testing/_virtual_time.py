"""A clock and the event loop that goes by it: whenever the loop is idle, time jumps to the next timer.

Only the place where an event loop waits is ours, its selector; tasks, timers and timeouts are asyncio's
own, so everything that sleeps by the event loop lives in this time, whoever wrote it.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from aragora_transport._clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aragora_transport._clock import Bell, Waiter

T = TypeVar("T")


class VirtualTime(Clock):
    """Hours in seconds: time stands still while any task can run, then jumps to the next timer.

    `run(main())` is `asyncio.run()` in this time; `new_loop` is a loop factory for `asyncio.Runner` and
    for anyio's pytest plugin. Given as `clock=` to stacks, layers and scripted networks, it is their time
    too. The same program with the same `rng` does the same things at the same times, every time.

    `seed`: of `rng`, a `random.Random` for your program and for `resilient(rng=...)` (default 0).
    `now`: what `monotonic()` starts at (default 0). `wall`: what `time()` starts at, in seconds since the
    epoch (default 2023-11-14 22:13:20 UTC); set the attribute to step the wall clock alone.

    For asyncio alone, and for programs that wait for nothing but time: a real socket looks as idle as a
    sleeping task, and is refused; threads are not waited for while a timer runs. When nothing is left that
    could wake a task, `run()` raises `RuntimeError` instead of hanging: at once, or, where there are other
    threads, which might, after `patience` real seconds without a word from them (default 5).
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        now: float = 0.0,
        wall: float = 1_700_000_000.0,
        patience: float = 5.0,
    ) -> None:
        self.patience = patience
        self.rng = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self.wall = wall - now
        self._now = now

    def monotonic(self) -> float:
        """Seconds of this clock, and of its event loops."""
        return self._now

    def time(self) -> float:
        """Seconds since the epoch by this clock."""
        return self.wall + self._now

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, as `asyncio.run()` does. Time goes on where the last run left it."""
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(main)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """A new event loop that goes by this clock."""
        return _Loop(self, self._pass)

    def _pass(self, seconds: float) -> None:
        self._now += seconds

    async def park(self, waiter: Waiter, bell: Bell, until: float | None) -> None:
        self._check_loop()
        await super().park(waiter, bell, until)

    def call_at(self, due: float, callback: Callable[[], object]) -> Callable[[], object]:
        self._check_loop()
        return super().call_at(due, callback)

    def _check_loop(self) -> None:
        """Elsewhere this clock stands still, and a wait would never end."""
        try:
            loop: Any = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if getattr(loop, "clock", None) is not self:
            raise RuntimeError(
                "VirtualTime only moves in an event loop of its own, and this one is not: use "
                "clock.run(main()), or asyncio.Runner(loop_factory=clock.new_loop). "
                "On trio and for blocking clients ManualClock does the same for calls"
            )

    def __repr__(self) -> str:
        return f"<VirtualTime {self._now:g} s>"


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualTime, jump: Callable[[float], None]) -> None:
        self.clock = clock  # the constructor below asks for the time
        selector = _Selector(jump, clock.patience)
        super().__init__(selector)
        selector.sealed = True  # what is registered by now is the loop's own, for calls from other threads

    def time(self) -> float:
        return self.clock.monotonic()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncio's
        del timeout  # it would be over at once
        await super().shutdown_default_executor()


class _Selector(selectors.DefaultSelector):
    """Where the event loop waits: here it jumps."""

    def __init__(self, jump: Callable[[float], None], patience: float) -> None:
        super().__init__()
        self._jump = jump
        self._patience = patience
        self.sealed = False

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.sealed:
            raise RuntimeError(
                "VirtualTime: a real socket or pipe looks as idle as a sleeping task, so time would run away "
                "from it; put a ScriptedTransport in its place, or use the real clock"
            )
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        alone = threading.active_count() == 1  # asked first: a thread that ends later has rung by then
        ready = super().select(0)
        if ready:
            return ready
        if timeout is not None:
            self._jump(max(0.0, timeout))
            return ready
        ready = super().select(0 if alone else self._patience)
        if not ready:
            silent = "there is no other thread" if alone else f"no thread woke one in {self._patience:g} s"
            raise RuntimeError(
                f"VirtualTime: every task waits, no timer runs and {silent}: nothing could ever wake them"
            )
        return ready
