"""How long the server told us to wait, read from a response's headers: pure functions, no clock of their own.

Numbers and dates are matched by strict ASCII patterns of our own, since the ready-made ways are traps with
hostile text: `email.utils` raises OverflowError for some zones, `str.isdigit` accepts a superscript two,
`int` refuses 5,000 digits, and `float` accepts "nan", "inf" and the digits of every script.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TOLD: Final = 7 * 86400.0
"""The longest wait, in seconds, that is ever reported; whatever a server says above it is told as this."""

_MAX_TEXT: Final = 1024  # characters of a header that are read; the longest honest value is far below
_EPOCH_FROM: Final = 1e8  # a reset this large (three years) is no delay but an instant, seconds since 1970
_YEAR: Final = 31_556_952  # seconds, on average

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"')

# RFC 9110, 5.6.7. "Sun, 06 Nov 1994 08:49:37 GMT" and "Sunday, 06-Nov-94 08:49:37 GMT" arrive here without
# their weekday, cut off at its comma. Numeric zones are no part of that standard, but what they say is clear.
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-5][0-9]|60)"
_DATES = (
    re.compile(
        r"(?P<day>[0-9]{1,2})(?P<dash>[ -])(?P<month>[a-z]{3})(?P=dash)(?P<year>[0-9]{4}|[0-9]{2}) "
        + _CLOCK
        + r" (?:GMT|UTC?|Z|(?P<sign>[+-])(?P<zone_hours>[0-9]{2})(?P<zone_minutes>[0-5][0-9]))",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(  # asctime: "Sun Nov  6 08:49:37 1994", always GMT
        r"[a-z]{3} (?P<month>[a-z]{3}) {1,2}(?P<day>[0-9]{1,2}) " + _CLOCK + r" (?P<year>[0-9]{4})",
        re.ASCII | re.IGNORECASE,
    ),
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class HeadersLike(Protocol):
    """What is read of `httpx.Headers` and its like: names in any case, repeats joined by commas."""

    def get(self, key: str, /) -> str | None: ...


def told_wait(headers: HeadersLike, now: float) -> float | None:
    """Seconds that the server told us to wait, from 0.0 to `MAX_TOLD`; None where it told nothing valid.

    `now` is seconds since 1970; it counts only for instants in a response that has no `Date` of its own. The
    first source that says something valid is taken, and of a repeated header the longest wait:

    1. `Retry-After` (RFC 9110, 10.2.3): seconds, decimals tolerated, or an HTTP-date in its three forms;
    2. `RateLimit` (draft-ietf-httpapi-ratelimit-headers) with nothing left: `"name";r=0;t=5` as in draft 10,
       or `limit=9, remaining=0, reset=5` as in draft 7;
    3. `RateLimit-Remaining: 0` with `RateLimit-Reset`, in seconds, or as an instant (GitLab);
    4. `X-RateLimit-Remaining: 0` with `X-RateLimit-Reset-After` (Discord) or `X-RateLimit-Reset`.

    The status is the caller's to judge: a 200 that used up the last of a quota has a told wait, too.
    """
    wait = _retry_after(headers, now)
    return quota_wait(headers, now) if wait is None else wait


def quota_wait(headers: HeadersLike, now: float) -> float | None:
    """The same without `Retry-After`: seconds until there is a quota again, where nothing is left of it."""
    wait = _ratelimit(_read(headers, "RateLimit"))
    if wait is None and _is_spent(headers, "RateLimit-Remaining"):
        wait = _reset(headers, "RateLimit-Reset", now)
    if wait is None and _is_spent(headers, "X-RateLimit-Remaining"):
        wait = _longest(map(told_number, _items(headers, "X-RateLimit-Reset-After")))
        if wait is None:
            wait = _reset(headers, "X-RateLimit-Reset", now)
    return wait


def told_number(value: object) -> float | None:
    """Seconds of a told wait from a JSON body (a number, or text that is one), within 0.0 and `MAX_TOLD`.

    None for what is no such number: a bool, a negative number, NaN, text with more than ASCII digits and a
    point. Infinity, which is how a JSON `1e400` is read, is `MAX_TOLD`.
    """
    if isinstance(value, str):
        value = _number(value[:_MAX_TEXT])
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return abs(float(min(value, MAX_TOLD)))  # min first: an int may be beyond any float; abs: -0.0


def _retry_after(headers: HeadersLike, now: float) -> float | None:
    items = _items(headers, "Retry-After")
    if not items:
        return None
    sent = _sent(headers, now)
    delays = [told_number(item) for item in items]
    return _longest([*delays, *(_until(instant, sent) for instant in _instants(items, sent))])


def _ratelimit(text: str) -> float | None:
    bare = _QUOTED.sub("", text)  # names in quotes may hold separators
    if '"' in bare:
        return None
    told = [(item.get("r"), item.get("t")) for item in (_pairs(member, ";") for member in bare.split(","))]
    older = _pairs(bare, ",")
    told.append((older.get("remaining"), older.get("reset")))
    return _longest(told_number(reset) for remaining, reset in told if told_number(remaining) == 0)


def _reset(headers: HeadersLike, name: str, now: float) -> float | None:
    numbers = [number for item in _items(headers, name) if (number := _number(item)) is not None]
    sent = _sent(headers, now)
    return _longest(
        _until(number, sent) if number >= _EPOCH_FROM else told_number(number) for number in numbers
    )


def _is_spent(headers: HeadersLike, name: str) -> bool:
    return any(_number(item) == 0 for item in _items(headers, name))


def _sent(headers: HeadersLike, now: float) -> float:
    # The server's own clock, where it says so: ours may be wrong by hours.
    return min(_instants(_items(headers, "Date"), now), default=now)


def _until(instant: float, sent: float) -> float:
    # Up to the next whole second: the server cut its instant down to one; the exact difference is too early.
    return float(math.ceil(min(max(0.0, instant - sent), MAX_TOLD)))


def _instants(items: list[str], near: float) -> list[float]:
    return [instant for item in items if (instant := _instant(item, near)) is not None]


def _instant(text: str, near: float) -> float | None:
    """Seconds since 1970 of one HTTP-date; `near` settles the century of a two-digit year."""
    match = next((match for pattern in _DATES if (match := pattern.fullmatch(text))), None)
    if match is None:
        return None
    part = match.groupdict(default="0")
    try:
        year = int(part["year"])
        if len(part["year"]) < len("1994"):
            last = 1970 + int(near // _YEAR) + 50  # RFC 9110: never more than 50 years ahead
            year = last - (last - year) % 100
        zone = timedelta(hours=int(part.get("zone_hours", 0)), minutes=int(part.get("zone_minutes", 0)))
        minute = datetime(
            year,
            _MONTHS.index(part["month"].lower()) + 1,
            int(part["day"]),
            int(part["hour"]),
            int(part["minute"]),
            tzinfo=timezone(-zone if part.get("sign") == "-" else zone),
        )
    except (ValueError, OverflowError):  # 31 February, 25:00, year 0, an unknown month, a zone of days
        return None
    return minute.timestamp() + int(part["second"])  # added here, for a leap second is :60


def _number(text: str) -> float | None:
    text = text.strip(" \t")
    return float(text) if _NUMBER.fullmatch(text) else None


def _read(headers: HeadersLike, name: str) -> str:
    return (headers.get(name) or "")[:_MAX_TEXT]


def _items(headers: HeadersLike, name: str) -> list[str]:
    return [item for part in _read(headers, name).split(",") if (item := part.strip(" \t"))]


def _pairs(text: str, separator: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(separator))
    return {key.strip(" \t"): value for key, _, value in pairs}


def _longest(waits: Iterable[float | None]) -> float | None:
    return max((wait for wait in waits if wait is not None), default=None)
