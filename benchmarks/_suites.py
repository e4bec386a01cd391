"""The suites by name, in the order in which they run. Each is the module of that name."""

from __future__ import annotations

import importlib
from typing import Any

# Memory comes first: Python lays objects out by what the first of their class were like. Overhead comes last:
# it loads other libraries, and has stacks of many shapes, where a program has one.
SUITES = {
    "memory": "bytes per request, in flight and left behind",
    "counts": "bytecodes, Python frames and allocations per request",
    "paths": "a refusal, a retry, a deadline, a large body",
    "loopback": "the whole stack over real connections",
    "overhead": "CPU time that each layer, the whole and other libraries add",
}


def module(name: str) -> Any:
    """A suite: `run(effort, tell)` returns its tables, its docstring tells what they mean."""
    return importlib.import_module(f"{__package__}.{name}")
