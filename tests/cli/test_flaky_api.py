"""The demo's server, without its process: its schedule, its luck, and what it says on a socket."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import httpx
import pytest

from aragora_transport.cli import _flaky_api as flaky
from aragora_transport.cli._flaky_api import PHASES, FlakyApi, Limiter, Listener, Request, phase_at


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the server is asyncio's


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def begin_of(kind: str, seconds: float) -> float:
    shares = [phase.share for phase in PHASES]
    return seconds * sum(shares[: [phase.kind for phase in PHASES].index(kind)]) + 0.001


def api_in(kind: str, *, seconds: float = 100.0, rate: float = 40.0) -> tuple[FlakyApi, Hand]:
    clock = Hand()
    api = FlakyApi(seconds=seconds, rate=rate, seed=1, clock=clock)
    api.start()
    clock.now += begin_of(kind, seconds)
    return api, clock


def test_the_phases_fill_the_run() -> None:
    assert sum(phase.share for phase in PHASES) == pytest.approx(1.0)
    seen = [phase_at(elapsed / 10, 20.0)[0] for elapsed in range(220)]
    assert seen == sorted(seen)
    assert set(seen) == set(range(len(PHASES)))
    assert phase_at(0.0, 20.0) == (0, 0.0)
    assert phase_at(99.0, 20.0) == (len(PHASES) - 1, 1.0)


def test_both_lanes_meet_the_same_luck_and_another_attempt_meets_another() -> None:
    api, _ = api_in("flaky")
    bare, ours = api.lanes["bare"], api.lanes["ours"]
    requests = [Request("GET", call) for call in range(300)]
    first = [api.receive(bare, request) for request in requests]
    for request in reversed(requests):  # the order they come in changes nothing
        assert api.receive(ours, request) == first[request.call]
    second = [api.receive(bare, request) for request in requests]
    assert second != first
    failed = Counter(fate for fate, _ in first)
    assert failed["503"] / 300 == pytest.approx(flaky.FLAKY_SHARE, abs=0.08)


def test_an_outage_serves_nobody_and_recovery_everybody() -> None:
    api, _ = api_in("outage")
    fates = {api.receive(api.lanes["ours"], Request("GET", call))[0] for call in range(100)}
    assert fates == {"503", "drop", "serve and drop"}
    api, _ = api_in("recovered")
    assert {api.receive(api.lanes["ours"], Request("GET", call))[0] for call in range(100)} == {"serve"}


def test_the_api_is_healthy_before_it_is_started() -> None:
    api = FlakyApi(seconds=2.0, rate=30.0, seed=1)
    assert api.receive(api.lanes["bare"], Request("GET", 1))[0] == "serve"


def test_a_post_carried_out_twice_is_told() -> None:
    api, _ = api_in("healthy")
    lane = api.lanes["ours"]
    for request in (Request("POST", 1), Request("POST", 1), Request("GET", 2), Request("GET", 2)):
        api.receive(lane, request)
    assert lane.report()["posts_repeated"] == 1


def test_the_limiter_allows_so_many_in_any_second() -> None:
    limiter = Limiter()
    luck = Random(1)
    allowed: list[float] = []
    now = 0.0
    for _ in range(2000):
        now += luck.expovariate(40.0)
        if limiter.allows(now, 10):
            allowed.append(now)
    assert all(later - first > 1.0 for first, later in zip(allowed, allowed[10:], strict=False))
    assert len(allowed) == pytest.approx(10 * now, rel=0.1)


def test_the_limited_phase_refuses_what_is_above_its_quota_and_then_allows_more() -> None:
    api, clock = api_in("limited")
    lane = api.lanes["bare"]
    fates = Counter(api.receive(lane, Request("GET", call))[0] for call in range(40))
    assert fates == {"serve": 20, "429": 20}
    clock.now += 0.6 * 100.0 * next(phase.share for phase in PHASES if phase.kind == "limited")
    assert {api.receive(lane, Request("GET", call))[0] for call in range(40)} == {"serve"}


@asynccontextmanager
async def served(kind: str) -> AsyncIterator[httpx.AsyncClient]:
    api, _ = api_in(kind, rate=10.0)
    listener = Listener(api, api.lanes["bare"])
    port = await listener.open()
    network = httpx.AsyncHTTPTransport(trust_env=False)
    async with httpx.AsyncClient(
        transport=network, base_url=f"http://127.0.0.1:{port}", timeout=0.2, trust_env=False
    ) as client:
        yield client
        await listener.close()


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with served("healthy") as client:
        for call, method in enumerate(("GET", "POST", "GET")):
            response = await client.request(method, f"/items/{call}", json={"id": call})
            assert response.json()["id"] == call
        assert len(client._transport._pool.connections) == 1


async def test_a_429_tells_how_long_to_wait() -> None:
    async with served("limited") as client:
        responses = [await client.get(f"/items/{call}") for call in range(6)]
    assert [response.status_code for response in responses] == [200] * 5 + [429]
    assert responses[-1].headers["Retry-After"] == "1"
    assert responses[-1].json() == {"error": "slow down"}


async def test_an_outage_answers_503_or_hangs_up() -> None:
    outcomes: Counter[str] = Counter()
    async with served("outage") as client:
        for call in range(20):
            try:
                outcomes[str((await client.get(f"/items/{call}")).status_code)] += 1
            except httpx.RemoteProtocolError:
                outcomes["dropped"] += 1
    assert set(outcomes) == {"503", "dropped"}


async def test_a_stalled_body_stops_half_way() -> None:
    stalled = 0
    async with served("stalled") as client:
        for call in range(6):
            try:
                await client.get(f"/items/{call}")
            except httpx.ReadTimeout:
                stalled += 1
    assert 0 < stalled < 6


@pytest.mark.parametrize(
    "nonsense",
    [
        b"hello\r\n\r\n",
        b"GET /items/one HTTP/1.1\r\n\r\n",
        b"POST /items/1 HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"POST /items/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /items/1 HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf",
        b"x" * 100_000,
        b"",
    ],
)
async def test_what_is_no_request_is_hung_up_on(nonsense: bytes) -> None:
    api, _ = api_in("healthy")
    listener = Listener(api, api.lanes["bare"])
    reader, writer = await asyncio.open_connection("127.0.0.1", await listener.open())
    writer.write(nonsense)
    writer.write_eof()
    with suppress(ConnectionResetError):  # it may hang up with bytes of ours unread
        assert await reader.read() == b""
    writer.close()
    await listener.close()
    assert sum(api.lanes["bare"].sends) == 0


def test_the_bytes_of_an_answer_are_as_long_as_they_say() -> None:
    for fate in ("serve", "503", "429"):
        head, _, body = flaky.answer(fate, Request("GET", 7)).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert json.loads(body)
