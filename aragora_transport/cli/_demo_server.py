"""The demo's handle on its server process: start it, ask it for its counts, end it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aragora_transport.cli import _flaky_api

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

_STARTUP_SECONDS = 15.0
_ANSWER_SECONDS = 5.0


class ServerError(Exception):
    """The server process did not start, or is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneReport:
    """One client's requests as the server counted them: by phase, by what became of them.

    `posts_repeated`: POSTs that were carried out although the same one had been before.
    """

    sends: Sequence[int] = (0,) * len(_flaky_api.PHASES)
    fates: Mapping[str, int] = field(default_factory=dict[str, int])
    posts_repeated: int = 0


class FlakyServer:
    """A running server process. `ports` has one port for each lane."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asked = 0
        self.ports: dict[str, int] = {}

    async def open(self) -> None:
        """Wait until it listens."""
        self.ports = await self._next_message(_STARTUP_SECONDS)

    def start(self) -> None:
        """Begin its phases now."""
        self._send("start")

    async def report(self) -> dict[str, LaneReport]:
        """What each lane counted so far."""
        self._asked += 1
        self._send(f"report {self._asked}")
        while True:
            message = await self._next_message(_ANSWER_SECONDS)
            if message["number"] == self._asked:  # a cancelled question may have left its answer behind
                return {name: LaneReport(**lane) for name, lane in message["lanes"].items()}

    async def close(self) -> None:
        """End of stdin is its sign to go; one that does not is killed."""
        assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
        self._process.stdin.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101  # a pipe was asked for
        self._process.stdin.write(line.encode() + b"\n")

    async def _next_message(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
        line = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        if not line:
            raise ServerError(
                f"the demo's server process did not answer within {seconds:g} s, or is gone; what it wrote "
                "to stderr says why (all it needs is leave to listen on 127.0.0.1)"
            )
        message: dict[str, Any] = json.loads(line)
        return message


def _away_from_ctrl_c() -> dict[str, Any]:
    """A process group of its own: Ctrl-C reaches the terminal's, and the demo ends its server itself."""
    if sys.platform == "win32":  # pragma: no cover  # the other platforms' tests do not run there
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"process_group": 0}


@asynccontextmanager
async def flaky_server(*, seconds: float, rate: float, seed: int) -> AsyncGenerator[FlakyServer, None]:
    """A server process for a run of `seconds`; it is gone when the block is left, however that is."""
    # By path and isolated (-I): it needs the standard library only, whatever the directory or environment.
    command = [sys.executable, "-I", str(Path(_flaky_api.__file__))]
    options = [f"--seconds={seconds}", f"--rate={rate}", f"--seed={seed}"]
    process = await asyncio.create_subprocess_exec(
        *command, *options, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **_away_from_ctrl_c()
    )
    server = FlakyServer(process)
    try:
        await server.open()
        yield server
    finally:
        await server.close()
