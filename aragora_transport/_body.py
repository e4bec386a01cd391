"""Response bodies, followed to their end.

A call is not over at the headers. The scope of the call wraps the response's stream once; how the body
ended is told to the hooks that the layers have left on the call, and its silences are limited.
"""

from __future__ import annotations

import functools
from asyncio import current_task
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any

from aragora_transport._timeouts import cut_short, put_back, with_read

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aragora_transport._call import Call
    from aragora_transport._flavor import Flavor
    from aragora_transport._timeouts import Timeouts


class _Body:
    """What async and blocking bodies share."""

    flavor: Flavor  # of the class that `body_class` makes
    inner: Any
    call: Call
    over: bool  # read to its end, as the hooks were told
    told = False  # of another end

    def end(self, error: BaseException | None, *, complete: bool) -> None:
        """Tell how the body ended; once."""
        if not (self.told or self.over):
            self.told = True
            self.call.body_ended(error, complete)

    def due(self) -> float | None:
        """When the clock must have shown the next chunk."""
        call = self.call
        if call.idle is None:
            return call.deadline
        due = call.scope.now() + call.idle
        return due if call.deadline is None or due < call.deadline else call.deadline

    def too_late(self) -> Exception:
        call = self.call
        total = call.deadline is not None and call.scope.now() >= call.deadline
        limit = call.total if total else call.idle
        return call.too_late(self.flavor, "total" if total else "body_idle", limit)


class _AsyncBody(_Body):
    """Its own iterator: one frame a chunk."""

    def __init__(self, inner: Any, call: Call, _extensions: dict[str, Any]) -> None:
        self.inner = inner
        self.call = call
        self.over = False
        self._chunks: Any = None

    def __aiter__(self) -> _AsyncBody:
        if self._chunks is None:  # who read the beginning asks again for the rest
            self._chunks = self.inner.__aiter__()
        return self

    async def __anext__(self) -> bytes:  # noqa: C901  # elsewhere its parts would be functions, and frames
        call = self.call
        alarm: Any = call.alarm  # one of asyncio's: no other rests
        try:
            if alarm is None:
                return await self._next()
            # The attempt's alarm, which lies at rest, goes on as that of the body.
            alarm.task = task = current_task()
            alarm.cancelling = task.cancelling()  # type: ignore[union-attr]  # it runs in one
            due = call.scope.now() + call.idle  # type: ignore[operator]  # set with it
            if call.deadline is not None and call.deadline < due:
                due = self._before_deadline(call.deadline)
            alarm.due = due
            if alarm.queued > due:
                alarm.bench.queue(alarm)  # its time had come while it was at rest
            chunk: bytes = await anext(self._chunks)
            if alarm.rang:  # pragma: no cover  # it rang in the very step in which the chunk came
                alarm.rest()
            alarm.task = None
        except StopAsyncIteration:
            if alarm is not None:
                call.alarm = None
                if alarm.rang:  # pragma: no cover  # as above, with the end
                    alarm.rest()
                alarm.task = None
                alarm.bench.append(alarm)
            elif self.over:
                raise
            self.over = True
            call.ended = call.scope.now()
            for hook in call.hooks:
                hook(call, None, True)
            raise
        except BaseException as error:
            self._failed(error)
            raise
        return chunk

    def _before_deadline(self, deadline: float) -> float:
        """The deadline, unless it has passed while nothing was read."""
        if self.call.scope.now() >= deadline:
            raise self.too_late()
        return deadline

    def _failed(self, error: BaseException) -> None:
        """Tell of it, and raise our own error in its place where it is an alarm's doing."""
        alarm, self.call.alarm = self.call.alarm, None
        if alarm is None or not alarm.stop(error):
            self.end(error, complete=False)
            return
        late = self.too_late()
        self.end(late, complete=False)
        try:
            raise late from None
        finally:
            del late  # its traceback refers to this frame: the two would keep each other alive

    async def _next(self) -> bytes:
        """The next chunk where no alarm was left on the call: no limit, another than usual, or trio."""
        call = self.call
        due = self.due()
        clock = call.clock
        if due is None and not clock.manual:
            return await anext(self._chunks)
        if due is not None and clock.monotonic() >= due:
            raise self.too_late()
        alarm = None if due is None else call.alarms.start(due)
        if clock.manual:
            clock.call_began()  # type: ignore[attr-defined]  # a manual clock has it
        try:
            chunk: bytes = await anext(self._chunks)
        except BaseException as error:
            if alarm is not None and alarm.stop(error):
                raise self.too_late() from None
            raise
        finally:
            if clock.manual:
                clock.call_ended()  # type: ignore[attr-defined]  # a manual clock has it
        if alarm is not None:
            alarm.stop()
        return chunk

    def aclose(self) -> Awaitable[None]:
        if self.over:  # there is nothing left to tell
            return self.inner.aclose()  # type: ignore[no-any-return]  # a stream of any flavour
        return self._close_early()

    async def _close_early(self) -> None:
        try:
            await self.inner.aclose()
        finally:
            self.end(None, complete=False)
        await finish(self._chunks)  # it may wait for the next chunk to be asked for: nobody will


class _BlockingBody(_Body):
    def __init__(self, inner: Any, call: Call, extensions: dict[str, Any]) -> None:
        self.inner = inner
        self.call = call
        self.over = False
        self._extensions = extensions  # of the request

    def __iter__(self) -> Any:
        due: float | None = None
        clock = self.call.clock
        try:
            chunks = iter(self.inner)
            extensions: dict[str, Any] | None = self._extensions
            theirs = self._extensions.get("timeout")
            while True:
                self._check_deadline()
                due = self.due()
                if extensions is not None:
                    self._clamp_read(theirs, due)
                if clock.manual:
                    clock.call_began()  # type: ignore[attr-defined]  # a manual clock has it
                try:
                    chunk = next(chunks)
                except StopIteration:
                    break
                finally:
                    if clock.manual:
                        clock.call_ended()  # type: ignore[attr-defined]  # a manual clock has it
                    if extensions is not None:
                        # httpcore reads the limit when the first chunk is asked for; a redirect
                        # copies the extensions later and must not inherit what was left of ours.
                        put_back(extensions, theirs)
                        extensions = None
                yield chunk
        except GeneratorExit:
            raise  # closed early: close() tells the hooks
        except BaseException as error:
            late = self._late(error, due)
            self.end(late or error, complete=False)
            if late is not None:
                try:
                    raise late from error
                finally:
                    del late  # as above
            raise
        self.end(None, complete=True)

    def _check_deadline(self) -> None:
        deadline = self.call.deadline
        if deadline is not None and self.call.scope.now() >= deadline:
            raise self.too_late()

    def _clamp_read(self, theirs: Timeouts | None, due: float | None) -> None:
        if due is not None:
            cut = with_read(theirs, due - self.call.scope.now())
            if cut is not None:
                self._extensions["timeout"] = cut

    def _late(self, error: BaseException, due: float | None) -> Exception | None:
        """Our own error where a read ended because it had been shortened to what was left."""
        if due is None or not cut_short(error, due, self.call, self.flavor):
            return None
        return self.too_late()

    def close(self) -> None:
        try:
            self.inner.close()
        finally:
            self.end(None, complete=False)


async def finish(chunks: Any) -> None:
    """End a generator of chunks that nobody will ask for more; else its end comes when it is collected."""
    if isinstance(chunks, AsyncGeneratorType) and not chunks.ag_running:
        await chunks.aclose()


@functools.cache
def body_class(flavor: Flavor, *, blocking: bool) -> type[Any]:
    """The stream class that clients of the flavour take: it must be one of their own."""
    base = flavor.module.SyncByteStream if blocking else flavor.module.AsyncByteStream
    ours = _BlockingBody if blocking else _AsyncBody
    return type("Body", (ours, base), {"flavor": flavor})
