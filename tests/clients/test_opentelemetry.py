"""OpenTelemetry's client instrumentation: above ours a span is a call, beneath ours it is an attempt."""

from __future__ import annotations

import pytest
from opentelemetry.instrumentation import httpx as instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aragora_transport import Policy, RetryPolicy, layers, resilient, resilient_sync, wrap_client
from aragora_transport.testing import FaultServer

pytestmark = pytest.mark.anyio

SOON = Policy(retry=RetryPolicy(base_delay=0.01))
LAYERS = [getattr(layers, name) for name in layers.__all__ if name.endswith("Transport")]


class Tracing:
    """A tracer of our own, and what it has seen."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self):
        """The spans that have ended, in that order."""
        return self._exporter.get_finished_spans()

    @property
    def statuses(self):
        return [span.attributes["http.status_code"] for span in self.spans]


@pytest.fixture
def tracing():
    return Tracing()


@pytest.fixture
def instrumentor(world):
    """The instrumentation's class for the flavour."""
    return getattr(
        instrumentation, {"httpx": "HTTPX", "httpx2": "HTTPX2"}[world.flavor_name] + "ClientInstrumentor"
    )


def traced(world, network, tracing):
    """The instrumentation's own transport of the flavour and kind."""
    kind = "Sync" if world.blocking else "Async"
    suffix = "Httpx2" if world.flavor_name == "httpx2" else ""
    transport = getattr(instrumentation, f"{kind}OpenTelemetryTransport{suffix}")
    return transport(network, tracer_provider=tracing.provider)


def sent_spans(network):
    """The span that each attempt names as its parent, from the header sent with it."""
    return [int(sent.headers["traceparent"].split("-")[2], 16) for sent in network.sent]


async def test_above_ours_a_span_is_a_call(world, tools, tracing, instrumentor):
    network = world.scripted(503, 503, 200)
    client = world.client(world.stack(network))
    instrumentor.instrument_client(client, tracer_provider=tracing.provider)
    answer = await tools.result(client.get("http://platform.test/"))
    assert answer.status_code == 200
    (span,) = tracing.spans
    assert tracing.statuses == [200]
    assert sent_spans(network) == [span.context.span_id] * 3


async def test_beneath_ours_a_span_is_an_attempt(world, tracing):
    network = world.scripted(503, 503, 200)
    answer = await world.get(world.stack(traced(world, network, tracing)))
    assert answer.status_code == 200
    assert tracing.statuses == [503, 503, 200]
    assert sent_spans(network) == [span.context.span_id for span in tracing.spans]
    assert len(set(sent_spans(network))) == 3


async def test_on_both_sides_the_attempts_are_children_of_the_call(world, tools, tracing, instrumentor):
    client = world.client(world.stack(traced(world, world.scripted(503, 200), tracing)))
    instrumentor.instrument_client(client, tracer_provider=tracing.provider)
    await tools.result(client.get("http://platform.test/"))
    *attempts, call = tracing.spans
    assert call.parent is None
    assert [attempt.parent.span_id for attempt in attempts] == [call.context.span_id] * 2


async def test_an_error_passes_through_on_both_sides_as_it_was(world, tools, tracing, instrumentor):
    error = world.httpx.ConnectError("no route")
    client = world.client(world.stack(traced(world, world.scripted(error), tracing)))
    instrumentor.instrument_client(client, tracer_provider=tracing.provider)
    with pytest.raises(world.httpx.ConnectError) as caught:
        await tools.result(client.get("http://platform.test/"))
    assert caught.value is error
    assert [span.status.is_ok for span in tracing.spans] == [False] * 4


async def test_taken_off_again_it_leaves_the_client_as_it_was(world, tools, tracing, instrumentor):
    network = world.scripted(503, 200)
    client = world.client(world.stack(network))
    instrumentor.instrument_client(client, tracer_provider=tracing.provider)
    instrumentor.uninstrument_client(client)
    answer = await tools.result(client.get("http://platform.test/"))
    assert answer.status_code == 200
    assert len(network.sent) == 2
    assert "traceparent" not in network.sent[0].headers
    assert tracing.spans == ()


@pytest.mark.parametrize("layer", LAYERS)
async def test_every_layer_can_be_instrumented(world, tools, tracing, instrumentor, layer):
    needs = {"source": layers.TokenSource(origin="http://elsewhere.test")}
    keywords = needs if layer is layers.AuthTransport else {}
    client = world.client(world.layer(layer, world.scripted(200), **keywords))
    instrumentor.instrument_client(client, tracer_provider=tracing.provider)
    await tools.result(client.get("http://platform.test/"))
    assert tracing.statuses == [200]
    instrumentor.uninstrument_client(client)
    await tools.result(client.get("http://platform.test/"))
    assert tracing.statuses == [200]


async def test_the_mounts_of_a_wrapped_client_are_instrumented_as_well(world, tools, tracing, instrumentor):
    network, mounted = world.scripted(503, 200), world.scripted(503, 200)
    kind = world.httpx.Client if world.blocking else world.httpx.AsyncClient
    client = kind(transport=network, mounts={"all://mounted.test": mounted}, trust_env=False)
    wrap_client(client, "test", clock=world.clock)
    instrumentor.instrument_client(client, tracer_provider=tracing.provider)
    for host in ("platform", "mounted"):
        await tools.result(client.get(f"http://{host}.test/"))
    assert (len(network.sent), len(mounted.sent)) == (2, 2)
    assert tracing.statuses == [200, 200]
    instrumentor.uninstrument_client(client)
    for host in ("platform", "mounted"):
        await tools.result(client.get(f"http://{host}.test/"))
    assert tracing.statuses == [200, 200]


async def test_switched_on_for_the_whole_program_it_sees_attempts(world, tools, tracing, instrumentor):
    instrumentor().instrument(tracer_provider=tracing.provider)
    try:
        make = resilient_sync if world.blocking else resilient
        client = world.client(make("test", policy=SOON, flavor=world.flavor_name))
        with FaultServer(503, 503, then=200) as server:
            answer = await tools.result(client.get(server.url))
            await tools.result(client.close() if world.blocking else client.aclose())
    finally:
        instrumentor().uninstrument()
    assert answer.status_code == 200
    assert tracing.statuses == [503, 503, 200]
    headers = [request.headers["traceparent"] for request in server.requests]
    assert [int(header.split("-")[2], 16) for header in headers] == [
        span.context.span_id for span in tracing.spans
    ]
