"""What every connector must keep to, as tests that its author gets by a subclass."""

from __future__ import annotations

import functools
import gzip
import itertools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import anyio
import anyio.lowlevel
import httpx

from aragora_transport.testing._manual_clock import ManualClock
from aragora_transport.testing._scripted import Hang, Reply, ScriptedTransport, Step

_RETRY_AFTER = 7.0  # seconds
_JSON = {"content-type": "application/json"}
ODD_BODIES = (
    *(b"", b"null", b"true", b"7", b'"text"', b"[]", b"{}", b"[[]]", b'{"ok": "yes"}', b'{"ok": true}'),
    *(
        b'{"ok": false}',
        b'{"ok": false, "error": 7, "parameters": []}',
        b'{"error": {"code": [], "message": {}}}',
    ),
    *(
        b'{"code": {}, "message": [], "retry_after": "soon"}',
        b'{"retry_after": NaN, "parameters": {"retry_after": -1}}',
    ),
    *(b'{"trunc', b"<html>Bad Gateway</html>", b"\xff\xfe\x00", b"[" * 100_000, b"9" * 5000, b"x" * 200_000),
)
_STATUSES = (
    *(200, 201, 202, 204, 206, 301, 302, 304, 400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412),
    *(413, 415, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505),
    *(507, 508, 509, 511, 520, 524, 529, 599),
)
_LOST = (httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError)


@functools.cache
def _bomb() -> bytes:
    """Little that becomes very much: 40 MiB of nothing, compressed."""
    return gzip.compress(bytes(40 << 20))


class _Logs(logging.Handler):
    """All that anybody logs, with its fields."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(f"{record.getMessage()} {vars(record)}")


class ConnectorContract:
    """The tests of the error handling guide and some more, for a connector of yours.

        class TestMyConnector(ConnectorContract):
            good = Reply(body=b'{"id": 1}')
            secrets = ("the-token",)

            def connector(self, **keywords):
                return MyConnector("the-token", **keywords)

    Its methods are plain tests, for pytest as for unittest; nothing in them waits in real time.

    `good`: an answer that makes `send()` a success. `secrets`: what must not be seen anywhere.
    `resend_unsafe`: what of a send is sent again, as in `RetryPolicy`; "always" where the platform has a
        handle that makes it harmless. "statuses" for one that sends by the guide's `_http_request`.
    `limited`: an answer that asks to wait seven seconds. `odd_bodies`: what an answer may hold as well.
    `backend`: the event loop that all runs in.
    """

    good: Reply = Reply(body=b"{}", headers=_JSON)
    limited: Reply = Reply(status=429, headers={"Retry-After": f"{_RETRY_AFTER:g}"})
    secrets: tuple[str, ...] = ()
    odd_bodies: tuple[bytes, ...] = ODD_BODIES
    backend: Literal["asyncio", "trio"] = "asyncio"
    resend_unsafe: Literal["unprocessed", "statuses", "always"] = "unprocessed"

    def connector(self, **keywords: Any) -> Any:
        """The connector, made with `keywords`: `transport`, `clock` and the guide's four options."""
        raise NotImplementedError(f"{type(self).__name__} must say how its connector is made: {keywords}")

    async def send(self, connector: Any) -> Any:
        """The send that is tried; its result has `success` and `error`."""
        return await connector.send_message("1", "hello")

    # --- the guide's five ---

    def test_retry_on_transient_error(self) -> None:
        """A 503 is sent again, with eventual success."""

        async def run() -> None:
            sent, result = await self._send(503, 503, self.good)
            assert result.success, result
            assert len(sent) == 3
            assert len({one.body for one in sent}) == 1, "an attempt was not sent as the first one was"
            waits = [later.at - earlier.at for earlier, later in itertools.pairwise(sent)]
            assert all(wait >= at_least for wait, at_least in zip(waits, (1.0, 2.0), strict=True)), waits

        anyio.run(run, backend=self.backend)

    def test_circuit_breaker_opens(self) -> None:
        """The circuit opens after its threshold, and what follows is refused without sending."""

        async def run() -> None:
            network, clock = self._network(503)
            async with self.connector(
                transport=network, clock=clock, circuit_breaker_threshold=2
            ) as connector:
                await self._failed(connector)
                before = len(network.sent)
                assert before == 2, "an open circuit ends the retries"
                await self._failed(connector)
                assert len(network.sent) == before

        anyio.run(run, backend=self.backend)

    def test_circuit_breaker_recovery(self) -> None:
        """After the cooldown one probe that works closes the circuit."""

        async def run() -> None:
            network, clock = self._network(503, 503, self.good)
            options = {"circuit_breaker_threshold": 2, "circuit_breaker_cooldown": 20.0}
            async with self.connector(transport=network, clock=clock, **options) as connector:
                await self._failed(connector)
                await self._failed(connector)
                clock.advance(20.0)
                for _ in range(2):
                    assert (await self.send(connector)).success

        anyio.run(run, backend=self.backend)

    def test_timeout_handling(self) -> None:
        """Silence ends after `request_timeout`, as a failure and not as an error."""

        async def run() -> None:
            network, clock = self._network(Hang())
            async with self.connector(transport=network, clock=clock, request_timeout=4.0) as connector:
                await self._failed(connector)
                assert network.sent[0].at + 4.0 <= clock.monotonic() <= 30.0

        anyio.run(run, backend=self.backend)

    def test_rate_limit_backoff(self) -> None:
        """After a 429 nothing is sent before the told time, and the circuit stays closed."""

        async def run() -> None:
            network, clock = self._network(self.limited, self.good)
            async with self.connector(
                transport=network, clock=clock, circuit_breaker_threshold=1
            ) as connector:
                assert (await self.send(connector)).success
                first, second = network.sent
                assert _RETRY_AFTER <= second.at - first.at <= _RETRY_AFTER * 1.5

        anyio.run(run, backend=self.backend)

    # --- and more ---

    def test_whatever_comes_back_it_does_not_raise(self) -> None:
        """Any status with any body, and every way to fail, ends as a result."""

        async def run() -> None:
            bodies = itertools.cycle(self.odd_bodies)
            steps: list[Step] = [
                Reply(status=status, body=next(bodies), headers=_JSON) for status in _STATUSES
            ]
            steps += [Reply(body=body, headers=_JSON) for body in self.odd_bodies]
            steps += [Reply(status=400, body=body, headers=_JSON) for body in self.odd_bodies]
            steps += [
                Reply(body=b"not gzip", headers={"content-encoding": "gzip"}),
                Reply(body=_bomb(), headers={"content-encoding": "gzip"}),
                Reply(body=b"x", headers={"content-type": "text/plain; charset=base64"}),
                Reply(status=302, headers={"location": "http://[odd"}),
                Reply(body=b"{", then=httpx.ReadError),
                Reply(body=b"{", stall=True),
                *(httpx.ConnectError, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError),
                *_LOST,
            ]
            for step in steps:
                sent, result = await self._send(step, circuit_breaker_threshold=1000)
                assert isinstance(result.success, bool), step
                assert result.error is None or isinstance(result.error, str), step
                assert all(one.status is None or one.closed for one in sent), f"left open: {step}"

        anyio.run(run, backend=self.backend)

    def test_a_send_that_may_have_arrived_is_not_repeated(self) -> None:
        """Unless the platform is told by a handle in it that both are one."""

        async def run() -> None:
            lost: tuple[Step, ...] = _LOST
            if self.resend_unsafe == "unprocessed":
                lost = (*lost, 500, 502, 504)
            for step in lost:
                sent, _ = await self._send(step, self.good)
                if self.resend_unsafe == "always":
                    assert len(sent) == 2, f"{step}: it could have been sent again"
                    assert len({one.body for one in sent}) == 1, "the handle must stay the same"
                else:
                    assert len(sent) == 1, f"{step}: what was sent may have arrived twice"

        anyio.run(run, backend=self.backend)

    def test_secrets_are_seen_nowhere(self) -> None:
        """Not in results, nor in `repr`, nor in what anybody logs."""

        async def run() -> None:
            for step in (self.good, 400, 401, 404, self.limited, 503, *_LOST, self._echo):
                network, clock = self._network(step)
                async with self.connector(transport=network, clock=clock) as connector:
                    result = await self.send(connector)
                    shown = [repr(result), repr(connector), repr(connector.__dict__)]
                for text in (*shown, *logs.seen):
                    assert not any(secret in text for secret in self.secrets), f"{step}: a secret in {text!r}"

        logs = _Logs()
        root = logging.getLogger()
        level = root.level
        root.addHandler(logs)
        root.setLevel(logging.DEBUG)
        try:
            anyio.run(run, backend=self.backend)
        finally:
            root.removeHandler(logs)
            root.setLevel(level)
        assert logs.seen, "nothing was logged: is the log layer switched off?"

    def test_a_cancelled_call_leaves_nothing_behind(self) -> None:
        """Cancelled at any point, it closes what is open, and the connector goes on working."""

        async def run() -> None:
            for step in (Hang(), 503, self.limited, Reply(body=b"{", stall=True)):
                network, clock = self._network(step, self.good, auto=False)
                async with self.connector(transport=network, clock=clock) as connector:
                    await self._cancelled(self.send, connector, network)
                    assert network.open_responses == 0, step
                    clock.advance(100.0)
                    assert (await self.send(connector)).success, step

        anyio.run(run, backend=self.backend)

    def test_it_closes_its_transport_once_or_more(self) -> None:
        """With `async with`, and without."""

        async def run() -> None:
            network, clock = self._network(self.good)
            connector = self.connector(transport=network, clock=clock)
            assert (await self.send(connector)).success
            async with connector:
                assert (await self.send(connector)).success
            await connector.aclose()
            assert network.closed >= 1

        anyio.run(run, backend=self.backend)

    # --- what they are made of ---

    def _network(self, *steps: Step, auto: bool = True) -> tuple[ScriptedTransport, ManualClock]:
        clock = ManualClock(auto=auto)
        return ScriptedTransport(*steps, clock=clock), clock

    async def _send(self, *steps: Step, **options: Any) -> tuple[list[Any], Any]:
        network, clock = self._network(*steps)
        async with self.connector(transport=network, clock=clock, **options) as connector:
            return network.sent, await self.send(connector)

    async def _failed(self, connector: Any) -> None:
        result = await self.send(connector)
        assert not result.success, result
        assert result.error, result

    def _echo(self, request: Any) -> Reply:
        """A platform that repeats what it was sent."""
        told = f"{request.url} {request.headers}".replace("\\", "").replace('"', "'")
        body = f'{{"ok": false, "description": "{told}", "message": "{told}", "error": "{told}"}}'
        return Reply(status=400, body=body.encode(), headers=_JSON)

    @staticmethod
    async def _cancelled(
        send: Callable[[Any], Coroutine[Any, Any, Any]], connector: Any, network: ScriptedTransport
    ) -> None:
        ended: list[Any] = []

        async def task() -> None:
            ended.append(await send(connector))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
            for _ in range(100):  # long enough to get where it waits
                await anyio.lowlevel.checkpoint()
            assert network.sent, "it sent nothing"
            tasks.cancel_scope.cancel()
        assert not ended, f"it was over before it was cancelled: {ended}"
