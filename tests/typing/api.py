"""The public API as a user writes it. Never run: mypy and pyright read it, both strict."""

from __future__ import annotations

import logging
import random
import sys
from typing import Any, assert_type

import httpx
from prometheus_client import CollectorRegistry

from aragora_transport import (
    BreakerPolicy,
    Bucket,
    CircuitOpenError,
    ConnectorResult,
    DeadlineExceededError,
    Judgement,
    Policy,
    Profile,
    RateLimitedError,
    RateLimitPolicy,
    RetryBudget,
    RetryPolicy,
    Secret,
    TimeoutPolicy,
    call_options,
    correlation_id,
    correlation_scope,
    resilient,
    resilient_sync,
    wrap_client,
)
from aragora_transport.connectors import (
    Answer,
    ChatPlatformConnector,
    DiscordConnector,
    SlackConnector,
    TeamsConnector,
    TelegramConnector,
    segment,
)
from aragora_transport.connectors.webhooks import SlackWebhook, WebhookEvent
from aragora_transport.events import (
    AttemptFinished,
    BodyFailed,
    CallFinished,
    CircuitChanged,
    Event,
    RateLimitWaited,
    RetryRefused,
    RetryScheduled,
)
from aragora_transport.layers import (
    BreakerTransport,
    DeadlineTransport,
    LogTransport,
    MetricsTransport,
    RateLimitTransport,
    RetryTransport,
    TimeoutTransport,
    Tracing,
    configure_logging,
)
from aragora_transport.state import State
from aragora_transport.sync import Driven, Driver
from aragora_transport.testing import (
    ConnectorContract,
    Faults,
    FaultTransport,
    Hang,
    ManualClock,
    Reply,
    ScriptedTransport,
    VirtualTime,
)

# ------------------------------------------------------------------------------------ the whole stack

httpx.AsyncClient(transport=resilient("my-api"))
httpx.AsyncClient(
    transport=resilient("my-api", credentials=Secret("token", origin="https://api.example.com"))
)
httpx.AsyncClient(transport=resilient("my-api", httpx.AsyncHTTPTransport(http2=True), policy=Policy()))
httpx.Client(transport=resilient_sync("my-api"))
httpx.Client(transport=resilient_sync("my-api", httpx.HTTPTransport(retries=0), policy=Policy.recommended()))


def observe(event: Event) -> None:
    assert_type(event.platform, str)
    if isinstance(event, RetryScheduled):
        assert_type(event.wait, float)
    elif isinstance(event, CircuitChanged):
        assert_type(event.next_probe_in, float | None)
    elif isinstance(event, AttemptFinished):
        assert_type(event.status, int | None)
    elif isinstance(event, BodyFailed):
        assert_type(event.text, str)
    elif isinstance(event, RetryRefused):
        assert_type(event.wait, float | None)
    elif isinstance(event, RateLimitWaited):
        assert_type(event.refused, bool)
    elif isinstance(event, CallFinished):
        assert_type(event.attempts, int)


clock = ManualClock()
resilient("my-api", on_event=observe, clock=clock, rng=random.Random(7))
resilient_sync("my-api", on_event=[observe], registry=CollectorRegistry(), flavor="httpx2")

resilient("my-api", tracing=True)
resilient("my-api", tracing=Tracing(propagate=False))

one = resilient("my-api")
another = resilient("my-api", state=one.state)
one.isolate()
one.reset()

assert_type(resilient("my-api").describe(), dict[str, Any])
assert_type(resilient_sync("my-api").describe(), dict[str, Any])
assert_type(resilient("my-api").circuits(), dict[str, dict[str, Any]])
assert_type(resilient_sync("my-api").circuits(), dict[str, dict[str, Any]])
assert_type(resilient("my-api").observer_failures, int)
assert_type(resilient_sync("my-api").observer_failures, int)
resilient_sync("my-api", state=State(Policy(), clock=clock, rng=random.Random(7)))

# --------------------------------------------------------------- a client that somebody else has made


class TheirClient(httpx.AsyncClient):
    pass


assert_type(wrap_client(httpx.AsyncClient(), "my-api"), httpx.AsyncClient)
assert_type(wrap_client(httpx.Client(), "my-api", policy=Policy.recommended()), httpx.Client)
assert_type(wrap_client(TheirClient(), "my-api", clock=clock), TheirClient)

# ------------------------------------------------------------------------------------------- policies

assert_type(Policy.recommended(), Policy)
policy = Policy(
    timeout=TimeoutPolicy(attempt=30.0, total=None, body_idle=30.0),
    retry=RetryPolicy(
        max_attempts=5,
        base_delay=1,
        max_delay=30,
        jitter="decorrelated",
        statuses=frozenset({429, 503}),
        max_retry_after=60,
        resend_unsafe="unprocessed",
        budget=RetryBudget(per_success=1.0, per_second=1.0, cap=100.0),
        wait=None,
    ),
    breaker=BreakerPolicy(
        failure_threshold=5,
        cooldown=60.0,
        failure_rate=0.5,
        window=10.0,
        half_open_probes=1,
        success_threshold=1,
        max_cooldown=None,
        key="host",
        slow_call=None,
    ),
    rate_limit=RateLimitPolicy(rate=20, per=1.0, max_waiters=1000),
    metrics=True,
    log=False,
)
Policy(timeout=None, retry=None, breaker=None, rate_limit=None)
RetryPolicy(budget=None)

# ------------------------------------------------------------------------------ a profile of the user's


def classify(response: httpx.Response, body: bytes | None) -> Judgement | None:
    if response.status_code == 202:
        return Judgement(verdict="neither", retryable=True, wait=1.0)
    return Judgement(verdict="failure", code="not_ok") if body == b"not ok" else None


def host(request: httpx.Request) -> str | None:
    return request.url.host or None


resilient("my-api", profile=Profile(name="my-api", classify=classify, rate_key=host))


def buckets(request: httpx.Request) -> tuple[Bucket | str, ...]:
    return (Bucket(request.url.path, rates=((20, 60.0),)), "everything")


resilient("my-api", profile=Profile(rate_key=buckets, success_begins=(b"fine",)))
LogTransport(httpx.AsyncHTTPTransport(), profile=Profile(retry_statuses=frozenset({202})))
assert_type(Judgement(verdict="neither", limited=True, wait=1.5).wait, float | None)

# --------------------------------------------------------------------------- one call, and its record


async def one_call(client: httpx.AsyncClient) -> None:
    options = call_options(
        operation="create_order",
        idempotent=True,
        total_timeout=5.0,
        attempt_timeout=2.0,
        max_attempts=2,
        rate_key="tenant-1",
        max_gate_wait=0,
        resend_unsafe="unprocessed",
    )
    with correlation_scope() as made:
        assert_type(made, str)
        assert_type(correlation_id(), str | None)
        try:
            response = await client.post("https://example.org/orders", extensions=options)
        except CircuitOpenError as error:
            assert_type(error.platform, str)
            assert_type(error.key, str)
            assert_type(error.retry_after, float)
            assert_type(error.request, httpx.Request)
        except RateLimitedError as error:
            assert_type(error.retry_after, float)
        except DeadlineExceededError as error:
            assert_type(error.limit, str)
            assert_type(error.elapsed, float)
        else:
            assert_type(response.status_code, int)


def ours_are_theirs(
    circuit: CircuitOpenError, limited: RateLimitedError, deadline: DeadlineExceededError
) -> tuple[httpx.TransportError, httpx.TransportError, httpx.TimeoutException]:
    return circuit, limited, deadline


# -------------------------------------------------------------------------------------------- results


def results(result: ConnectorResult) -> None:
    assert_type(ConnectorResult.success({"id": 1}), ConnectorResult)
    assert_type(ConnectorResult.success(), ConnectorResult)
    assert_type(ConnectorResult.failure("no such channel", code="channel_not_found"), ConnectorResult)
    assert_type(ConnectorResult.failure("busy", code="503", retryable=True), ConnectorResult)
    assert_type(result.success, bool)
    assert_type(result.data, Any | None)
    assert_type(result.error, str | None)
    assert_type(result.error_code, str | None)
    assert_type(result.retryable, bool)
    assert_type(result.status_code, int | None)
    assert_type(result.retry_after, float | None)
    assert_type(result.attempts, int | None)
    assert_type(result.correlation_id, str | None)


# ------------------------------------------------------------------------------ layers, alone and nested

httpx.AsyncClient(transport=RetryTransport(httpx.AsyncHTTPTransport(), policy=RetryPolicy(max_attempts=5)))
httpx.AsyncClient(
    transport=LogTransport(
        MetricsTransport(
            DeadlineTransport(
                RetryTransport(
                    RateLimitTransport(
                        BreakerTransport(
                            TimeoutTransport(
                                httpx.AsyncHTTPTransport(),
                                policy=TimeoutPolicy(),
                                platform="my-api",
                                clock=clock,
                            ),
                            policy=BreakerPolicy(),
                            platform="my-api",
                        ),
                        policy=RateLimitPolicy(),
                        platform="my-api",
                    ),
                    policy=RetryPolicy(),
                    platform="my-api",
                ),
                policy=TimeoutPolicy(total=10.0),
                platform="my-api",
            ),
            platform="my-api",
        ),
        platform="my-api",
    )
)

httpx.Client(transport=Driver(RetryTransport(Driven(httpx.HTTPTransport()))))
assert_type(configure_logging(json=True, level="INFO", stream=sys.stderr), logging.Handler)

# ----------------------------------------------------------------------------------------- testing tools


async def answer() -> int:
    return 42


virtual = VirtualTime(seed=7, now=0.0, wall=1e9)
assert_type(virtual.run(answer()), int)
assert_type(virtual.rng, random.Random)
httpx.AsyncClient(transport=resilient("my-api", clock=virtual, rng=virtual.rng))


async def testing_tools() -> None:
    scripted = ScriptedTransport(503, httpx.ConnectError, Hang(), Reply(status=200, after=2.0), clock=clock)
    async with httpx.AsyncClient(transport=resilient("my-api", scripted, clock=clock)) as client:
        assert_type((await client.get("https://example.org/")).status_code, int)
    clock.advance(60.0)
    assert_type(clock.monotonic(), float)
    assert_type(scripted.sent[0].status, int | None)
    assert_type(scripted.open_responses, int)
    httpx.AsyncClient(transport=FaultTransport(scripted, faults=Faults(read=0.1), seed=7, clock=clock))
    httpx.Client(transport=resilient_sync("my-api", ScriptedTransport(200)))
    faults = Faults(connect=0.1, statuses={503: 0.1}, truncated=0.1, stalled=0.1, delayed=0.1, delay=2.0)
    faulty = FaultTransport(httpx.HTTPTransport(), faults=faults)
    httpx.Client(transport=resilient_sync("my-api", faulty))
    assert_type(faulty.injected, dict[str, int])


# ------------------------------------------------------------------------------------------- connectors


async def connectors() -> None:
    async with TelegramConnector("1:a", transport=ScriptedTransport(200), request_timeout=5.0) as telegram:
        sent = await telegram.send_message(7, "hi", parse_mode="HTML")
        assert_type(sent, ConnectorResult)
        assert_type(sent.success, bool)
        await telegram.upload_file("@channel", b"x", kind="photo")
        async for update in telegram.poll(on_error=print):
            assert_type(update, dict[str, Any])
    discord = DiscordConnector("a", policy=Policy.recommended(), resend_unsafe="statuses", clock=clock)
    await discord.execute_webhook(("8", "token"), "hi", wait=False)
    async for page in discord.iter_history(7, before="9"):
        assert_type(page, ConnectorResult)
    await discord.aclose()
    async with SlackConnector.rotating(
        "id", "secret", "xoxe-1", save=print, base_url="https://x.test"
    ) as slack:
        assert_type(slack, SlackConnector)
        await slack.upload_file("C1", b"x", title="t")
        async for page in slack.iter_channels(types=["im"]):
            assert_type(page.data, Any | None)
    async with TeamsConnector("id", "secret", "tenant", cloud="usgov", store="x.sqlite3") as teams:
        assert_type(await teams.remember({}), ConnectorResult)
        await teams.post_incoming_webhook("https://x.test", cards=[{"type": "AdaptiveCard"}])
    delivery = SlackWebhook("secret").receive([(b"X-Slack-Signature", b"v0=")], b"{}")
    assert_type(delivery.event, WebhookEvent | None)


class MyConnector(ChatPlatformConnector):
    def read(self, answer: Answer) -> ConnectorResult:
        return answer.success(answer.fields) if answer.ok else answer.failure(answer.text, code="no")

    async def get_user(self, user_id: str) -> object:
        success, data, _ = await self._http_request("GET", f"https://example.org/{segment(user_id)}")
        assert_type(success, bool)
        return data if success else await self._with_retry("fallback", answer)


class TestMyConnector(ConnectorContract):
    secrets = ("a-token",)

    def connector(self, **keywords: Any) -> MyConnector:
        return MyConnector(**keywords)
