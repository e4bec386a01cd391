"""Running a coroutine otherwise than by awaiting it: to its end in this thread, or on its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends, and return what it returns.

    Raises `RuntimeError` if it does suspend: no event loop would ever resume it.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    where = _where(coroutine)
    coroutine.close()
    raise RuntimeError(
        f"{where} awaits something that needs an event loop, but runs under a blocking client; "
        "wait with the clock of the layer (clock.sleep(..., blocking=True)), or use an httpx.AsyncClient"
    )


def _where(coroutine: Any) -> str:
    """The innermost coroutine that suspended, for the message."""
    while True:
        following = getattr(coroutine, "cr_await", None)
        if getattr(following, "cr_code", None) is None:
            return getattr(coroutine, "__qualname__", repr(coroutine))
        coroutine = following


def detach(coroutine: Coroutine[Any, Any, None], context: Context, *, blocking: bool) -> object:
    """Run a coroutine on its own, whatever becomes of the caller: in a task, or in a thread when `blocking`.

    It must not raise. Returns what keeps the task alive.
    """
    if blocking:
        # No daemon: the interpreter waits for it, so that what a platform answers is not lost.
        threading.Thread(target=context.run, args=(drive, coroutine), name="aragora_transport").start()
        return None
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio  # noqa: PLC0415  # it is loaded: this runs in it

        return trio.lowlevel.spawn_system_task(_await, coroutine, context=context)
    return loop.create_task(coroutine, context=context)


async def _await(coroutine: Coroutine[Any, Any, None]) -> None:
    await coroutine
