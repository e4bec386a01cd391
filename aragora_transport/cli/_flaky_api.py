"""The demo's flaky API: a process of its own that serves JSON on loopback and fails by schedule.

Run as a file, it imports nothing but the standard library, so it starts at once and cannot be kept
alive by the library it tests. Every client has its own lane (a port, a limiter, a count), and what
happens to attempt k of call i is drawn from (seed, i, k) alone: both clients meet the same luck.

It is told what to do by lines on stdin ("start", "report 1") and ends when stdin does, so that no
server outlives a demo that was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["healthy", "flaky", "limited", "outage", "stalled", "recovered"]
Fate = Literal["serve", "503", "429", "drop", "serve and drop", "stall"]

LANES = ("bare", "ours")
FLAKY_SHARE = 0.3
STALL_SHARE = 0.3
_LIMIT_WINDOW = 1.0
_LONGEST_BODY = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A part of the run in which the API behaves in one way; `share` is its part of the time."""

    kind: Kind
    name: str
    share: float


PHASES = (
    Phase(kind="healthy", name="healthy", share=0.10),
    Phase(kind="flaky", name="30 % of 503", share=0.20),
    Phase(kind="limited", name="429 Retry-After", share=0.18),
    Phase(kind="outage", name="full outage", share=0.18),
    Phase(kind="stalled", name="stalled bodies", share=0.14),
    Phase(kind="recovered", name="recovered", share=0.20),
)


def phase_at(elapsed: float, seconds: float) -> tuple[int, float]:
    """The index of the phase at `elapsed` of a run of `seconds`, and how far it has gone (0 to 1)."""
    begins = 0.0
    for index, phase in enumerate(PHASES):
        lasts = phase.share * seconds
        if elapsed < begins + lasts:
            return index, max(0.0, (elapsed - begins) / lasts)
        begins += lasts
    return len(PHASES) - 1, 1.0


def quota(progress: float, rate: float) -> int:
    """How many calls a second the limiter allows: first half of those that come, later all of them.

    A limit that stays below the traffic loses the excess whatever a client does; one that passes is
    where waiting, instead of hammering, pays.
    """
    return max(1, round(rate * (0.5 if progress < 0.4 else 5.0)))


def draw_fate(kind: Kind, luck: Random) -> Fate:
    """What becomes of one attempt, but for the limiter's 429, which depends on the others."""
    roll = luck.random()
    if kind == "flaky":
        return "503" if roll < FLAKY_SHARE else "serve"
    if kind == "outage":
        return "503" if roll < 0.6 else "drop" if roll < 0.8 else "serve and drop"
    if kind == "stalled":
        return "stall" if roll < STALL_SHARE else "serve"
    return "serve"


class Limiter:
    """Allows so many requests in any second, and tells the others to come back a second later."""

    def __init__(self) -> None:
        self._allowed: deque[float] = deque()

    def allows(self, now: float, limit: int) -> bool:
        """Whether one more request is allowed at `now`; one that is not does not count."""
        while self._allowed and self._allowed[0] <= now - _LIMIT_WINDOW:
            self._allowed.popleft()
        if len(self._allowed) >= limit:
            return False
        self._allowed.append(now)
        return True


@dataclass(frozen=True, slots=True)
class Request:
    """What the API reads of a request: `call` is the number at the end of its path."""

    method: str
    call: int


@dataclass(slots=True)
class Lane:
    """One client's share of the API: what it sent, and the limiter's view of it."""

    sends: list[int] = field(default_factory=lambda: [0] * len(PHASES))
    fates: Counter[str] = field(default_factory=Counter[str])
    attempts: Counter[int] = field(default_factory=Counter[int])
    carried_out: Counter[int] = field(default_factory=Counter[int])
    limiter: Limiter = field(default_factory=Limiter)

    def report(self) -> dict[str, object]:
        """The lane's counts, as JSON."""
        twice = sum(times - 1 for times in self.carried_out.values())
        return {"sends": self.sends, "fates": self.fates, "posts_repeated": twice}


class FlakyApi:
    """Both lanes and the one clock of their phases."""

    def __init__(
        self, *, seconds: float, rate: float, seed: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lanes = {name: Lane() for name in LANES}
        self._seconds = seconds
        self._rate = rate
        self._seed = seed
        self._clock = clock
        self._started: float | None = None

    def start(self) -> None:
        """Begin the first phase now; before that the API is healthy."""
        self._started = self._clock()

    def receive(self, lane: Lane, request: Request) -> tuple[Fate, float]:
        """Count the request; say what becomes of it and after how many seconds of work."""
        now = self._clock()
        elapsed = 0.0 if self._started is None else now - self._started
        index, progress = phase_at(elapsed, self._seconds)
        lane.sends[index] += 1
        lane.attempts[request.call] += 1
        luck = Random(f"{self._seed}/{request.call}/{lane.attempts[request.call]}")  # noqa: S311  # no secret
        work = luck.uniform(0.008, 0.030)
        fate = draw_fate(PHASES[index].kind, luck)
        if PHASES[index].kind == "limited" and not lane.limiter.allows(now, quota(progress, self._rate)):
            fate = "429"
        lane.fates[fate] += 1
        if request.method == "POST" and fate in {"serve", "serve and drop", "stall"}:
            lane.carried_out[request.call] += 1
        return fate, work if fate in {"serve", "stall"} else work / 4

    def report(self) -> dict[str, object]:
        """What every lane counted so far, as JSON."""
        return {name: lane.report() for name, lane in self.lanes.items()}


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection with its body read and dropped; None at its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *fields = head.split("\r\n")
    method, path, _ = line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (item.partition(":") for item in fields)}
    length = int(headers.get("content-length", "0"))
    if length > _LONGEST_BODY or "transfer-encoding" in headers:
        return None
    await reader.readexactly(length)
    return Request(method, int(path.rpartition("/")[2]))


_JSON = {"Content-Type": "application/json"}


def answer(fate: Fate, request: Request) -> bytes:
    """The bytes that go back; of a stalled body only the first half."""
    if fate == "503":
        return _message("503 Service Unavailable", {"error": "unavailable"}, {})
    if fate == "429":
        return _message("429 Too Many Requests", {"error": "slow down"}, {"Retry-After": "1"})
    whole = _message("200 OK", {"id": request.call, "note": "x" * 200}, {})
    return whole[:-100] if fate == "stall" else whole


def _message(status: str, body: dict[str, object], headers: dict[str, str]) -> bytes:
    content = json.dumps(body).encode()
    fields = {**_JSON, "Content-Length": str(len(content)), **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


class Listener:
    """The sockets of one lane. `close` ends its connections and waits for their tasks."""

    def __init__(self, api: FlakyApi, lane: Lane) -> None:
        self._api = api
        self._lane = lane
        self._connections: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}
        self._servers: list[asyncio.Server] = []

    async def open(self) -> int:
        """Listen on a free loopback port and return it."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and hang up on everybody."""
        for server in self._servers:
            server.close()
        for writer in self._connections.values():
            writer.transport.abort()
        if handlers := [task for task in self._connections if task is not None]:
            await asyncio.wait(handlers)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[asyncio.current_task()] = writer
        try:
            while (request := await read_request(reader)) is not None:
                if not await self._exchange(request, reader, writer):
                    break
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client went away or sent no HTTP: nothing left to answer
        finally:
            writer.close()
            del self._connections[asyncio.current_task()]

    async def _exchange(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; whether the connection can carry another."""
        fate, work = self._api.receive(self._lane, request)
        await asyncio.sleep(work)
        if fate in {"drop", "serve and drop"}:
            return False
        writer.write(answer(fate, request))
        await writer.drain()
        if fate == "stall":
            await reader.read(1)  # the rest never comes; wait until the client has had enough
            return False
        return True


def _listen_to_parent(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str]) -> None:
    """Hand each line of stdin to the loop, then "" at its end; in a thread, which every platform can."""
    for line in sys.stdin:
        loop.call_soon_threadsafe(lines.put_nowait, line.strip())
    loop.call_soon_threadsafe(lines.put_nowait, "")


def _tell(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def _serve(api: FlakyApi) -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    reading = threading.Thread(
        target=_listen_to_parent, args=(asyncio.get_running_loop(), lines), daemon=True
    )
    reading.start()
    listeners = {name: Listener(api, lane) for name, lane in api.lanes.items()}
    _tell({name: await listener.open() for name, listener in listeners.items()})
    while line := await lines.get():
        if line == "start":
            api.start()
        else:
            _tell({"number": int(line.removeprefix("report ")), "lanes": api.report()})
    for listener in listeners.values():
        await listener.close()


def main(argv: list[str] | None = None) -> int:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(prog="flaky-api", description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args(argv)
    asyncio.run(_serve(FlakyApi(seconds=args.seconds, rate=args.rate, seed=args.seed)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
