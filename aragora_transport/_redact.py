"""Foreign text made safe to log: one line, of a bounded length."""

from __future__ import annotations

_MOST = 300  # characters
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def one_line(text: str) -> str:
    """`text` with control characters and line separators escaped, cut to 300 characters."""
    if len(text) > _MOST:
        text = text[: _MOST - 1] + "…"
    return text.translate(_CONTROL)
