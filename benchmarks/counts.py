"""Exact counts per request: bytecodes and Python frames, by `sys.monitoring` (Python 3.12 and newer).

python -m benchmarks.counts
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Any

import httpx

from benchmarks._null import NullTransport
from benchmarks.overhead import URL, stack, transports

WARM_UP = 50


def count(transport: Any) -> tuple[Counter[str], Counter[str]]:
    """Bytecodes and frames by place, of one request with its body read and closed."""
    monitoring = sys.monitoring  # type: ignore[attr-defined,unused-ignore]  # Python 3.12 and newer
    request = httpx.Request("GET", URL, extensions={"timeout": httpx.Timeout(5.0).as_dict()})
    bytecodes: Counter[str] = Counter()
    frames: Counter[str] = Counter()

    async def once() -> None:
        response = await transport.handle_async_request(request)
        async for _chunk in response.stream:
            pass
        await response.stream.aclose()

    async def measured() -> None:
        for _ in range(WARM_UP):
            await once()
        tool = monitoring.PROFILER_ID
        monitoring.use_tool_id(tool, "counts")
        events = monitoring.events
        monitoring.register_callback(
            tool, events.INSTRUCTION, lambda code, _: bytecodes.update([_name(code)])
        )
        monitoring.register_callback(tool, events.PY_START, lambda code, _: frames.update([_name(code)]))
        monitoring.set_events(tool, events.INSTRUCTION | events.PY_START)
        try:
            await once()
        finally:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)

    asyncio.run(measured())
    return bytecodes, frames


def _name(code: Any) -> str:
    return f"{code.co_filename.rpartition('/')[2]}:{code.co_qualname}"


def main() -> int:
    bare_codes, bare_frames = count(NullTransport())
    print(f"{'added per request':24}{'bytecodes':>10}{'frames':>8}")
    for name, transport in transports().items():
        codes, frames = count(transport)
        print(
            f"{name:24}{sum(codes.values()) - sum(bare_codes.values()):10}"
            f"{sum(frames.values()) - sum(bare_frames.values()):8}"
        )
    codes, frames = count(stack())
    codes.subtract(bare_codes)
    frames.subtract(bare_frames)
    print("\nwhole stack, by place")
    for place, number in codes.most_common():
        if number > 0:
            print(f"{place:60}{number:6}{frames[place]:4}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
