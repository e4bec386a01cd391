"""What README and docs claim in tables about behaviour, row by row tried out."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import anyio
import httpx
import pytest

from aragora_transport import (
    CircuitOpenError,
    DeadlineExceededError,
    Policy,
    RetryPolicy,
    resilient,
)
from aragora_transport.layers import RetryTransport
from aragora_transport.testing import Hang, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
URL = "http://platform.test/"
PATIENT = httpx.Timeout(None)  # so that our limits decide
TOLD = Reply(status=429, headers={"retry-after": "7"})
TOLD_TOO_LONG = Reply(status=429, headers={"retry-after": "61"})


def rows_below(page, heading):
    """The rows of the first table below a heading, the header's among them."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)[0]
    header, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines())
    return [header, *rows]


class Calls:
    """A stack as `resilient("my-api")` makes it, over a scripted network."""

    def __init__(self, *steps, **keywords):
        self.clock = ManualClock()
        self.network = ScriptedTransport(*steps, clock=self.clock)
        self.stack = resilient("my-api", self.network, clock=self.clock, **keywords)

    async def call(self, method="GET"):
        async with httpx.AsyncClient(transport=self.stack, trust_env=False) as client:
            return await client.request(method, URL)

    @property
    def failures(self):
        return self.stack.circuits()["my-api"]["failures"]


async def a_429():
    calls = Calls(TOLD, 200)
    assert (await calls.call("POST")).status_code == 200
    assert calls.network.sent[1].at >= 7.0
    calls = Calls(TOLD, 200)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(calls.call)
    assert [one.at >= 7.0 for one in calls.network.sent] == [False] + [True] * 5
    calls = Calls(TOLD_TOO_LONG, 200)
    assert (await calls.call()).status_code == 429
    assert calls.clock.monotonic() == 0.0


async def a_500():
    spared = Policy(retry=RetryPolicy(resend_unsafe="unprocessed"))
    for status in (500, 502, 504):
        calls = Calls(status, 200)
        assert (await calls.call("POST")).status_code == 200
        calls = Calls(status, 200, policy=spared)
        assert (await calls.call("POST")).status_code == status


async def a_503():
    calls = Calls(503, 503, 200)
    assert (await calls.call("POST")).status_code == 200
    first, second, third = (one.at for one in calls.network.sent)
    assert 1.0 <= second - first <= 1.1
    assert 2.0 <= third - second <= 2.2
    calls = Calls(503)
    assert (await calls.call()).status_code == 503
    assert len(calls.network.sent) == 3


async def a_timeout_on_post():
    calls = Calls(Hang())
    with pytest.raises(httpx.ReadTimeout):
        await calls.call("POST")
    assert len(calls.network.sent) == 1


async def a_refused_connection_on_post():
    assert (await Calls(httpx.ConnectError, httpx.ConnectError, 201).call("POST")).status_code == 201
    calls = Calls(httpx.ConnectError)
    with pytest.raises(httpx.ConnectError):
        await calls.call("POST")
    assert len(calls.network.sent) == 3


async def an_open_circuit():
    calls = Calls(*[503] * 5, 200)
    for _ in range(2):
        assert (await calls.call()).status_code == 503
    opened = calls.clock.monotonic()
    for wait in (0.0, 59.9):
        calls.clock.advance(wait)
        with pytest.raises(CircuitOpenError) as refused:
            await calls.call()
        assert isinstance(refused.value, httpx.TransportError)
    assert len(calls.network.sent) == 5
    calls.clock.advance(opened + 60.0 - calls.clock.monotonic())
    assert (await calls.call()).status_code == 200
    assert len(calls.network.sent) == 6
    assert calls.stack.circuits()["my-api"]["state"] == "closed"


async def a_dead_body():
    calls = Calls(Reply(body=b"x", then=httpx.ReadError))
    with pytest.raises(httpx.ReadError):
        await calls.call()
    assert (len(calls.network.sent), calls.failures) == (1, 1)
    calls = Calls(Reply(body=b"x", stall=True))
    async with httpx.AsyncClient(transport=calls.stack, timeout=PATIENT, trust_env=False) as client:
        with pytest.raises(DeadlineExceededError):
            await client.get(URL)
    assert (len(calls.network.sent), calls.failures) == (1, 1)


async def a_cancelled_call():
    calls = Calls(Reply(body=b"x", between=1.0, stall=True))
    with anyio.CancelScope() as scope:
        async with (
            httpx.AsyncClient(transport=calls.stack, timeout=PATIENT, trust_env=False) as client,
            client.stream("GET", URL) as answer,
        ):
            async for _ in answer.aiter_raw():
                scope.cancel()
    assert scope.cancelled_caught
    assert calls.network.open_responses == 0
    assert calls.failures == 0


WHEN = {
    "429 with `Retry-After: 7`": a_429,
    "503": a_503,
    "500, 502, 504": a_500,
    "timeout on POST": a_timeout_on_post,
    "connection refused on POST": a_refused_connection_on_post,
    "five failures in 10 s, at least half of what was tried": an_open_circuit,
    "the body dies or stalls": a_dead_body,
    "you cancel": a_cancelled_call,
}


def test_every_row_of_what_happens_when_is_tried_out():
    _, *rows = rows_below("README.md", "## What happens when")
    assert [row[0] for row in rows] == list(WHEN)


@pytest.mark.parametrize("try_it", WHEN.values(), ids=lambda tried: tried.__name__)
async def test_what_happens_when(try_it):
    await try_it()


def tls_failure(request):
    error = httpx.ConnectError("certificate verify failed", request=request)
    error.__cause__ = ssl.SSLCertVerificationError()
    return error


OUTCOMES = {
    "429, 503": [429, 503],
    "500, 502, 504": [500, 502, 504],
    "an error before anything was sent": [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout],
    "an error after something was sent, a timeout too": [
        *(httpx.ReadTimeout, httpx.WriteTimeout, httpx.ReadError),
        *(httpx.WriteError, httpx.RemoteProtocolError),
    ],
    "other 4xx, 501, 505": [400, 401, 403, 404, 409, 422, 451, 501, 505],
    "TLS verification failed, unsupported scheme, broken request": [
        *(tls_failure, httpx.UnsupportedProtocol, httpx.LocalProtocolError),
    ],
}


async def is_sent_again(step, method, resend_unsafe):
    clock = ManualClock()
    network = ScriptedTransport(step, 200, clock=clock)
    policy = RetryPolicy(resend_unsafe=resend_unsafe)
    transport = RetryTransport(network, policy=policy, clock=clock)
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        try:
            await client.request(method, URL)
        except httpx.TransportError:
            pass
    return len(network.sent) == 2


async def test_the_table_of_what_is_sent_again():
    header, *rows = rows_below("docs/layers/retry.md", "### What is sent again")
    assert [row[0] for row in rows] == list(OUTCOMES)
    assert [re.findall(r'`"(.*?)"`', cell) for cell in header] == [
        *([], [], ["statuses"], ["unprocessed"], ["always"]),
    ]
    idempotent = re.findall(r"[A-Z]{3,}", header[1])
    unsafe = re.findall(r"[A-Z]{3,}", header[2])
    assert (len(idempotent), unsafe) == (6, ["POST", "PATCH"])
    for outcome, *cells in rows:
        modes = ["statuses", "statuses", "unprocessed", "always"]
        for methods, mode, cell in zip([idempotent, *[unsafe] * 3], modes, cells, strict=True):
            for step in OUTCOMES[outcome]:
                again = {await is_sent_again(step, method, mode) for method in methods}
                assert again == {cell == "yes"}, (outcome, step, methods, mode)


def test_where_the_two_policies_differ():
    _, *rows = rows_below("docs/tutorial.md", "## Choose a policy")
    guide, advised = Policy(), Policy.recommended()
    low = advised.breaker.cooldown
    high = low * (1 + advised.breaker.cooldown_jitter)
    assert [row[:3] for row in rows] == [
        ["attempts", f"{guide.retry.max_attempts}", f"{advised.retry.max_attempts}"],
        ["jitter", "10 %", advised.retry.jitter],
        ["whole call", "no limit of its own", f"{advised.timeout.total:g} s"],
        [
            "circuit opens",
            f"at {guide.breaker.failure_threshold} failures and half of the last {guide.breaker.window:g} s",
            f"at {advised.breaker.failure_rate:.0%} of the last {advised.breaker.window:g} s, or of the last "
            f"{advised.breaker.min_attempts} attempts".replace("%", " %"),
        ],
        ["circuit is open for", f"{guide.breaker.cooldown:g} s", f"{low:g} to {high:g} s"],
    ]
    assert (guide.retry.jitter, guide.timeout.total, guide.breaker.failure_rate) == ("guide", None, 0.5)
