"""Enterprise APIs: `_make_request` as the guide shows it, tokens, problem bodies, pages."""

from __future__ import annotations

import json
import logging

import anyio
import httpx
import pytest

from aragora_transport import ConnectorResult, Policy, RetryPolicy
from aragora_transport.connectors import ClientCredentials, EnterpriseConnector, RefreshToken, StaticKey
from aragora_transport.testing import ConnectorContract, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

API = "https://crm.test/api"
LOGIN = "https://login.test/token"
KEY = "the-static-key"
FIRST = "refresh-0"


class Crm(EnterpriseConnector):
    async def get_account(self, number):
        return await self._make_request("GET", f"/accounts/{number}", operation="get_account")

    async def send_message(self, channel_id, text):
        return await self._make_request("POST", f"/channels/{channel_id}", {"text": text}, operation="send")


class Crm2(Crm):
    """The guide's own example, word for word."""

    async def _make_request(self, method, path, data=None, **kwargs) -> ConnectorResult:  # noqa: RET503  # as the guide writes it
        """Make authenticated request with retry and circuit breaker."""
        # 1. Check circuit breaker
        if not self._circuit_breaker.can_proceed():
            return ConnectorResult.failure("Service temporarily unavailable")

        # 2. Ensure token freshness
        await self._ensure_token_valid()

        # 3. Execute with retry
        for attempt in range(self.max_retries):
            try:
                response = await self._client.request(method, path, json=data)

                if self._is_retryable(response.status_code):
                    await self._backoff(attempt)
                    continue

                self._circuit_breaker.record_success()
                return ConnectorResult.success(response.json())

            except Exception as e:  # noqa: BLE001  # as the guide writes it
                self._circuit_breaker.record_failure()
                if attempt == self.max_retries - 1:
                    return ConnectorResult.failure(str(e))
                await self._backoff(attempt)


class TestContract(ConnectorContract):
    good = Reply(body=b'{"id": 1}')
    secrets = (KEY,)
    resend_unsafe = "statuses"

    def connector(self, **keywords):
        return Crm(API, auth=StaticKey(KEY, origin=API), **keywords)


def connector_of(*steps, kind=Crm, **keywords):
    clock = ManualClock()
    network = ScriptedTransport(*steps, clock=clock)
    return kind(API, transport=network, clock=clock, **keywords), network


async def test_the_guides_example_works_as_it_is():
    crm, network = connector_of(503, 503, 503, Reply(body=b'{"id": 7}'), kind=Crm2)
    async with crm:
        result = await crm.get_account(7)
    assert (result.success, result.data) == (True, {"id": 7})
    assert network.sent[-1].url == f"{API}/accounts/7"
    crm, _ = connector_of(httpx.ConnectError, kind=Crm2, circuit_breaker_threshold=3)
    async with crm:
        assert (await crm.get_account(7)).error
        assert (await crm.get_account(7)).error == "Service temporarily unavailable"
    crm, network = connector_of(httpx.ConnectError, kind=Crm2, enable_circuit_breaker=False, policy=Policy())
    async with crm:
        assert (await crm.get_account(7)).error == "scripted"
    crm, network = connector_of(200, kind=Crm2, enable_circuit_breaker=False)
    async with crm:
        assert not (await crm.get_account(7)).success  # no JSON


async def test_a_request_is_json_with_the_connectors_headers():
    crm, network = connector_of(Reply(body=b'{"id": 1}'), headers={"X-Tenant": "t"}, max_retries=2)
    async with crm:
        result = await crm._make_request("POST", "/things", {"a": 1}, headers={"X-Own": "o"})
    (sent,) = network.sent
    assert (sent.method, sent.url, json.loads(sent.body)) == ("POST", f"{API}/things", {"a": 1})
    assert (sent.headers["x-tenant"], sent.headers["x-own"]) == ("t", "o")
    assert (result.success, result.data, result.status_code, result.attempts) == (True, {"id": 1}, 200, 1)
    assert crm.max_retries == 2
    assert Crm(API, policy=Policy(retry=None)).max_retries == 1
    assert Crm(API, policy=Policy(retry=None), max_retries=4).max_retries == 4


PROBLEM = {"content-type": "application/problem+json"}
PROBLEMS = [
    (
        {"type": "https://crm.test/problems/out-of-credit", "title": "No credit", "detail": "You have 3."},
        ("out-of-credit", "No credit: You have 3."),
    ),
    ({"type": "about:blank", "title": "Forbidden", "status": 403}, ("forbidden", "Forbidden")),
    ({"title": "Odd", "type": "urn:problem:odd", "code": "E7"}, ("E7", "Odd")),
    ({"error": {"code": "BadArgument", "message": "no such field"}}, ("BadArgument", "no such field")),
    ({"error": "invalid_scope", "error_description": "ask less"}, ("invalid_scope", "ask less")),
    ({"errors": [{"code": 12, "message": "first"}, {"message": "second"}]}, ("12", "first")),
    ({"message": "plain"}, ("forbidden", "plain")),
    ({"title": 7, "detail": [], "code": {}}, ("forbidden", '{"title": 7, "detail": [], "code": {}}')),
    ([1], ("forbidden", "[1]")),
]


@pytest.mark.parametrize(("body", "told"), PROBLEMS, ids=range(len(PROBLEMS)))
async def test_a_problem_body_is_read_into_error_and_code(body, told):
    crm, _ = connector_of(Reply(status=403, headers=PROBLEM, body=json.dumps(body).encode()))
    async with crm:
        result = await crm.get_account(7)
    assert (result.error_code, result.error) == (told[0], f"crm get_account: 403 {told[1]}")
    assert result.data == (body if isinstance(body, dict) else None)
    assert not result.retryable


def pages(request):
    """Two pages for each way to tell of the next one."""
    way, number = request.url.path.rsplit("/", 1)[-1], request.url.params.get("page", "1")
    items = [{"id": f"{number}{letter}"} for letter in "ab"]
    last = number == "2"
    if way == "link":
        link = '</api/link?page=2&x=%2C>; title="a"; rel="next last", <https://crm.test/>; rel="first"'
        return Reply(headers={} if last else {"link": link}, body=json.dumps(items).encode())
    body = {"items": items}
    if way == "odata":
        body = {"value": items, "@odata.nextLink": None if last else f"{API}/odata?page=2"}
    elif way == "hal":
        body["_links"] = {} if last else {"next": {"href": "?page=2"}}
    elif way == "cursor":
        body["more"] = "" if last else 2
    elif way == "circle":
        body["next"] = "?page=2"
    elif way == "named":
        body = {"items": "no list", "things": items}
    return Reply(body=json.dumps(body).encode())


WAYS = {
    "link": {},
    "odata": {},
    "hal": {},
    "circle": {},
    "cursor": {"cursor": ("page", "more"), "params": {"page": "1", "size": "2"}},
}


@pytest.mark.parametrize("way", WAYS)
async def test_pages_are_followed_to_the_last(way):
    crm, network = connector_of(pages)
    async with crm:
        items = [item async for item in crm.iter_items(way, operation="list", **WAYS[way])]
        assert [item.data["id"] for item in items] == ["1a", "1b", "2a", "2b"]
        assert items[0].attempts == 1
        if way == "link":
            (listed,) = [await crm._make_request("GET", "link")]
            assert listed.data["next_cursor"] == "/api/link?page=2&x=%2C"
        if way == "cursor":
            assert network.sent[1].url == f"{API}/cursor?page=2&size=2"
        named = [page.data async for page in crm.iter_pages("named", items="things")]
        assert named == [{"items": [{"id": "1a"}, {"id": "1b"}], "next_cursor": None}]


BAD_PAGES = [
    (Reply(status=404, body=b"{}"), "not_found"),
    (Reply(body=b'{"items": 7}'), "invalid_response"),
    (Reply(body=b'{"items": [], "next": "https://elsewhere.test/api?page=2"}'), "invalid_response"),
    (Reply(body=b'{"items": [], "next": "https://["}'), "invalid_response"),
    (Reply(body=b'{"items": [], "next": "https://crm.test:x/"}'), "invalid_response"),
    (Reply(body=b'{"items": [], "next": "https://[::1"}'), "invalid_response"),
    (Reply(body=b'{"items": [], "next": "\\ud800"}'), "invalid_response"),
]


@pytest.mark.parametrize(("reply", "code"), BAD_PAGES)
async def test_a_page_that_cannot_be_had_is_the_last_result(reply, code):
    crm, network = connector_of(reply)
    async with crm:
        results = [item async for item in crm.iter_items("things")]
    assert [(result.success, result.error_code) for result in results] == [(False, code)]
    assert len(network.sent) == 1


class Login:
    """A token endpoint whose refresh tokens are good for one use."""

    def __init__(self):
        self.refresh_token = FIRST
        self.given = []
        self.access = None

    def __call__(self, request):
        form = dict(httpx.QueryParams(request.content.decode()))
        if form["grant_type"] == "refresh_token" and form["refresh_token"] != self.refresh_token:
            return Reply(status=400, body=b'{"error": "invalid_grant", "error_description": "used already"}')
        number = len(self.given) + 1
        self.given.append(form)
        self.access, self.refresh_token = f"access-{number}", f"refresh-{number}"
        answer = {"access_token": self.access, "refresh_token": self.refresh_token, "expires_in": 3600}
        return Reply(after=0.5, body=json.dumps(answer).encode())


def guarded(login):
    return lambda request: (
        Reply(body=b'{"id": 1}') if request.headers["authorization"] == f"Bearer {login.access}" else 401
    )


async def test_100_calls_with_an_expired_token_make_one_request_to_a_login_that_rotates(caplog):
    caplog.set_level(logging.DEBUG)
    clock, login, saved = ManualClock(), Login(), []
    at_login = ScriptedTransport(login, clock=clock)
    source = RefreshToken(
        LOGIN,
        "the id",
        "the-secret",
        refresh_token=FIRST,
        save=saved.append,
        origin=API,
        transport=at_login,
    )
    network = ScriptedTransport(guarded(login), clock=clock)
    results = []

    async def call(crm):
        results.append(await crm.get_account(7))

    async with Crm(API, auth=source, transport=network, clock=clock) as crm:
        for later in (0.0, 3600.0):
            clock.advance(later)
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(call, crm)
        login.access = "revoked"
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(call, crm)
        shown = [repr(crm), repr(crm.stack.describe()), repr(source), *map(repr, results)]
    assert [result.success for result in results] == [True] * 300
    assert len(at_login.sent) == 3
    assert [form["refresh_token"] for form in login.given] == ["refresh-0", "refresh-1", "refresh-2"]
    assert saved == ["refresh-1", "refresh-2", "refresh-3"]
    told = "\n".join([*shown, *(f"{record.getMessage()} {vars(record)}" for record in caplog.records)])
    assert [word for word in ("access-", "refresh-1", "the-secret", "dGhl") if word in told] == []


WRONG = b'{"error": "invalid_client", "error_description": "AADSTS: the-secret is wrong"}'


@pytest.mark.parametrize(
    ("status", "body", "code", "retryable", "told"),
    [
        (400, WRONG, "invalid_client", False, "AADSTS: client-secret-"),
        (200, b'{"ok": false, "error": "invalid_auth"}', "invalid_auth", False, "invalid_auth"),
        (503, b"<html>", "http_503", True, "http_503"),
        (200, b"[]", "http_200", False, "http_200"),
    ],
)  # fmt: skip
async def test_a_login_that_refuses_is_a_result(status, body, code, retryable, told):
    clock = ManualClock()
    source = ClientCredentials(
        LOGIN,
        "the id",
        "the-secret",
        origin=API,
        transport=ScriptedTransport(Reply(status=status, body=body), clock=clock),
    )
    network = ScriptedTransport(200, clock=clock)
    async with Crm(API, auth=source, transport=network, clock=clock) as crm:
        result = await crm.get_account(7)
    assert (result.error_code, result.retryable, network.sent) == (code, retryable, [])
    assert told in result.error
    assert "the-secret" not in result.error


async def test_a_401_that_no_other_token_follows_says_why():
    clock, login = ManualClock(), Login()
    at_login = ScriptedTransport(login, Reply(status=400, body=b'{"error": "invalid_grant"}'), clock=clock)
    source = ClientCredentials(LOGIN, "id", "the-secret", origin=API, transport=at_login)
    async with Crm(API, auth=source, transport=ScriptedTransport(401, clock=clock), clock=clock) as crm:
        result = await crm.get_account(7)
    assert result.error == "crm get_account: 401 no other token: invalid_grant"
    assert (result.error_code, result.status_code) == ("unauthorized", 401)


async def test_without_a_base_url_whole_urls_are_sent():
    clock = ManualClock()
    network = ScriptedTransport(204, clock=clock)
    policy = Policy(retry=RetryPolicy(max_attempts=1))
    async with EnterpriseConnector(transport=network, clock=clock, policy=policy) as api:
        result = await api._make_request("GET", f"{API}/x")
        assert not (await api._make_request("GET", "/x")).success
    assert (result.success, result.data) == (True, {})
