"""Spans and durations as OpenTelemetry's own SDK records them."""

from __future__ import annotations

import re
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    DeadlineExceededError,
    Judgement,
    Policy,
    Profile,
    RetryPolicy,
    Secret,
    TimeoutPolicy,
    call_options,
    resilient,
    wrap_client,
)
from aragora_transport.connectors import SlackConnector
from aragora_transport.layers import (
    AttemptTracingTransport,
    RetryTransport,
    Tracing,
    TracingTransport,
)
from aragora_transport.layers._otel import url_of
from aragora_transport.testing import Hang, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "docs"
EVEN = Policy(retry=RetryPolicy(wait=lambda _: 1.0))
OURS = "aragora_transport."
TARGET = {"http.request.method": "GET", "server.address": "platform.test", "server.port": 80}


class Telemetry:
    """An SDK of our own, and what it was told."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader])
        self.tracing = self.made()

    def made(self, **keywords):
        return Tracing(tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **keywords)

    @property
    def spans(self):
        """What has ended: the spans of the attempts, and those of the calls."""
        ended = self.exporter.get_finished_spans()
        attempts = [span for span in ended if span.kind is trace.SpanKind.CLIENT]
        calls = [span for span in ended if span.kind is trace.SpanKind.INTERNAL]
        assert len(attempts) + len(calls) == len(ended)
        return attempts, calls

    @property
    def points(self):
        """What the histogram has."""
        (metric,) = self._reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
        assert (metric.name, metric.unit) == ("http.client.request.duration", "s")
        assert {point.explicit_bounds[-1] for point in metric.data.data_points} == {10.0}
        return metric.data.data_points

    @property
    def durations(self):
        """Count and sum of each point, by what it has beside the target."""
        assert all(point.attributes.items() >= TARGET.items() for point in self.points)
        return {
            tuple(v for k, v in point.attributes.items() if k not in TARGET): (
                point.count,
                round(point.sum, 6),
            )
            for point in self.points
        }


@pytest.fixture
def telemetry():
    return Telemetry()


def outcome(span):
    """What a span says of how it ended: status, error, and whether that is a failure."""
    attributes = span.attributes
    failed = not span.status.is_ok and not span.status.is_unset
    return attributes.get("http.response.status_code"), attributes.get("error.type"), failed


def parents(network):
    """The span that each send names as its parent."""
    return [int(sent.headers["traceparent"].split("-")[2], 16) for sent in network.sent]


async def test_a_call_is_a_span_and_each_attempt_a_client_span_beneath_it(world, telemetry):
    network = world.scripted(503, Reply(status=503, after=0.25), Reply(after=0.5))
    stack = world.stack(network, policy=EVEN, tracing=telemetry.tracing)
    answer = await world.get(stack, extensions=call_options(operation="list_things"))
    attempts, (call,) = telemetry.spans
    url = {"url.full": "http://platform.test/"}
    assert (call.name, call.parent) == ("test list_things", None)
    assert dict(call.attributes) == {
        **TARGET,
        **url,
        f"{OURS}platform": "test",
        f"{OURS}operation": "list_things",
        f"{OURS}correlation_id": answer.extensions["aragora_transport"].correlation_id,
        f"{OURS}attempts": 3,
        "http.response.status_code": 200,
    }
    assert [span.name for span in attempts] == ["GET"] * 3
    assert [span.parent.span_id for span in attempts] == [call.context.span_id] * 3
    assert dict(attempts[0].attributes) == {
        **TARGET,
        **url,
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert [span.attributes.get("http.request.resend_count") for span in attempts] == [None, 1, 2]
    assert [outcome(span) for span in (*attempts, call)] == [
        (503, "503", True),
        (503, "503", True),
        (200, None, False),
        (200, None, False),
    ]
    assert telemetry.durations == {(503, "503"): (2, 0.25), (200,): (1, 0.5)}


async def test_each_attempt_is_sent_its_own_traceparent_and_the_callers_request_stays_as_it_was(
    world, telemetry
):
    network = world.scripted(503, 200)
    stack = world.stack(network, policy=EVEN, tracing=telemetry.tracing)
    answer = await world.get(stack, headers={"x-mine": "1"})
    attempts, _ = telemetry.spans
    assert parents(network) == [span.context.span_id for span in attempts]
    assert [sent.headers["x-mine"] for sent in network.sent] == ["1", "1"]
    assert "traceparent" not in answer.request.headers


async def test_the_callers_own_span_is_the_parent_and_is_the_current_one_again(world, telemetry):
    stack = world.stack(world.scripted(503, 200), policy=EVEN, tracing=telemetry.tracing)
    with telemetry.tracer_provider.get_tracer("app").start_as_current_span("work") as work:
        await world.get(stack)
        assert trace.get_current_span() is work
    assert telemetry.spans[1][0].parent.span_id == work.context.span_id


async def test_the_span_of_a_call_ends_with_its_body(world, telemetry):
    network = world.scripted(Reply(body=(b"one", b"two")))
    client = world.client(world.stack(network, tracing=telemetry.tracing))
    answer = client.send(client.build_request("GET", "http://platform.test/"), stream=True)
    answer = answer if world.blocking else await answer
    attempts, calls = telemetry.spans
    assert (len(attempts), len(calls)) == (1, 0)
    assert (answer.read() if world.blocking else await answer.aread()) == b"onetwo"
    assert [outcome(span) for span in telemetry.spans[1]] == [(200, None, False)]


async def test_a_body_that_dies_is_the_calls_failure(world, telemetry):
    network = world.scripted(Reply(body=b"x", then=world.httpx.ReadError))
    with pytest.raises(world.httpx.ReadError):
        await world.get(world.stack(network, tracing=telemetry.tracing))
    assert [outcome(span) for spans in telemetry.spans for span in spans] == [
        (200, None, False),
        (200, "ReadError", True),
    ]


async def test_sends_that_fail_are_spans_and_are_measured(world, telemetry):
    network = world.scripted(world.httpx.ConnectError("no route"))
    with pytest.raises(world.httpx.ConnectError):
        await world.get(world.stack(network, policy=EVEN, tracing=telemetry.tracing))
    attempts, (call,) = telemetry.spans
    assert [outcome(span) for span in (*attempts, call)] == [(None, "ConnectError", True)] * 4
    assert call.attributes[f"{OURS}attempts"] == 3
    assert [span.events for span in (*attempts, call)] == [()] * 4, "an error's text is foreign"
    assert telemetry.durations == {("ConnectError",): (3, 0.0)}


async def test_an_attempt_that_takes_too_long_is_a_timeout_not_a_cancellation(world, telemetry):
    policy = Policy(timeout=TimeoutPolicy(attempt=2.0), retry=None)
    stack = world.stack(world.scripted(Reply(after=5.0)), policy=policy, tracing=telemetry.tracing)
    with pytest.raises(DeadlineExceededError):
        await world.get(stack)
    assert [outcome(span) for spans in telemetry.spans for span in spans] == [
        (None, "DeadlineExceededError", True)
    ] * 2
    assert telemetry.durations == {("DeadlineExceededError",): (1, 2.0)}


async def test_what_an_open_circuit_refuses_was_never_sent(world, telemetry):
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1))
    stack = world.stack(world.scripted(500), policy=policy, tracing=telemetry.tracing)
    await world.get(stack)
    with pytest.raises(CircuitOpenError):
        await world.get(stack)
    attempts, (_, refused) = telemetry.spans
    assert len(attempts) == 1
    assert outcome(refused) == (None, "CircuitOpenError", True)
    assert refused.attributes[f"{OURS}attempts"] == 0


async def test_a_cancelled_call_leaves_no_span_open(async_world, telemetry):
    world = async_world
    network = world.scripted(Hang())
    stack = world.stack(network, policy=Policy(timeout=None), tracing=telemetry.tracing)

    async def far_enough():
        await world.until(lambda: network.sent)

    await world.cancelled(far_enough, world.get, stack)
    error = "Cancelled" if world.kind == "trio" else "CancelledError"
    assert [outcome(span) for spans in telemetry.spans for span in spans] == [(None, error, True)] * 2


@pytest.mark.parametrize(("code", "shown"), [("not_found", "not_found"), ("two\nlines", r"two\nlines")])
async def test_a_failure_inside_a_200_is_the_calls_failure_by_its_code(world, telemetry, code, shown):
    profile = Profile(name="p", classify=lambda *_: Judgement(verdict="failure", code=code, retryable=False))
    await world.get(world.stack(world.scripted(200), profile=profile, tracing=telemetry.tracing))
    assert outcome(telemetry.spans[1][0]) == (200, shown, True)


async def test_a_secret_is_sent_and_seen_by_no_span(world, telemetry):
    token = Secret("12345:top-secret", origin="http://platform.test", name="telegram")
    network = world.scripted(200)
    stack = world.stack(network, credentials=token, tracing=telemetry.tracing)
    await world.get(stack, url=f"http://platform.test/bot{token}/getMe")
    assert network.sent[0].url == "http://platform.test/bot12345:top-secret/getMe"
    assert len(parents(network)) == 1
    seen = [span.attributes["url.full"] for spans in telemetry.spans for span in spans]
    assert seen == [f"http://platform.test/bot{token}/getMe"] * 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://api.test/things?page=2&q=a%20b#top", "https://api.test/things?page=2&q=a%20b"),
        ("https://user:pw@api.test/", "https://REDACTED:REDACTED@api.test/"),
        ("https://token@api.test/", "https://REDACTED:REDACTED@api.test/"),
        ("https://api.test/?token=t&page=2", "https://api.test/?token=REDACTED&page=2"),
        ("https://api.test/?sig=s", "https://api.test/?sig=REDACTED"),
        ("https://api.test/?X-Amz-Signature=s", "https://api.test/?X-Amz-Signature=REDACTED"),
        ("https://api.test/?api%5Fkey=k", "https://api.test/?api%5Fkey=REDACTED"),
        ("https://api.test/?monkey=1&barcode=2", "https://api.test/?monkey=1&barcode=2"),
        ("https://api.telegram.org/bot1:AA/getMe", "https://api.telegram.org/botREDACTED/getMe"),
        ("https://api.test/hooks/abc", "https://api.test/hooks/REDACTED"),
    ],
)
def test_the_url_of_a_span_hides_what_could_be_a_secret(blocking_world, given, shown):
    profile = Profile(name="p", secrets=re.compile("/hooks/([a-z]+)"))
    assert url_of(blocking_world.httpx.Request("GET", given), profile) == shown


async def test_a_method_nobody_knows_is_other(world, telemetry):
    await world.request(world.stack(world.scripted(200), tracing=telemetry.tracing), "PROPFIND")
    (attempt,), _ = telemetry.spans
    told = [attempt.attributes[f"http.request.method{suffix}"] for suffix in ("", "_original")]
    assert (attempt.name, *told) == ("HTTP", "_OTHER", "PROPFIND")


async def test_the_version_of_the_protocol_is_told(world, telemetry):
    def answer(_):
        return world.httpx.Response(200, extensions={"http_version": b"HTTP/1.1"})

    await world.get(world.stack(world.httpx.MockTransport(answer), tracing=telemetry.tracing))
    assert telemetry.spans[0][0].attributes["network.protocol.version"] == "1.1"


async def test_the_docs_name_every_attribute_of_call_attempt_and_metric(world, telemetry):
    def answer(_):
        return world.httpx.Response(503, extensions={"http_version": b"HTTP/2"})

    stack = world.stack(world.httpx.MockTransport(answer), policy=EVEN, tracing=telemetry.tracing)
    await world.request(stack, "PROPFIND")
    attempts, calls = telemetry.spans
    seen = [{name for span in spans for name in span.attributes} for spans in (calls, attempts)]
    seen.append(set(telemetry.points[0].attributes))
    told = [set(), set(), set()]
    table = (DOCS / "opentelemetry.md").read_text(encoding="utf-8").partition("| attribute |")[2]
    for names, *marks in re.findall(r"^\| (`.*`) \| (\S+) \| (\S+) \| (\S+) \|", table, re.MULTILINE):
        for column, mark in zip(told, marks, strict=True):
            if mark == "yes":
                column.update(re.findall(r"`([^`]+)`", names))
    assert told == seen


async def test_nothing_is_sent_to_the_platform_where_that_is_switched_off(world, telemetry):
    network = world.scripted(200)
    await world.get(world.stack(network, tracing=telemetry.made(propagate=False)))
    assert "traceparent" not in network.sent[0].headers
    assert [len(spans) for spans in telemetry.spans] == [1, 1]


class Raising(SpanProcessor):
    def __init__(self, at):
        self._at = at

    def on_start(self, span, parent_context=None):
        if self._at == "start":
            raise RuntimeError

    def on_end(self, span):
        if self._at == "end":
            raise RuntimeError


@pytest.mark.parametrize("at", ["start", "end", "measure"])
async def test_a_tracer_or_meter_that_raises_never_breaks_a_call_and_is_counted(
    world, telemetry, at, monkeypatch
):
    telemetry.tracer_provider.add_span_processor(Raising(at))
    tracing = telemetry.made()
    if at == "measure":
        monkeypatch.setattr(tracing._duration, "record", None)
    network = world.scripted(503, 200)
    stack = world.stack(network, policy=EVEN, tracing=tracing)
    assert (await world.get(stack)).status_code == 200
    assert stack.observer_failures == {"start": 3, "end": 3, "measure": 2}[at]


async def test_true_goes_by_the_providers_of_the_program(world, telemetry, monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", telemetry.tracer_provider)
    await world.get(world.stack(world.scripted(200), tracing=True))
    assert [len(spans) for spans in telemetry.spans] == [1, 1]


async def test_a_wrapped_client_is_traced(world, telemetry):
    kind = world.httpx.Client if world.blocking else world.httpx.AsyncClient
    client = wrap_client(kind(transport=world.scripted(200)), "test", tracing=telemetry.tracing)
    answer = client.get("http://platform.test/")
    assert (answer if world.blocking else await answer).status_code == 200
    assert [len(spans) for spans in telemetry.spans] == [1, 1]


async def test_a_connectors_calls_are_traced(async_world, telemetry):
    network = async_world.scripted(Reply(headers={"content-type": "application/json"}, body=b'{"ok": true}'))
    async with SlackConnector("xoxb-1", transport=network, tracing=telemetry.tracing) as slack:
        assert (await slack.send_message("C1", "hi")).success
    (attempt,), (call,) = telemetry.spans
    assert call.name == "slack send_message"
    assert attempt.parent.span_id == call.context.span_id


async def test_the_layers_work_by_hand(world, telemetry):
    network = world.scripted(503, 200)
    attempts = world.layer(AttemptTracingTransport, network, tracing=telemetry.tracing)
    retry = RetryTransport(attempts, policy=RetryPolicy(wait=lambda _: 1.0), clock=world.clock)
    await world.get(TracingTransport(retry, tracing=telemetry.tracing, platform="mine", clock=world.clock))
    assert [len(spans) for spans in telemetry.spans] == [2, 1]
    assert telemetry.spans[1][0].name == "mine GET"


def test_threads_do_not_mix_up_their_spans(blocking_world, telemetry):
    world = blocking_world
    network = world.scripted(lambda _: 200)
    stack = world.stack(network, tracing=telemetry.tracing)
    meet = threading.Barrier(4)

    def calls():
        meet.wait(10)
        client = world.client(stack)
        for _ in range(5):
            client.get("http://platform.test/")

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    attempts, calls_ = telemetry.spans
    assert len(calls_) == 20
    assert all(call.parent is None for call in calls_)
    assert {span.parent.span_id for span in attempts} == {call.context.span_id for call in calls_}


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"pip install 'aragora-transport\[otel\]'"):
        resilient("api", ScriptedTransport(200), tracing=True)


@pytest.mark.parametrize("make", [TracingTransport, AttemptTracingTransport, partial(resilient, "api")])
def test_what_is_no_tracing_is_refused(make):
    with pytest.raises(TypeError, match=r"tracing.* must be a Tracing"):
        make(ScriptedTransport(200), tracing=TracerProvider())


def test_the_stack_says_that_it_traces():
    stack = resilient("api", ScriptedTransport(200), tracing=Tracing())
    named = [layer["layer"] for layer in stack.describe()["layers"]]
    assert (named[0], named[-2]) == ("TracingTransport", "AttemptTracingTransport")
