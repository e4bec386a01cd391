"""What all connectors share: from a request to a result, for a platform of one's own."""

from __future__ import annotations

import asyncio
import json
import ssl

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aragora_transport import Judgement, Policy, Profile, correlation_scope
from aragora_transport.connectors import ChatPlatformConnector, DiscordConnector, TelegramConnector
from aragora_transport.testing import ConnectorContract, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
MEMBERS = (
    *("ok", "result", "error_code", "description", "parameters", "retry_after", "migrate_to_chat_id"),
    *("code", "message", "errors", "_errors", "items", "has_more", "pinned_at", "id", "global"),
    *("file_path", "file_size", "update_id"),
)
BARE = Policy(timeout=None, retry=None, breaker=None, rate_limit=None, metrics=False, log=False)


def classify(response, body):
    """A platform that calls its failures 200."""
    return Judgement(verdict="failure", retryable=True, code="busy") if body == b'{"busy": true}' else None


class PlainConnector(ChatPlatformConnector):
    """A platform that speaks plain JSON, with a profile of its own."""

    profile = Profile(name="plain", classify=classify, reads_body=lambda response: True)

    def __init__(self, **keywords):
        super().__init__(base_url="https://plain.test/v1/", **keywords)

    async def get(self):
        return await self._request("GET", "/things", operation="get")


class TestPlainConnector(ConnectorContract):
    def connector(self, **keywords):
        return PlainConnector(**keywords)

    async def send(self, connector):
        return await connector._request("POST", "things", operation="add", json={"a": 1})


def made(*steps, **keywords):
    clock = ManualClock()
    network = ScriptedTransport(*steps, clock=clock)
    return PlainConnector(transport=network, clock=clock, **keywords), network


async def test_a_plain_answer_is_its_json():
    connector, network = made(Reply(body=b'{"id": 1}', headers=JSON), Reply(status=204), Reply(body=b"[1]"))
    assert [(await connector.get()).data for _ in range(3)] == [
        *({"id": 1}, {}),
        {"items": [1], "next_cursor": None},
    ]
    assert network.sent[0].url == "https://plain.test/v1/things"


@pytest.mark.parametrize("policy", [Policy(), BARE])
async def test_the_profile_decides_with_and_without_layers(policy):
    busy = Reply(body=b'{"busy": true}', headers=JSON)
    result = await made(busy, policy=policy, enable_circuit_breaker=False)[0].get()
    assert (result.error_code, result.retryable, result.status_code) == ("busy", True, 200)
    assert result.error == 'plain get: 200 {"busy": true}'
    assert result.attempts == (1 if policy is BARE else 3)


async def test_a_certificate_that_does_not_fit_is_not_worth_another_try():
    def refuse(request):
        error = httpx.ConnectError("certificate verify failed", request=request)
        error.__cause__ = ssl.SSLCertVerificationError()
        return error

    result = await made(refuse)[0].get()
    assert (result.error_code, result.retryable, result.attempts) == ("tls_error", False, 1)


async def test_a_result_has_the_correlation_id_of_its_scope_also_when_nothing_came_back():
    connector, _ = made(Reply(body=b"{}"), httpx.ReadError)
    with correlation_scope("order-17"):
        assert [(await connector.get()).correlation_id for _ in range(2)] == ["order-17"] * 2


async def test_a_circuit_that_was_opened_by_hand_asks_for_no_certain_wait():
    connector, _ = made(200)
    connector.stack.isolate()
    result = await connector.get()
    assert (result.error_code, result.retryable, result.retry_after) == ("circuit_open", True, None)


async def test_a_transport_of_httpx2_gets_a_client_of_its_own():
    network = ScriptedTransport(503, Reply(body=b'{"id": 1}', headers=JSON), 400, flavor="httpx2")
    connector = PlainConnector(transport=network, clock=ManualClock())
    assert (await connector.get()).data == {"id": 1}
    assert (await connector.get()).error_code == "bad_request"


async def test_a_file_that_is_read_by_nobody_leaves_the_rest_of_the_request_as_it_is():
    connector, network = made(Reply(body=b"{}"))
    assert (await connector._http_request("POST", "upload", files={"f": ("a.txt", b"x")}))[0]
    assert b'filename="a.txt"' in network.sent[0].body
    assert network.sent[0].url == "https://plain.test/v1/upload"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=4),
    max_leaves=12,
)
USES = [
    lambda network: TelegramConnector("a-token", transport=network, clock=ManualClock()).get_updates(),
    lambda network: TelegramConnector("a-token", transport=network, clock=ManualClock()).download_file("F"),
    lambda network: DiscordConnector("a-token", transport=network, clock=ManualClock()).history(1),
    lambda network: DiscordConnector("a-token", transport=network, clock=ManualClock()).list_pins(1),
    lambda network: DiscordConnector("a-token", transport=network, clock=ManualClock()).defer(1, "t"),
]


@settings(max_examples=60, deadline=None)
@given(use=st.sampled_from(USES), status=st.sampled_from([200, 202, 400, 404, 429, 500]), value=JSON_VALUES)
def test_json_of_any_shape_is_a_result(use, status, value):
    body = json.dumps(value).encode()
    clock = ManualClock()
    network = ScriptedTransport(Reply(status=status, body=body, headers=JSON), clock=clock)
    result = asyncio.run(use(network))
    assert isinstance(result.success, bool)
    assert result.success or (result.error and result.error_code)
    assert network.open_responses == 0


def test_the_contract_asks_how_a_connector_is_made():
    with pytest.raises(NotImplementedError, match="ConnectorContract must say how its connector is made"):
        ConnectorContract().test_retry_on_transient_error()


@pytest.mark.parametrize(
    ("keywords", "kind", "told"),
    [({"policy": 5}, TypeError, "policy"), ({"resend_unsafe": "never"}, ValueError, "resend_unsafe")],
)
def test_options_that_make_no_sense_are_refused_when_the_connector_is_made(keywords, kind, told):
    with pytest.raises(kind, match=told):
        DiscordConnector("a-token", **keywords)
