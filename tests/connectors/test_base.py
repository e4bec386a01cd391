"""Connectors that are written by the error handling guide work on the base class as they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import httpx
import pytest
from prometheus_client import CollectorRegistry

from aragora_transport import BreakerPolicy, CircuitOpenError, DeadlineExceededError, Policy, TimeoutPolicy
from aragora_transport.connectors import ChatPlatformConnector
from aragora_transport.testing import ConnectorContract, Hang, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

API = API_BASE = "https://chat.test/api"
TOKEN = "the-token-of-the-guide"  # noqa: S105  # of nobody
logger = logging.getLogger("my.connector")


@dataclass
class SendMessageResponse:
    success: bool
    message_id: str | None = None
    error: str | None = None


class MyConnector(ChatPlatformConnector):
    """The guide's own: its `send_message`, and the "After" of its example migration."""

    def _get_headers(self):
        return {"Authorization": f"Bearer {TOKEN}"}

    async def send_message(self, channel_id: str, text: str, **kwargs) -> SendMessageResponse:
        success, data, error = await self._http_request(
            method="POST",
            url=f"{API_BASE}/channels/{channel_id}/messages",
            headers=self._get_headers(),
            json={"content": text},
            operation="send_message",
        )
        if success and data:
            return SendMessageResponse(success=True, message_id=data.get("id"))
        return SendMessageResponse(success=False, error=error)

    async def get_user(self, user_id: str) -> dict | None:
        success, data, error = await self._http_request(
            method="GET",
            url=f"{API}/users/{user_id}",
            headers=self._get_headers(),
            operation="get_user",
        )
        if success:
            return data
        logger.warning(f"Failed to get user {user_id}: {error}")  # noqa: G004  # the guide's line
        return None


class NamedConnector(MyConnector):
    """Where the name is a property, as in older connectors."""

    @property
    def platform_name(self):
        return "slow-chat"


class TestTheGuidesConnector(ConnectorContract):
    good = Reply(body=b'{"id": "1"}')
    resend_unsafe = "statuses"
    # The guide's own code takes whatever is no failure for an object.
    odd_bodies = tuple(body for body in ConnectorContract.odd_bodies if not body.startswith(b"[[]]"))

    def connector(self, **keywords):
        return MyConnector(**keywords)


class Chat:
    """The guide's connector, on a network that does as it is told."""

    def __init__(self, *steps, kind=MyConnector, **keywords):
        self.clock = ManualClock()
        self.network = ScriptedTransport(*steps, clock=self.clock)
        self.registry = CollectorRegistry()
        self.connector = kind(transport=self.network, clock=self.clock, registry=self.registry, **keywords)

    @property
    def sent(self):
        return self.network.sent


async def before(client, user_id):
    """The guide's "Before"."""
    response = await client.get(f"{API}/users/{user_id}")
    response.raise_for_status()
    return response.json()


async def test_the_guides_send_is_one_request_and_its_answer():
    chat = Chat(Reply(body=b'{"id": "m1"}'))
    assert await chat.connector.send_message("7", "hello") == SendMessageResponse(True, "m1")
    (sent,) = chat.sent
    assert (sent.method, sent.url) == ("POST", f"{API_BASE}/channels/7/messages")
    assert (sent.headers["authorization"], sent.body) == (f"Bearer {TOKEN}", b'{"content":"hello"}')


async def test_what_raised_before_the_migration_is_told_after_it(caplog):
    network = ScriptedTransport(404)
    with pytest.raises(httpx.HTTPStatusError):
        await before(httpx.AsyncClient(transport=network), "7")
    chat = Chat(404)
    assert await chat.connector.get_user("7") is None
    assert "Failed to get user 7: my get_user: 404" in caplog.messages
    assert await Chat(Reply(body=b'{"id": "7"}')).connector.get_user("7") == {"id": "7"}


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (Reply(body=b'{"id": 1}'), {"id": 1}),
        (Reply(body=b"[1, 2]"), [1, 2]),
        (Reply(status=204), {}),
        (Reply(body=b"ok\n"), {"text": "ok\n"}),
        (Reply(body=b"true"), {"text": "true"}),
    ],
)
async def test_the_data_of_a_request_is_the_answers_json(answer, data):
    assert await Chat(answer).connector._http_request("GET", f"{API}/x") == (True, data, None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_the_guide_calls_not_retryable_is_sent_once(status):
    chat = Chat(Reply(status=status, body=b'{"message": "no"}'))
    assert await chat.connector._http_request("POST", f"{API}/x", operation="try") == (
        *(False, None),
        f'my try: {status} {{"message": "no"}}',
    )
    assert len(chat.sent) == 1
    assert not chat.connector._is_retryable_status_code(status)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_the_guide_calls_retryable_is_sent_again_for_every_method(status):
    for method in ("GET", "POST", "PATCH"):
        chat = Chat(status, 200)
        assert (await chat.connector._http_request(method, f"{API}/x"))[0]
        assert len(chat.sent) == 2
        assert chat.connector._is_retryable_status_code(status)


async def test_a_request_may_have_limits_of_its_own():
    chat = Chat(503)
    await chat.connector._http_request("GET", f"{API}/x", max_retries=1)
    assert len(chat.sent) == 1
    chat = Chat(Hang())
    success, _, error = await chat.connector._http_request("POST", f"{API}/x", timeout=2.0)
    assert not success
    assert error.startswith("my http_request: no end within the attempt limit of 2 s")
    assert chat.clock.monotonic() == 2.0


async def test_a_url_or_a_text_that_makes_no_sense_is_a_failure_and_no_error():
    chat = Chat(200)
    for url, body in (("http://chat.test:port/", {}), (f"{API}/x", {"text": "\ud83d"}), ("/no-host", {})):
        success, _, error = await chat.connector._http_request("POST", url, json=body)
        assert (success, error.startswith("my http_request: ")) == (False, True)


# --- the four options ---


async def test_the_guides_options_change_the_policy():
    connector = MyConnector(
        enable_circuit_breaker=True,
        circuit_breaker_threshold=7,
        circuit_breaker_cooldown=9.0,
        request_timeout=11.0,
        transport=ScriptedTransport(200),
    )
    assert connector.policy == Policy(
        breaker=BreakerPolicy(failure_threshold=7, cooldown=9.0), timeout=TimeoutPolicy(attempt=11.0)
    )
    assert MyConnector(transport=ScriptedTransport(200)).policy == Policy()
    advised = MyConnector(
        policy=Policy.recommended(), request_timeout=5.0, circuit_breaker_cooldown=0.5
    ).policy
    assert (advised.timeout.attempt, advised.timeout.total) == (5.0, 60.0)
    assert (advised.breaker.cooldown, advised.breaker.failure_rate) == (0.5, 0.85)
    bare = MyConnector(policy=Policy(timeout=None, breaker=None), request_timeout=5.0).policy
    assert (bare.timeout.attempt, bare.breaker) == (5.0, None)


async def test_without_a_circuit_nothing_is_refused_or_counted():
    chat = Chat(503, enable_circuit_breaker=False)
    for _ in range(3):
        assert not (await chat.connector.send_message("1", "x")).success
    assert len(chat.sent) == 9
    chat.connector._record_failure()
    chat.connector._record_success()
    assert chat.connector._check_circuit_breaker() == (True, None)


# --- the circuit by hand ---


async def test_what_is_recorded_by_hand_moves_the_circuit_of_the_requests():
    chat = Chat(Reply(body=b'{"id": "1"}'), circuit_breaker_threshold=2)
    connector = chat.connector
    connector._record_failure()
    assert connector._check_circuit_breaker() == (True, None)
    connector._record_failure(ConnectionError("gone"))
    allowed, why = connector._check_circuit_breaker()
    assert (allowed, why) == (False, "my: circuit open; next probe in 60 s")
    assert chat.registry.get_sample_value("platform_circuit_breaker_state", {"platform": "my"}) == 1
    connector._record_success()  # too early to count
    refused = await connector.send_message("1", "x")
    assert refused.error.startswith("my send_message: circuit open after 2 failures (last: ConnectionError)")
    assert chat.sent == []
    chat.clock.advance(60.0)
    assert connector._check_circuit_breaker() == (True, None)
    connector._record_success()
    assert connector.stack.circuits()["my"]["state"] == "closed"
    assert (await connector.send_message("1", "x")).success


# --- retrying what is no request of ours ---


def failing(*errors):
    """A function that raises each of these in turn, and then returns its arguments."""
    left = list(errors)

    async def function(*args, **kwargs):
        if left:
            raise left.pop(0)
        return args, kwargs

    return function, left


def status_error(status, **headers):
    request = httpx.Request("GET", API)
    response = httpx.Response(status, request=request, headers=headers)
    return httpx.HTTPStatusError("told so", request=request, response=response)


@pytest.mark.parametrize(
    "error", [ConnectionResetError("gone"), TimeoutError(), httpx.ReadError("x"), status_error(503)]
)
async def test_a_function_that_fails_for_a_while_is_called_again(error):
    chat = Chat(200)
    function, _ = failing(error, error)
    assert await chat.connector._with_retry("upload", function, 1, two=2) == ((1,), {"two": 2})
    assert 3.0 <= chat.clock.monotonic() <= 3.3
    labels = {"platform": "my", "operation": "upload"}
    assert chat.registry.get_sample_value("platform_retry_success_total", labels) == 1


async def test_the_last_error_of_a_function_is_raised_as_it_was():
    for error in (ConnectionResetError("gone"), status_error(503), httpx.ReadError("x")):
        function, left = failing(*[error] * 5)
        with pytest.raises(type(error)) as caught:
            await Chat(200).connector._with_retry("upload", function, max_retries=2)
        assert caught.value is error
        assert len(left) == 3
    function, left = failing(KeyError("a bug"), 1)
    with pytest.raises(KeyError, match="a bug"):
        await Chat(200).connector._with_retry("upload", function)
    function, left = failing(KeyError("not ready"))
    assert await Chat(200).connector._with_retry("upload", function, retryable_exceptions=(KeyError,))


async def test_a_function_is_told_to_wait_by_its_answer():
    chat = Chat(200)
    function, _ = failing(status_error(429, **{"retry-after": "8", "content-encoding": "gzip"}))
    await chat.connector._with_retry("upload", function)
    assert chat.clock.monotonic() >= 8.0
    function, left = failing(status_error(404), 1)
    with pytest.raises(httpx.HTTPStatusError):
        await chat.connector._with_retry("upload", function)
    assert len(left) == 1


async def test_a_function_meets_the_limits_and_the_circuit_of_the_requests():
    chat = Chat(200, circuit_breaker_threshold=1, request_timeout=3.0)

    async def hangs():
        await chat.clock.sleep(100.0)

    with pytest.raises(DeadlineExceededError):
        await chat.connector._with_retry("upload", hangs)
    with pytest.raises(CircuitOpenError):
        await chat.connector._with_retry("upload", hangs)
    assert not (await chat.connector.send_message("1", "x")).success
    assert chat.sent == []


# --- names ---


async def test_a_connector_is_named_after_its_class_or_as_it_says():
    assert MyConnector.platform_name == "my"
    chat = Chat(404, kind=NamedConnector)
    assert list(chat.connector.stack.circuits()) == ["slow-chat"]
    assert (await chat.connector.send_message("1", "x")).error.startswith("slow-chat send_message: 404")
