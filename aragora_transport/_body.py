"""Response bodies, followed to their end.

A call is not over at the headers. `watch()` wraps a response's stream once, however many layers ask;
each layer hangs its own hook on it and learns how the body ended.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aragora_transport._alarm import Alarms
    from aragora_transport._call import Call
    from aragora_transport._flavor import Flavor

Hook = Callable[["Call", BaseException | None, bool], object]


class _Body:
    """A response's stream, with hooks for its end and limits on its silence."""

    call: Call

    def __init__(self, inner: Any, call: Call, flavor: Flavor) -> None:
        self.inner = inner
        self.call = call
        self.flavor = flavor
        self._hooks: list[Hook] = []
        self.idle: float | None = None
        self.alarms: Alarms | None = None
        self.extensions: dict[str, Any] | None = None  # of the request, where a thread reads the body
        self.over = False

    def on_end(self, hook: Hook) -> None:
        """Call `hook(call, error, complete)` when the body ends; hooks added first are called first."""
        if self.over:
            hook(self.call, None, True)
        else:
            self._hooks.append(hook)

    def end(self, error: BaseException | None, *, complete: bool) -> None:
        """Tell the hooks, the innermost layer's first, how the body ended; once."""
        if self.over:
            return
        self.over = True
        call = self.call
        call.ended = call.clock.monotonic()
        for hook in self._hooks:
            hook(call, error, complete)

    def due(self) -> float | None:
        """When the clock must have shown the next chunk."""
        deadline = self.call.deadline
        if self.idle is None:
            return deadline
        due = self.call.clock.monotonic() + self.idle
        return due if deadline is None or due < deadline else deadline

    def too_late(self) -> Exception:
        call = self.call
        now = call.clock.monotonic()
        total = call.deadline is not None and now >= call.deadline
        limit = call.total if total else self.idle
        return self.flavor.DeadlineExceededError(
            platform=call.platform,
            operation=call.operation,
            limit="total" if total else "body_idle",
            seconds=limit or 0.0,
            attempt=call.attempt,
            elapsed=now - call.began,
        )


class _AsyncBody(_Body):
    """Its own iterator: one frame a chunk."""

    _chunks: Any = None

    def __aiter__(self) -> _AsyncBody:
        if self._chunks is None:  # who read the beginning asks again for the rest
            self._chunks = self.inner.__aiter__()
        return self

    async def __anext__(self) -> bytes:
        try:
            due = None if self.alarms is None else self.due()
            if due is None:
                return await self._chunks.__anext__()  # type: ignore[no-any-return]  # a stream of whichever flavour
            return await self._in_time(due)
        except StopAsyncIteration:
            self.end(None, complete=True)
            raise
        except BaseException as error:
            self.end(error, complete=False)
            raise

    async def _in_time(self, due: float) -> bytes:
        assert self.alarms is not None  # noqa: S101  # for the type checker
        clock = self.call.clock
        if clock.monotonic() >= due:
            raise self.too_late()
        alarm = self.alarms.start(due)
        if clock.manual:
            clock.call_began()  # type: ignore[attr-defined]  # a manual clock has it
        try:
            chunk: bytes = await self._chunks.__anext__()
        except BaseException as error:
            if alarm.stop(error):
                raise self.too_late() from None
            raise
        finally:
            if clock.manual:
                clock.call_ended()  # type: ignore[attr-defined]  # a manual clock has it
        alarm.stop()
        return chunk

    async def aclose(self) -> None:
        early = not self.over
        try:
            await self.inner.aclose()
        finally:
            self.end(None, complete=False)
        if early:
            await finish(self._chunks)


class _BlockingBody(_Body):
    def __iter__(self) -> Any:
        due: float | None = None
        clock = self.call.clock
        try:
            chunks = iter(self.inner)
            extensions = self.extensions
            theirs = None if extensions is None else extensions.get("timeout")
            self._clamp_read(theirs)
            while True:
                self._check_deadline()
                due = self.due()
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
                        _put_back(extensions, theirs)
                        extensions = None
                yield chunk
        except GeneratorExit:
            raise  # closed early: close() tells the hooks
        except BaseException as error:
            late = self._late(error, due)
            self.end(late or error, complete=False)
            if late is not None:
                raise late from error
            raise
        self.end(None, complete=True)

    def _check_deadline(self) -> None:
        deadline = self.call.deadline
        if deadline is not None and self.call.clock.monotonic() >= deadline:
            raise self.too_late()

    def _clamp_read(self, theirs: dict[str, Any] | None) -> None:
        """Shorten httpx's read timeout to our limits, the only way to interrupt a blocking read."""
        due = self.due()
        if due is None or self.extensions is None:
            return
        left = max(0.001, due - self.call.clock.monotonic())
        read = None if theirs is None else theirs.get("read")
        if read is None or read > left:
            self.extensions["timeout"] = {**(theirs or {}), "read": left}

    def _late(self, error: BaseException, due: float | None) -> Exception | None:
        """Our own error where a read ended because it had been shortened to what was left."""
        if due is None or not isinstance(error, self.flavor.TimeoutException):
            return None
        if self.call.clock.monotonic() < due or isinstance(error, self.flavor.DeadlineExceededError):
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


def _put_back(extensions: dict[str, Any], theirs: dict[str, Any] | None) -> None:
    if theirs is None:
        extensions.pop("timeout", None)
    else:
        extensions["timeout"] = theirs


@functools.cache
def _body_class(flavor: Flavor, blocking: bool) -> type[Any]:
    base = flavor.module.SyncByteStream if blocking else flavor.module.AsyncByteStream
    ours = _BlockingBody if blocking else _AsyncBody
    return type("Body", (ours, base), {})


def watch(response: Any, call: Call, flavor: Flavor) -> Any:
    """The watched body of a response; the same one for every layer that asks."""
    stream = response.stream
    if isinstance(stream, _Body) and stream.call is call:
        return stream
    body = _body_class(flavor, call.blocking)(stream, call, flavor)
    if response.is_closed:
        body.over = True  # made with its content, as mock transports do: nobody will read the stream
    else:
        response.stream = body
    return body
