"""No token leaves by any door: through real requests, whatever becomes of them."""

from __future__ import annotations

import io
import json
import logging
import traceback

import hpack
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from aragora_transport import BreakerPolicy, Policy, RetryPolicy, Secret, TimeoutPolicy
from aragora_transport.connectors import TelegramConnector
from aragora_transport.layers import Tracing, _redaction, install_log_redaction
from aragora_transport.layers._layer import chain_of
from aragora_transport.testing import (
    Answer,
    FaultServer,
    close_before_headers,
    garbage,
    stalled_headers,
    truncated_body,
)

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

MARK = "S3cret"  # in each token; it looks the same quoted
LONG = f"{MARK}-made_up-abcdefghijklmnopqrstuv"
# Where platforms want a token: the path and query, and headers. {} is its place.
PLACES = {
    "Telegram": ("/bot{}/sendMessage", {}, f"123456789:{LONG}"),
    "Telegram file": ("/file/bot{}/photos/a.jpg", {}, f"123456789:{LONG}"),
    "Discord webhook": ("/api/webhooks/123456789012345678/{}?wait=true", {}, LONG),
    "Discord interaction": ("/api/v10/interactions/123456789012345678/{}/callback", {}, LONG),
    "Slack": ("/services/{}", {}, f"T00000000/B00000000/{MARK}abcdefgh"),
    "Teams": ("/webhookb2/{}/IncomingWebhook", {}, f"{LONG}@tenant"),
    "Teams workflow": ("/workflows/a/paths/invoke?sp=%2F&sig={}", {}, LONG),
    "query token": ("/x?a=1&access_token={}", {}, LONG),
    "query key, quoted": ("/x?api%5Fkey={}", {}, LONG),
    "query code": ("/x?code={}&state=y", {}, LONG),
    "Authorization": ("/x", {"Authorization": "Bearer {}"}, LONG),
    "header": ("/x", {"X-Api-Key": "{}", "Cookie": "sid={}"}, LONG),
}
QUICK = Policy(
    retry=RetryPolicy(max_attempts=2, base_delay=0.001),
    breaker=BreakerPolicy(failure_threshold=1000),
    timeout=TimeoutPolicy(attempt=0.1, body_idle=0.1),
)


def redirect(request):
    return Answer(status=307, headers={"Location": "http://127.0.0.1:1/elsewhere" + request.path})


FATES = {
    "success": 200,
    "saved by a retry": [503, 200],
    "failure": 503,
    "not found": 404,
    "unauthorized": Answer(status=401, headers={"Set-Cookie": f"sid={MARK}"}),
    "read error": close_before_headers(),
    "protocol error": garbage(),
    "timeout": stalled_headers(),
    "dead body": truncated_body(),
    "redirect elsewhere": redirect,
}


@pytest.fixture
def every_log():
    """All that any logger writes, at DEBUG, with tracebacks."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    names = [*_redaction._LOGGERS, "httpcore", "httpcore2", "aragora_transport"]
    loggers = [logging.getLogger(name) for name in names]
    kept = [(logger, logger.filters.copy(), logger.level) for logger in loggers]
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("aragora_transport").setLevel(logging.DEBUG)
    install_log_redaction()
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)
    for logger, filters, was in kept:
        logger.filters[:] = filters
        logger.setLevel(was)


def locals_of_ours(error):
    """What a traceback with local variables shows of our frames."""
    shown, seen = [], []
    while error is not None and error not in seen:
        seen.append(error)
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "/aragora_transport/" in frame.f_code.co_filename:
                shown += map(repr, frame.f_locals.values())
        error = error.__cause__ or error.__context__
    return shown


def leaks(doors):
    return [name for name, shown in doors.items() if MARK in str(shown)]


async def outcome_of(caller, url, headers):
    try:
        return await caller.request("POST", url, headers=headers), None
    except caller.world.httpx.HTTPError as error:
        return None, error


@pytest.fixture
def spans():
    """An OpenTelemetry SDK that keeps what it is told."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exporter.tracing = Tracing(tracer_provider=provider)
    yield exporter
    provider.shutdown()


def doors_of_ours(sockets, caller, every_log, error):
    doors = {
        "logs": every_log.getvalue(),
        "events": [repr(event) for event in sockets.events],
        "metrics": generate_latest(sockets.registry).decode(),
        "describe": json.dumps(caller.stack.describe()),
        "circuits": caller.stack.circuits(),
        "transports": [repr(one) for one in chain_of(caller.stack)],
        "client": repr(caller.client),
    }
    if error is not None:
        doors |= {"error": f"{error} {error!r} {error.args}", "locals": locals_of_ours(error)}
    return doors


def serve(fate):
    steps = FATES[fate]
    return FaultServer(*steps, then=200) if isinstance(steps, list) else FaultServer(then=steps)


def places(fate):
    """All of them where all goes well; else one of each kind."""
    names = PLACES if fate == "success" else ("Telegram", "Teams workflow", "header")
    return [PLACES[name] for name in names]


worlds = pytest.mark.parametrize("world", ["asyncio-httpx", "trio-httpx2", "blocking-httpx2"], indirect=True)


@worlds
@pytest.mark.parametrize("fate", FATES)
async def test_a_secret_is_seen_by_the_network_alone(sockets, every_log, spans, fate):
    for path, headers, value in places(fate):
        with serve(fate) as server:
            token = Secret(value, origin=server.url, name="token")
            options = {"credentials": token, "tracing": spans.tracing}
            async with sockets.caller(policy=QUICK, timeout=0.2, **options) as caller:
                caller.client.follow_redirects = True
                given = {header: line.format(token) for header, line in headers.items()}
                answer, error = await outcome_of(caller, server.url + path.format(token), given)
                doors = doors_of_ours(sockets, caller, every_log, error)
            if answer is not None:
                hops = [*answer.history, answer]
                requests = [hop.request for hop in hops]
                doors |= {
                    "answer": [repr(hop) + str(hop.headers.raw) for hop in hops],
                    "request": [f"{r!r} {r.url!r} {r.headers.raw}" for r in requests],
                    "record": repr(answer.extensions["aragora_transport"]),
                }
                if fate == "unauthorized":
                    doors.pop("answer")  # it sets a cookie of the platform's own
            else:
                doors["request of the error"] = f"{error.request.url!r} {error.request.headers.raw}"
            told = spans.get_finished_spans()
            assert {span.kind.name for span in told} == {"INTERNAL", "CLIENT"}  # of calls and of attempts
            doors["spans"] = [span.to_json() for span in told]
        assert MARK in f"{server.requests[0].target} {server.requests[0].headers.raw}"
        assert leaks(doors) == []
    assert "send_request_headers.started" in every_log.getvalue()  # httpcore's were looked at


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    "fate", [fate for fate in FATES if fate != "unauthorized"]
)  # whose cookie is no token of ours
async def test_the_result_of_a_connector_shows_no_token(every_log, fate):
    with serve(fate) as server:
        bot = TelegramConnector(
            f"123456789:{LONG}", base_url=server.url, policy=QUICK, registry=CollectorRegistry()
        )
        async with bot:
            result = await bot.send_message(7, "hello")
        assert MARK in server.requests[0].target
    doors = {
        "result": f"{result!r} {result.error} {result.data}",
        "connector": repr(bot),
        "logs": every_log.getvalue(),
    }
    assert leaks(doors) == []


@worlds
@pytest.mark.parametrize("fate", FATES)
async def test_a_token_that_was_written_into_the_request_is_not_logged(sockets, every_log, fate):
    for path, headers, value in places(fate):
        with serve(fate) as server:
            async with sockets.caller(policy=QUICK, timeout=0.2) as caller:
                caller.client.follow_redirects = True
                given = {header: line.format(value) for header, line in headers.items()}
                _, error = await outcome_of(caller, server.url + path.format(value), given)
                doors = doors_of_ours(sockets, caller, every_log, error)
        doors.pop("locals", None)  # the caller's own request, which shows its URL
        assert leaks(doors) == []
    text = every_log.getvalue()
    assert "send_request_headers.started" in text
    assert ("HTTP Request: POST" in text) == (fate not in {"read error", "protocol error", "timeout"})


@pytest.mark.parametrize("place", PLACES)
def test_the_records_of_hpack_show_no_token(every_log, place):
    path, headers, value = PLACES[place]
    sent = [(":path", path.format(value)), *((n.lower(), line.format(value)) for n, line in headers.items())]
    block = hpack.Encoder().encode(sent)
    assert hpack.Decoder().decode(block) == sent
    text = every_log.getvalue()
    assert "Encoded header block to <" in text
    assert MARK not in text
