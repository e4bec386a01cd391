"""httpx's own timeouts, one for each phase of a request: the only way to interrupt a blocking client.

They are shortened to the time that is left, and put back afterwards: the client made them, a redirect
copies them, and a retry begins with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._flavor import Flavor

Timeouts = dict[str, float | None]  # seconds by phase: connect, read, write, pool
_LEAST = 0.001  # seconds: httpx takes 0 for "at once", which fails before it has tried


def shortened(timeouts: Timeouts | None, left: float) -> Timeouts | None:
    """The timeouts cut to what is left, in a new dict; `None` where none is longer."""
    left = max(_LEAST, left)
    if timeouts is None:
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"))
    for limit in timeouts.values():
        if limit is None or limit > left:
            return {
                phase: left if limit is None or limit > left else limit for phase, limit in timeouts.items()
            }
    return None


def with_read(timeouts: Timeouts | None, left: float) -> Timeouts | None:
    """The timeouts with that for reading cut to what is left, in a new dict; `None` where it needs no cut."""
    left = max(_LEAST, left)
    read = None if timeouts is None else timeouts.get("read")
    return {**(timeouts or {}), "read": left} if read is None or read > left else None


def put_back(extensions: dict[str, Any], timeouts: Timeouts | None) -> None:
    """Undo what was shortened."""
    if timeouts is None:
        extensions.pop("timeout", None)
    else:
        extensions["timeout"] = timeouts


def cut_short(error: BaseException, due: float, call: Call, flavor: Flavor) -> bool:
    """Whether a phase ended because it had been shortened to what was left until `due`."""
    return (
        isinstance(error, flavor.TimeoutException)
        and not isinstance(error, flavor.DeadlineExceededError)
        and call.scope.now() >= due
    )
