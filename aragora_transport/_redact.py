"""Foreign text made safe to log: one line, of a bounded length."""

from __future__ import annotations

import re

_MOST = 300  # characters
# Control characters, line and paragraph separators, what turns the direction of writing, half characters.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """`text` with all that could break a line or a terminal escaped, cut to 300 characters."""
    clean = _UNSAFE.sub(_escaped, text[:_MOST])
    return clean if len(text) <= _MOST >= len(clean) else clean[: _MOST - 1] + "…"


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def describe_error(error: Exception) -> str:
    """What an error says of itself: its class and its text, never a header's value."""
    name = type(error).__name__
    if name == "LocalProtocolError":
        return name  # it quotes the header that it refuses: a token with a line feed at its end, say
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an error of somebody else's that cannot even say what it is
        return name
    return f"{name}: {text}" if text else name
