"""python-telegram-bot, which sends through httpx, over our transport: given, and around its own client."""

from __future__ import annotations

import contextlib
import datetime as dt
import ssl

import anyio
import httpx
import pytest
import telegram
from telegram.error import BadRequest, Conflict, NetworkError, RetryAfter, TimedOut
from telegram.request import HTTPXRequest

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    DeadlineExceededError,
    Policy,
    RateLimitedError,
    RetryPolicy,
    TimeoutPolicy,
    resilient,
    wrap_client,
)
from aragora_transport.testing import Answer, FaultServer, stalled_body, stalled_headers

pytestmark = pytest.mark.anyio

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # made once: reading certificates takes its time
TOKEN = "123:abc"  # noqa: S105  # of a bot that is nowhere
PHOTO = bytes(range(256)) * 4096  # 1 MiB
MESSAGE = {"message_id": 7, "date": 0, "chat": {"id": 1, "type": "private"}}


def ok(result, **options):
    return Answer.json({"ok": True, "result": result}, **options)


def failed(status, description, **parameters):
    body = {"ok": False, "error_code": status, "description": description, "parameters": parameters}
    wait = {"Retry-After": str(parameters["retry_after"])} if parameters else {}
    return Answer.json(body, status=status, headers=wait)


ANSWERS = {
    "getMe": ok({"id": 123, "is_bot": True, "first_name": "Bot", "username": "bot"}),
    "sendMessage": ok({**MESSAGE, "text": "hello!"}),
    "sendDocument": ok({**MESSAGE, "document": {"file_id": "f", "file_unique_id": "u"}}),
    "getUpdates": ok([{"update_id": 5}], delay=0.4),
    "getFile": ok({"file_id": "f", "file_unique_id": "u", "file_path": "photo.jpg"}),
    "photo.jpg": Answer(body=tuple(PHOTO[at : at + 65536] for at in range(0, len(PHOTO), 65536))),
}


def api(request):
    """As much of the Bot API as is called here."""
    return ANSWERS.get(request.path.rpartition("/")[2], 404)


class Sdk:
    """A bot over ours, in one of the ways in which that can be."""

    def __init__(self, way, tools):
        self.way = way
        self.tools = tools
        self.events = []

    @contextlib.asynccontextmanager
    async def bot(self, server, *, read_timeout=5.0, **policy):
        """A bot with a pool for one connection, all of which must be free afterwards."""
        policy = Policy(**{"retry": RetryPolicy(base_delay=0.01), **policy})
        if self.way == "given":
            self.network = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1), verify=NO_TLS)
            stack = resilient("telegram", self.network, policy=policy, on_event=self.events.append)
            request = HTTPXRequest(read_timeout=read_timeout, httpx_kwargs={"transport": stack})
        else:
            request = HTTPXRequest(connection_pool_size=1, read_timeout=read_timeout)
            self.network = request._client._transport
            wrap_client(request._client, "telegram", policy=policy, on_event=self.events.append)
        bot = telegram.Bot(
            TOKEN,
            base_url=f"{server.url}/bot",
            base_file_url=f"{server.url}/file/bot",
            request=request,
            get_updates_request=request,
        )
        try:
            yield bot
            assert self.tools.taken(self.network) == []
        finally:
            await request.shutdown()


@pytest.fixture(params=["given", "wrapped"])
def sdk(request, tools):
    """Ours as the transport of the bot's client, or around that which the bot made."""
    return Sdk(request.param, tools)


async def test_a_call(sdk):
    with FaultServer(api) as server:
        async with sdk.bot(server) as bot:
            assert (await bot.get_me()).username == "bot"
    assert len(server.requests) == 1


async def test_a_503_is_survived_on_one_connection(sdk):
    with FaultServer(503, failed(502, "Bad Gateway"), then=api) as server:
        async with sdk.bot(server) as bot:
            assert (await bot.send_message(1, "hello!")).text == "hello!"
    first, *others = server.requests
    assert [other.body for other in others] == [first.body] * 2
    assert server.connections == 1


async def test_what_stays_503_is_the_bots_own_error(sdk):
    with FaultServer(failed(503, "try later")) as server:
        async with sdk.bot(server) as bot:
            with pytest.raises(NetworkError, match="try later"):
                await bot.get_me()
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "error"), [(400, BadRequest), (409, Conflict)])
async def test_an_answer_that_would_not_change_is_not_asked_for_again(sdk, status, error):
    with FaultServer(failed(status, "no")) as server:
        async with sdk.bot(server) as bot:
            with pytest.raises(error):
                await bot.get_me()
    assert len(server.requests) == 1


async def test_a_wait_longer_than_the_cap_is_the_bots_own_error_and_later_calls_are_not_sent(
    sdk, monkeypatch
):
    monkeypatch.setenv("PTB_TIMEDELTA", "1")  # its way of reading the wait without a deprecation
    with FaultServer(failed(429, "Too Many Requests", retry_after=3600), then=api) as server:
        async with sdk.bot(server) as bot:
            with pytest.raises(RetryAfter) as told:
                await bot.get_me()
            with pytest.raises(NetworkError) as refused:
                await bot.get_me()
    assert told.value.retry_after == dt.timedelta(hours=1)
    assert isinstance(refused.value.__cause__, RateLimitedError)
    assert len(server.requests) == 1


async def test_a_short_wait_is_kept_and_the_bot_hears_nothing_of_it(sdk):
    with FaultServer(Answer(status=429, headers={"Retry-After": "0.05"}), then=api) as server:
        async with sdk.bot(server) as bot:
            assert (await bot.get_me()).username == "bot"
    first, second = server.requests
    assert second.arrived - first.arrived >= 0.05


async def test_a_file_comes_down_in_chunks(sdk):
    with FaultServer(api) as server:
        async with sdk.bot(server) as bot:
            file = await bot.get_file("f")
            assert bytes(await file.download_as_bytearray()) == PHOTO
    assert server.connections == 1


async def test_a_file_that_stops_coming_is_the_bots_timeout(sdk):
    with FaultServer(api, stalled_body(), api) as server:
        async with sdk.bot(server, timeout=TimeoutPolicy(body_idle=0.1)) as bot:
            file = await bot.get_file("f")
            with pytest.raises(TimedOut):
                await file.download_as_bytearray()
            assert bytes(await file.download_as_bytearray()) == PHOTO


async def test_an_upload_is_sent_again_byte_for_byte(sdk):
    with FaultServer(503, then=api) as server:
        async with sdk.bot(server) as bot:
            assert (await bot.send_document(1, PHOTO, filename="photo.jpg")).message_id == 7
    first, second = (request.body_sha256 for request in server.requests)
    assert server.requests[0].headers["content-type"].startswith("multipart/form-data")
    assert server.requests[0].body_size > len(PHOTO)
    assert first == second


async def test_a_timeout_of_ours_is_the_bots_timeout_and_the_post_is_not_sent_twice(sdk):
    with FaultServer(stalled_headers(), then=api) as server:
        async with sdk.bot(server, timeout=TimeoutPolicy(attempt=0.1)) as bot:
            with pytest.raises(TimedOut) as caught:
                await bot.send_message(1, "hello!")
            assert isinstance(caught.value.__cause__, DeadlineExceededError)
            assert len(server.requests) == 1
            assert (await bot.get_me()).username == "bot"


async def test_a_timeout_of_the_bots_own_stays_one(sdk):
    with FaultServer(stalled_headers(), then=api) as server:
        async with sdk.bot(server, read_timeout=0.1) as bot:
            with pytest.raises(TimedOut) as caught:
                await bot.get_me()
            assert type(caught.value.__cause__) is httpx.ReadTimeout
            assert (await bot.get_me()).username == "bot"


async def test_a_long_poll_may_take_longer_than_an_attempt(sdk):
    with FaultServer(api) as server:
        async with sdk.bot(server, timeout=TimeoutPolicy(attempt=0.1, body_idle=0.1)) as bot:
            (update,) = await bot.get_updates(timeout=10)
    assert update.update_id == 5
    assert len(server.requests) == 1


async def test_an_open_circuit_is_the_bots_network_error(sdk):
    with FaultServer(503) as server:
        async with sdk.bot(server, retry=None, breaker=BreakerPolicy(failure_threshold=2)) as bot:
            for _ in range(2):
                with pytest.raises(NetworkError, match="503"):
                    await bot.get_me()
            with pytest.raises(NetworkError, match="circuit open after 2 failures") as caught:
                await bot.get_me()
    assert isinstance(caught.value.__cause__, CircuitOpenError)
    assert len(server.requests) == 2


async def test_nobody_listening_is_tried_again_and_is_the_bots_network_error(sdk):
    with FaultServer() as server:
        pass
    async with sdk.bot(server) as bot:
        with pytest.raises(NetworkError) as caught:
            await bot.get_me()
    assert type(caught.value.__cause__) is httpx.ConnectError
    assert [event.attempt for event in sdk.events if hasattr(event, "told")] == [1, 2]


@pytest.mark.parametrize("stage", ["flight", "body", "backoff", "queue"])
async def test_a_cancelled_call_leaves_nothing_behind(sdk, tools, stage):
    fault = {"body": stalled_body(), "backoff": Answer(status=503)}.get(stage, stalled_headers())
    with FaultServer(fault, then=api) as server:
        async with sdk.bot(server, retry=RetryPolicy(base_delay=1000.0, max_delay=1000.0)) as bot:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bot.get_me)
                await tools.arrived(server, 1)
                if stage == "backoff":
                    # The call sleeps, and holds no connection meanwhile.
                    await tools.until(lambda: not tools.taken(sdk.network))
                    assert sdk.events[-1].wait >= 1000.0
                elif stage == "queue":
                    tasks.start_soon(bot.get_me)
                    await tools.until(lambda: len(sdk.network._pool._requests) == 2)
                tasks.cancel_scope.cancel()
            assert tools.taken(sdk.network) == []
            assert (await bot.get_me()).username == "bot"
    assert len(server.requests) == 2


async def test_a_bot_that_is_opened_again_still_sends_through_ours(tools):
    network = httpx.AsyncHTTPTransport()
    request = HTTPXRequest(httpx_kwargs={"transport": resilient("telegram", network)})
    with FaultServer(api) as server:
        bot = telegram.Bot(TOKEN, base_url=f"{server.url}/bot", request=request)
        for _ in range(2):
            await request.initialize()
            assert (await bot.get_me()).username == "bot"
            await request.shutdown()
    assert network._pool.connections == []
