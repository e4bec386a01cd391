"""The openai SDK, which sends through httpx2, over our transports: async and blocking, given and wrapped."""

from __future__ import annotations

import contextlib
import json
import ssl
from typing import Any

import anyio
import httpx2
import openai
import pytest

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    DeadlineExceededError,
    Policy,
    RetryPolicy,
    TimeoutPolicy,
    resilient,
    resilient_sync,
    wrap_client,
)
from aragora_transport.testing import Answer, FaultServer, server_sent_events, stalled_body, stalled_headers

pytestmark = [
    pytest.mark.anyio,
    # The SDK leaves the generators of a stream to the garbage collector, and trio minds.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # made once: reading certificates takes its time
SOON = RetryPolicy(base_delay=0.01)
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello?"}]}


def api(request):
    """As much of the API as is called here."""
    match request.method, request.path:
        case "POST", "/v1/chat/completions" if json.loads(request.body).get("stream"):
            return server_sent_events(*(_chunk(word) for word in ("one", "two", "three")), "[DONE]")
        case "POST", "/v1/chat/completions":
            message = {"role": "assistant", "content": "hello!"}
            return Answer.json(_completion("chat.completion", message=message, finish_reason="stop"))
        case "POST", "/v1/files":
            return Answer.json(
                {
                    "id": "file-1",
                    "object": "file",
                    "bytes": request.body_size,
                    "created_at": 0,
                    "filename": "lines.jsonl",
                    "purpose": "fine-tune",
                    "status": "processed",
                }
            )
    return 404


def _chunk(word):
    return json.dumps(_completion("chat.completion.chunk", delta={"content": word}, finish_reason=None))


def _completion(kind, **choice):
    return {"id": "c1", "object": kind, "created": 0, "model": "m", "choices": [{"index": 0, **choice}]}


class Sdk:
    """An SDK's client over ours, in one of the ways in which that can be."""

    def __init__(self, kind, way, tools):
        self.blocking = kind == "blocking"
        self.way = way
        self.tools = tools
        self.events = []

    @contextlib.asynccontextmanager
    async def client(self, server, **options):
        """A client with a pool for one connection, all of which must be free afterwards."""
        policy = Policy(**{"retry": SOON, **options.pop("policy", {})})
        options = {
            "max_retries": 0,
            "timeout": 5.0,
            **options,
            "api_key": "k",
            "base_url": f"{server.url}/v1",
        }
        make = openai.OpenAI if self.blocking else openai.AsyncOpenAI
        if self.way == "wrapped":
            client = make(**options)
            self.network = client._client._transport
            wrap_client(client._client, "openai", policy=policy, on_event=self.events.append)
        else:
            limits = httpx2.Limits(max_connections=1)
            if self.blocking:
                self.network = httpx2.HTTPTransport(limits=limits, verify=NO_TLS)
                stack = resilient_sync("openai", self.network, policy=policy, on_event=self.events.append)
                client = make(http_client=httpx2.Client(transport=stack), **options)
            else:
                self.network = httpx2.AsyncHTTPTransport(limits=limits, verify=NO_TLS)
                stack = resilient("openai", self.network, policy=policy, on_event=self.events.append)
                client = make(http_client=httpx2.AsyncClient(transport=stack), **options)
        try:
            yield client
            assert self.tools.taken(self.network) == []
        finally:
            await self.tools.result(client.close())

    async def chat(self, client, **options):
        """Ask for a completion."""
        return await self.tools.result(client.chat.completions.create(**ASK, **options))


@pytest.fixture(params=["asyncio", "trio", "blocking"])
def kind(request):
    return request.param


@pytest.fixture(params=["given", "wrapped"])
def sdk(request, kind, tools):
    """Ours as the transport of an httpx2 client given to the SDK, or around that of the SDK's own client."""
    return Sdk(kind, request.param, tools)


only_async = pytest.mark.parametrize("kind", ["asyncio", "trio"], indirect=True)


async def test_a_call(sdk):
    with FaultServer(api) as server:
        async with sdk.client(server) as client:
            answer = await sdk.chat(client)
    assert answer.choices[0].message.content == "hello!"
    assert len(server.requests) == 1


async def test_a_503_is_survived_on_one_connection(sdk):
    with FaultServer(503, 503, then=api) as server:
        async with sdk.client(server) as client:
            answer = await sdk.chat(client)
    assert answer.choices[0].message.content == "hello!"
    first, *others = server.requests
    assert [other.body for other in others] == [first.body] * 2
    assert server.connections == 1


async def test_what_stays_503_is_the_sdks_own_error_with_the_answer(sdk):
    with FaultServer(Answer.json({"error": {"message": "overloaded"}}, status=503)) as server:
        async with sdk.client(server) as client:
            with pytest.raises(openai.InternalServerError, match="overloaded") as caught:
                await sdk.chat(client)
    assert caught.value.status_code == 503
    assert [attempt.status for attempt in caught.value.response.extensions["aragora_transport"].attempts] == [
        503
    ] * 3


async def test_a_400_is_not_sent_again(sdk):
    with FaultServer(400) as server:
        async with sdk.client(server) as client:
            with pytest.raises(openai.BadRequestError):
                await sdk.chat(client)
    assert len(server.requests) == 1


async def test_a_stream_is_read_to_its_end_and_its_connection_kept(sdk, tools):
    with FaultServer(503, then=api) as server:
        async with sdk.client(server) as client:
            for _ in range(2):
                chunks = await tools.items(await sdk.chat(client, stream=True))
                assert [chunk.choices[0].delta.content for chunk in chunks] == ["one", "two", "three"]
    assert len(server.requests) == 3
    # The blocking SDK hangs up at "[DONE]", the other one reads on to the end of the body.
    assert server.connections == (2 if sdk.blocking else 1)
    assert [event.complete for event in sdk.events if hasattr(event, "complete")] == [not sdk.blocking] * 2


async def test_the_first_event_of_a_stream_is_there_before_the_second_is_sent(sdk, tools):
    event = f"data: {_chunk('one')}\n\n".encode()
    with FaultServer(stalled_body(body=event), then=api) as server:
        async with sdk.client(server) as client:
            stream = await sdk.chat(client, stream=True)
            first = await anext(stream) if not sdk.blocking else next(stream)
            assert first.choices[0].delta.content == "one"
            await tools.result(stream.close())
            assert (await sdk.chat(client)).choices[0].message.content == "hello!"


async def test_a_stream_that_stalls_is_the_sdks_timeout(sdk, tools):
    event = f"data: {_chunk('one')}\n\n".encode()
    with FaultServer(stalled_body(body=event), then=api) as server:
        policy = {"timeout": TimeoutPolicy(body_idle=0.1)}
        async with sdk.client(server, policy=policy) as client:
            stream = await sdk.chat(client, stream=True)
            with pytest.raises(openai.APITimeoutError):
                await tools.items(stream)
            assert (await sdk.chat(client)).choices[0].message.content == "hello!"


async def test_an_upload_is_sent_again_byte_for_byte(sdk, tools):
    content = b'{"line": 1}\n' * 20_000
    with FaultServer(503, then=api) as server:
        async with sdk.client(server) as client:
            made = client.files.create(file=("lines.jsonl", content), purpose="fine-tune")
            assert (await tools.result(made)).id == "file-1"
    first, second = server.requests
    assert first.headers["content-type"].startswith("multipart/form-data")
    assert content in first.body
    assert second.body == first.body


async def test_a_timeout_of_ours_is_the_sdks_timeout(sdk):
    with FaultServer(stalled_headers(), then=api) as server:
        async with sdk.client(server, policy={"timeout": TimeoutPolicy(attempt=0.1)}) as client:
            with pytest.raises(openai.APITimeoutError) as caught:
                await sdk.chat(client)
            assert isinstance(caught.value.__cause__, DeadlineExceededError)
            assert (await sdk.chat(client)).choices[0].message.content == "hello!"
    assert len(server.requests) == 2


async def test_a_timeout_of_the_sdks_own_stays_one(sdk):
    with FaultServer(stalled_headers(), then=api) as server:
        async with sdk.client(server) as client:
            with pytest.raises(openai.APITimeoutError) as caught:
                await sdk.chat(client, timeout=0.1)
            assert type(caught.value.__cause__) is httpx2.ReadTimeout
            assert (await sdk.chat(client)).choices[0].message.content == "hello!"


async def test_an_open_circuit_is_the_sdks_connection_error(sdk):
    with FaultServer(503) as server:
        policy = {"retry": None, "breaker": BreakerPolicy(failure_threshold=2)}
        async with sdk.client(server, policy=policy) as client:
            for _ in range(2):
                with pytest.raises(openai.InternalServerError):
                    await sdk.chat(client)
            with pytest.raises(openai.APIConnectionError) as caught:
                await sdk.chat(client)
    assert isinstance(caught.value.__cause__, CircuitOpenError)
    assert isinstance(caught.value.__cause__, httpx2.TransportError)
    assert len(server.requests) == 2


async def test_nobody_listening_is_tried_again_and_is_the_sdks_connection_error(sdk):
    with FaultServer() as server:
        pass
    async with sdk.client(server) as client:
        with pytest.raises(openai.APIConnectionError) as caught:
            await sdk.chat(client)
    assert type(caught.value.__cause__) is httpx2.ConnectError
    assert [event.attempt for event in sdk.events if hasattr(event, "told")] == [1, 2]


def test_a_blocking_transport_of_ones_own_keeps_its_flavour_beside_the_sdk():
    class Own(httpx2.BaseTransport):
        def handle_request(self, request):
            raise httpx2.ConnectError("no route")

    assert httpx2.BaseTransport.__module__ == "openai"  # importing the SDK does that
    assert resilient_sync("own", Own()).describe()["flavor"] == "httpx2"


@pytest.mark.parametrize(("max_retries", "sends"), [(0, 3), (2, 9)])
async def test_retries_of_the_sdks_own_multiply_ours(sdk, max_retries, sends):
    with FaultServer(Answer(status=503, headers={"retry-after-ms": "1"})) as server:
        async with sdk.client(server, max_retries=max_retries, policy={"breaker": None}) as client:
            with pytest.raises(openai.InternalServerError):
                await sdk.chat(client)
    assert len(server.requests) == sends


@only_async
@pytest.mark.parametrize("stage", ["flight", "body", "backoff"])
async def test_a_cancelled_call_leaves_nothing_behind(sdk, tools, stage):
    event = f"data: {_chunk('one')}\n\n".encode()
    fault = {"flight": stalled_headers(), "body": stalled_body(body=event), "backoff": Answer(status=503)}
    policy = {"retry": RetryPolicy(base_delay=1000.0, max_delay=1000.0)}
    with FaultServer(fault[stage], then=api) as server:
        async with sdk.client(server, policy=policy) as client:
            async with anyio.create_task_group() as tasks:
                begun = anyio.Event()

                async def call():
                    stream = await sdk.chat(client, stream=True)
                    async for _ in stream:
                        begun.set()

                tasks.start_soon(call)
                await tools.arrived(server, 1)
                if stage == "body":
                    await begun.wait()
                elif stage == "backoff":
                    # It sleeps, and holds no connection meanwhile.
                    await tools.until(lambda: not tools.taken(sdk.network))
                    assert sdk.events[-1].wait >= 1000.0
                tasks.cancel_scope.cancel()
            assert tools.taken(sdk.network) == []
            assert (await sdk.chat(client)).choices[0].message.content == "hello!"
    assert len(server.requests) == 2
