"""Time limits on awaits, at one real timer per event loop instead of one per request.

An alarm cancels the task that awaits when its time has come, as `asyncio.timeout` does, but
most alarms are stopped long before. So a stopped alarm stays where it is in the queue and is handed to
the next caller, and the one timer looks at it again only when its old time has come.
"""

from __future__ import annotations

import heapq
import itertools
import math
from asyncio import CancelledError, current_task, get_running_loop
from typing import TYPE_CHECKING, Any, Protocol

import anyio

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aragora_transport._clock import Clock

# Of the event loop, that a task is given to reach its next wait before it is cancelled. A manual clock gives
# everyone twice as many before it moves, so that a limit holds at its own time there.
_TURNS = 10


class Alarm(Protocol):
    """A running time limit."""

    rang: bool  # it has, or it is one that cannot rest
    task: Any  # whose it is; `None` while it rests

    def stop(self, error: BaseException | None = None) -> bool:
        """End the limit; true when `error` is its doing and stands for "time is up".

        Must be called once, in the task that started it, whether or not the block raised.
        """
        ...


class Alarms:
    """Hands out alarms for whichever event loop is running. Safe to share between loops and threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._benches: dict[asyncio.AbstractEventLoop, _Bench] = {}

    def start(self, due: float) -> Alarm:
        """Start a limit that ends when the clock reads `due`."""
        try:
            alarm = self._benches[get_running_loop()].pop()
        except LookupError:
            alarm = self._another()
        except RuntimeError:  # no loop of asyncio's
            return _ScopeAlarm(self._clock, due)
        alarm.task = task = current_task()
        alarm.cancelling = task.cancelling()  # type: ignore[union-attr]  # what is awaited runs in a task
        alarm.due = due
        if due < alarm.queued:
            alarm.bench.queue(alarm)
        return alarm

    def _another(self) -> TaskAlarm:
        """One more for the loop that runs."""
        loop = get_running_loop()
        bench = self._benches.get(loop)
        if bench is None:
            # Loops come and go (one asyncio.run after another); what a closed one left is dropped here.
            self._benches = {loop_: bench for loop_, bench in self._benches.items() if not loop_.is_closed()}
            bench = self._benches[loop] = _Bench(self._clock)
        return TaskAlarm(bench)


class NoAlarms(Alarms):
    """For blocking clients: a thread cannot be interrupted, so none of these rings."""

    def start(self, due: float) -> Alarm:  # noqa: ARG002  # as above
        """Start nothing."""
        return _NEVER


class _Never:
    rang = True  # it cannot rest, for there is nothing of it
    task: Any = None

    def stop(self, error: BaseException | None = None) -> bool:  # noqa: ARG002  # an alarm's
        return False


_NEVER = _Never()


class TaskAlarm:
    """A limit on what one asyncio task awaits.

    While it is not stopped it may rest (`task` is None) and begin anew (`task`, `cancelling` and a later
    `due` are set again): the attempt's alarm goes on as that of its body.
    """

    __slots__ = ("bench", "cancelling", "due", "queued", "rang", "task")

    def __init__(self, bench: _Bench) -> None:
        self.bench = bench
        self.task: asyncio.Task[object] | None = None
        self.cancelling = 0
        self.due = math.inf
        self.queued = math.inf  # where the queue will look at this alarm next
        self.rang = False

    def stop(self, error: BaseException | None = None) -> bool:
        rang = self.rest(error)
        self.bench.append(self)
        return rang

    def rest(self, error: BaseException | None = None) -> bool:
        """`stop()`, but the alarm stays the caller's."""
        task = self.task
        self.task = None
        if not self.rang or task is None:
            return False
        self.rang = False
        # As asyncio.timeout does: if someone else cancelled the task too, that one goes first.
        others = task.uncancel() > self.cancelling
        return not others and isinstance(error, CancelledError)


class _Bench(list[TaskAlarm]):
    """The alarms of one event loop that are free, and the timer of them all."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._heap: list[tuple[float, int, TaskAlarm]] = []
        self._numbers = itertools.count()
        self._armed = math.inf
        self._disarm: Callable[[], object] | None = None

    def queue(self, alarm: TaskAlarm) -> None:
        alarm.queued = alarm.due
        heapq.heappush(self._heap, (alarm.due, next(self._numbers), alarm))
        if alarm.due < self._armed:
            self._arm()

    def _arm(self) -> None:
        if self._disarm is not None:
            self._disarm()
        self._armed = self._heap[0][0]
        self._disarm = self._clock.call_at(self._armed, self._ring)

    def _ring(self) -> None:
        self._armed, self._disarm = math.inf, None
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, _, alarm = heapq.heappop(self._heap)
            if alarm.queued != due:
                continue  # it was queued again for an earlier time since
            alarm.queued = math.inf
            if alarm.task is None:
                continue
            if alarm.due > now:
                self.queue(alarm)
            else:
                self._end(alarm, alarm.task, alarm.due, _TURNS)
        if self._heap and self._disarm is None:
            self._arm()

    def _end(self, alarm: TaskAlarm, task: asyncio.Task[object], due: float, turns: int) -> None:
        """Cancel the task once it waits for something, or has not within so many turns of the loop.

        A task that is about to run may have just what it waited for; and between two steps of its locks
        httpx's httpcore loses a connection for good when it is cancelled.
        """
        if alarm.task is not task or alarm.due != due:
            return  # it ended meanwhile
        waits_for: Any = getattr(task, "_fut_waiter", None)
        if turns > 0 and (waits_for is None or waits_for.done()):
            task.get_loop().call_soon(self._end, alarm, task, due, turns - 1)
            return
        alarm.rang = True
        task.cancel()


class _ScopeAlarm:
    """A limit on what one trio task awaits: trio's own cancel scope does the work."""

    __slots__ = ("_call_off", "_scope")

    rang = True  # a scope cannot rest: it must be left where it was entered
    task: Any = None

    def __init__(self, clock: Clock, due: float) -> None:
        self._call_off: Callable[[], object] | None = None
        self._scope = anyio.CancelScope()
        if clock.manual:
            self._call_off = clock.call_at(due, self._scope.cancel)
        else:
            self._scope.deadline = anyio.current_time() + max(0.0, due - clock.monotonic())
        self._scope.__enter__()

    def stop(self, error: BaseException | None = None) -> bool:
        if self._call_off is not None:
            self._call_off()
        if error is None:
            self._scope.__exit__(None, None, None)
            return False
        return bool(self._scope.__exit__(type(error), error, error.__traceback__))
