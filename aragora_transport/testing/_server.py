"""`FaultServer`: a real HTTP/1.1 server on loopback that goes wrong as it is told.

It has a thread and an event loop of its own, so that clients of any kind meet it from outside, under asyncio,
under trio or without a loop, and so that every wait in it ends at once when the client or the server closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import sys
import threading
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Self

from aragora_transport.testing._connection import BadRequestError, Connection, ReceivedRequest
from aragora_transport.testing._faults import Answer, Step, Wire, as_step


class FaultServer:
    """Serves a script, one step per request, in the order in which requests begin to come in.

        with FaultServer(503, reset_before_headers(), Answer(body=b"hello")) as server:
            httpx.get(server.url)
            assert server.requests[0].method == "GET"

    A step is a status, an `Answer`, one of the faults, a `Wire`, or a function from the `ReceivedRequest` to
    a step, which serves a whole API when it is the only one. After the last step comes `then` for ever, or
    the last step again where `then` is not given; with neither, every request is answered with 200.

    A request's body is kept up to `keep_body` bytes (1 MiB); of a longer one remain its size and its hash.
    `port` 0 lets the system choose. Leaving the `with` block closes the port and every connection, at
    whatever point they are; what a step's function raised, or a request that was no HTTP, is raised there.

    The `wait_` methods block their thread, where a coroutine's own client would stand still. It calls them by
    `await anyio.to_thread.run_sync(server.wait_for_requests, 1)`.
    """

    def __init__(
        self, *steps: Step, then: Step | None = None, keep_body: int = 1024 * 1024, port: int = 0
    ) -> None:
        script = [as_step(step) for step in (*steps, then) if step is not None] or [Answer()]
        self._script = itertools.chain(script, itertools.repeat(script[-1]))
        self._keep_body = keep_body
        self._port = port
        self._changed = threading.Condition()
        self._requests: list[ReceivedRequest] = []
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._accepted = 0
        self._unfinished = 0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def __enter__(self) -> Self:
        """Listen, and serve from a thread."""
        if self._thread is not None:
            raise RuntimeError("a FaultServer serves once: make another one")
        listener = socket.create_server(("127.0.0.1", self._port), backlog=1024)
        listener.settimeout(0)
        self._port = listener.getsockname()[1]
        self._stopping = asyncio.Event()
        self._loop = asyncio.SelectorEventLoop()  # named, because another kind could not watch bare sockets
        self._thread = threading.Thread(target=self._run, args=(listener,), name="FaultServer", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Close; what went wrong in the server never hides what went wrong in the block."""
        try:
            self.close()
        except Exception as own:
            if error is None:
                raise
            error.add_note(f"FaultServer: {own!r}")

    def close(self, *, timeout: float = 10.0) -> None:
        """Close every connection and the port; TimeoutError when a step's function holds the server longer.

        Closing again does nothing, so it may come before the end of the `with` block.
        """
        if self._thread is None:
            return
        if not self._closing:
            self._closing = True
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"still running after {timeout} s: does the function of a step block?")
        error, self._error = self._error, None
        if error is not None:
            raise error

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`, without a path."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """Every request whose headers were read, in that order."""
        with self._changed:
            return tuple(self._requests)

    @property
    def connections(self) -> int:
        """How many TCP connections it has accepted in all."""
        with self._changed:
            return self._accepted

    @property
    def open_connections(self) -> int:
        """How many of them are open."""
        with self._changed:
            return len(self._connections)

    def wait_for_requests(self, count: int, *, timeout: float = 10.0) -> None:
        """Wait until there are that many `requests`, counted from the start."""
        self.wait_until(lambda: len(self._requests) >= count, timeout=timeout)

    def wait_for_idle(self, *, timeout: float = 10.0) -> None:
        """Wait until every request recorded so far is finished; their connections may stay open."""
        self.wait_until(lambda: self._unfinished == 0, timeout=timeout)

    def wait_until(self, condition: Callable[[], bool], *, timeout: float = 10.0) -> None:
        """Wait until the condition holds, looked at when a record changes; TimeoutError if not in time.

        `server.wait_until(lambda: server.open_connections == 0)`
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(
                    f"not so after {timeout} s: {len(self._requests)} requests, "
                    f"{self._unfinished} of them unfinished, "
                    f"{len(self._connections)} of {self._accepted} connections open"
                )

    @contextlib.contextmanager
    def _change(self) -> Generator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error

    def _run(self, listener: socket.socket) -> None:
        # The runner cancels what still runs when `_listen` returns: every connection, wherever it waits.
        with listener, asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen(listener))

    async def _listen(self, listener: socket.socket) -> None:
        self._loop.add_reader(listener, self._accept, listener)
        await self._stopping.wait()
        self._loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with self._change():
            self._accepted += 1
            connection = Connection(sock, number=self._accepted, loop=self._loop)
            task = self._loop.create_task(self._converse(connection))
            self._connections[task] = connection
        task.add_done_callback(self._hang_up)

    def _hang_up(self, task: asyncio.Task[None]) -> None:
        """Close here rather than in the task, which may be cancelled before its first step."""
        with self._change():
            self._connections.pop(task).close()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _converse(self, connection: Connection) -> None:
        """Serve one request after another until either side ends the connection."""
        try:
            while await connection.readable() and await self._exchange(connection, next(self._script)):
                pass
        except ConnectionError:
            pass
        except BadRequestError as error:
            self._fail(error)
            with contextlib.suppress(ConnectionError):
                await self._send(connection, _failure(400, error).wire("GET"))

    async def _exchange(self, connection: Connection, step: Step) -> bool:
        """Read a request and do what the step says; True when another may follow on this connection."""
        reads = step.reads if isinstance(step, Wire) else "all"
        if reads == "nothing":
            return False
        request = await connection.read_head(keep_body=self._keep_body)
        with self._change():
            self._requests.append(request)
            self._unfinished += 1

        def feed(piece: bytes) -> None:
            with self._change():
                request.feed(piece)

        try:
            at_most = sys.maxsize if reads == "all" else reads
            complete = await connection.read_body(request.headers, feed, at_most=at_most)
            with self._change():
                request.complete = complete
            wire = self._decide(step, request)
            await self._send(connection, wire)
        except ConnectionError:
            request.client_closed_early = True
            raise
        finally:
            with self._change():
                request.finished = True
                self._unfinished -= 1
        return wire.end == "keep" and request.headers.get("connection", "").lower() != "close"

    def _decide(self, step: Step, request: ReceivedRequest) -> Wire:
        try:
            while True:
                step = as_step(step)
                if isinstance(step, Wire):
                    return step
                if isinstance(step, Answer):
                    return step.wire(request.method)
                step = step(request)
        except Exception as error:  # noqa: BLE001  # it is the test's own, and raised when the server closes
            self._fail(error)
            return _failure(500, error).wire(request.method)

    async def _send(self, connection: Connection, wire: Wire) -> None:
        await connection.pause(wire.delay)
        for at, piece in enumerate(wire.pieces):
            if at:
                await connection.pause(wire.interval)
            await connection.send(piece)
        if wire.end == "stall":
            await connection.pause(None)
        elif wire.end == "reset":
            connection.reset()


def _failure(status: int, error: Exception) -> Answer:
    return Answer(status=status, body=repr(error).encode(), close=True)
