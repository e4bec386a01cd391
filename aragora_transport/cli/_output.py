"""What commands that write one text share: `-o FILE`, else stdout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

EXIT_STATUS = "exit status: 0, 1 when FILE cannot be written, 2 for wrong arguments"


def add_output(parser: Any) -> None:
    """Declare `-o`."""
    parser.add_argument("-o", "--output", metavar="FILE", help="write there, not to stdout")


def write(text: str, file: str | None, command: str) -> int:
    """Write the text and return the exit status."""
    if file is None:
        sys.stdout.write(text)
        return 0
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"aragora-transport {command}: {file} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return 0
