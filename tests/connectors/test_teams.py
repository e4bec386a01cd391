"""Teams' connector: what it sends and where to, and what it makes of the answers."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
import threading
from urllib.parse import parse_qsl

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from aragora_transport.connectors import ConversationReference, SQLiteConversationStore, TeamsConnector
from aragora_transport.testing import (
    Answer,
    ConnectorContract,
    FaultServer,
    Hang,
    ManualClock,
    Reply,
    ScriptedTransport,
)

pytestmark = pytest.mark.anyio

SECRET = "the-app-secret"  # noqa: S105  # of nobody, as all here
TOKENS = {
    "https://api.botframework.com/.default": "bot-token",
    "https://graph.microsoft.com/.default": "graph-token",
}
LOGIN = "https://login.microsoftonline.com"
SMBA = "https://smba.trafficmanager.net/teams"
EMEA = "https://smba.trafficmanager.net/emea/"
GRAPH = "https://graph.microsoft.com/v1.0"
HOOK_PATH = "guid@tenant/IncomingWebhook/hook-of-nobody/guid"
HOOK = f"https://x.webhook.office.com/webhookb2/{HOOK_PATH}"
FLOW = "https://prod.logic.azure.com/workflows/w1/triggers/manual/paths/invoke?sp=%2Fx&sig=sig-of%2Fnobody"
CID = "19:x@thread.tacv2;messageid=7"
CID_PATH = "19:x@thread.tacv2%3Bmessageid%3D7"
JSON = {"content-type": "application/json; charset=utf-8"}


def reply(value, status=200, **headers):
    return Reply(status=status, body=json.dumps(value).encode(), headers={**JSON, **headers})


def error(status, code, message="No", **headers):
    return reply({"error": {"code": code, "message": message}}, status, **headers)


def text(words):
    return Reply(body=words.encode(), headers={"content-type": "text/plain; charset=utf-8"})


ID = reply({"id": "1"}, 201)
LIMITED = error(429, "Throttled", **{"retry-after": "7"})


class Login(httpx.AsyncBaseTransport):
    """Answers for the login, and hands on the rest."""

    def __init__(self, below, expires_in=3600):
        self.below = below
        self.expires_in = expires_in
        self.asked = []

    async def handle_async_request(self, request):
        if "login" not in request.url.host:
            return await self.below.handle_async_request(request)
        form = dict(parse_qsl((await request.aread()).decode()))
        self.asked.append((str(request.url), form))
        token = {"access_token": TOKENS.get(form["scope"], "a-token"), "expires_in": self.expires_in}
        return httpx.Response(200, json={"token_type": "Bearer", **token})

    async def aclose(self):
        await self.below.aclose()


class Teams:
    """A bot, a login, and a server that does as it is told."""

    def __init__(self, *steps, expires_in=3600, **keywords):
        self.clock = ManualClock()
        self.registry = CollectorRegistry()
        self.network = ScriptedTransport(*steps, clock=self.clock)
        self.login = Login(self.network, expires_in)
        options = {"tenant": "t1", "transport": self.login, "clock": self.clock, "registry": self.registry}
        self.bot = TeamsConnector("app1", SECRET, **{**options, **keywords})

    @property
    def sent(self):
        return self.network.sent


class TestTeamsConnector(ConnectorContract):
    good = ID
    limited = LIMITED
    secrets = (SECRET, "bot-token", "graph-token")

    def connector(self, *, transport, **keywords):
        return TeamsConnector("app1", SECRET, tenant="t1", transport=Login(transport), **keywords)


class TestAWebhookOfTeams(TestTeamsConnector):
    good = text("1")
    secrets = (SECRET, HOOK_PATH, "hook-of-nobody")

    async def send(self, connector):
        return await connector.post_incoming_webhook(HOOK, "hello")


class TestAWorkflowOfTeams(TestTeamsConnector):
    good = Reply(status=202)
    secrets = (SECRET, "sig-of/nobody", "sig-of%2Fnobody")

    async def send(self, connector):
        return await connector.post_incoming_webhook(FLOW, "hello")


A = f"v3/conversations/{CID_PATH}/activities"
MESSAGE = {"type": "message", "text": "hi"}
REQUESTS = {  # operation: how it is called, method, path, body
    "send_message": (
        lambda bot: bot.send_message(CID, "hi", textFormat="plain"),
        *("POST", A, {**MESSAGE, "textFormat": "plain"}),
    ),
    "reply": (lambda bot: bot.reply(CID, "5", "hi"), "POST", f"{A}/5", {**MESSAGE, "replyToId": "5"}),
    "update_message": (
        lambda bot: bot.update_message(CID, "5", "hi"),
        "PUT",
        f"{A}/5",
        {**MESSAGE, "id": "5"},
    ),
    "delete_message": (lambda bot: bot.delete_message(CID, "5"), "DELETE", f"{A}/5", None),
    "send_typing": (lambda bot: bot.send_typing(CID), "POST", A, {"type": "typing"}),
    "create_conversation": (
        lambda bot: bot.create_conversation("29:u", tenant_id="t9", channelData={"x": 1}),
        *("POST", "v3/conversations"),
        {
            "isGroup": False,
            "bot": {"id": "28:app1"},
            "members": [{"id": "29:u"}],
            "tenantId": "t9",
            "channelData": {"tenant": {"id": "t9"}, "x": 1},
        },
    ),
    "create_conversation in a channel": (
        lambda bot: bot.create_conversation(channel_id="19:c", activity=MESSAGE),
        *("POST", "v3/conversations"),
        {
            "isGroup": True,
            "bot": {"id": "28:app1"},
            "activity": MESSAGE,
            "channelData": {"channel": {"id": "19:c"}},
        },
    ),
    "get_user in a conversation": (
        lambda bot: bot.get_user("29:u", CID),
        *("GET", f"v3/conversations/{CID_PATH}/members/29:u", None),
    ),
    "get_team": (lambda bot: bot.get_team("19:t"), "GET", "v3/teams/19:t", None),
    "health": (lambda bot: bot.health(), "GET", "v3/conversations", None),
    "call": (
        lambda bot: bot.call("POST", "/v3/x", json={"a": 1}),
        *("POST", "v3/x", {"a": 1}),
    ),
}
NOTIFICATION = {
    "topic": {"source": "entityUrl", "value": f"{GRAPH}/users/u1"},
    "activityType": "done",
    "chainId": 7,
    "previewText": {"content": "It is done"},
}
GRAPH_REQUESTS = {
    "get_user": (lambda bot: bot.get_user("u 1"), "GET", "users/u%201", None),
    "get_channel": (
        lambda bot: bot.get_channel("19:c", "t1"),
        *("GET", "teams/t1/channels/19:c", None),
    ),
    "get_channel that is a chat": (lambda bot: bot.get_channel("19:c"), "GET", "chats/19:c", None),
    "graph": (
        lambda bot: bot.graph("PATCH", "/me/x", {"a": 1}, params={"$top": 1}),
        *("PATCH", "me/x?%24top=1", {"a": 1}),
    ),
    "send_activity_notification": (
        lambda bot: bot.send_activity_notification(
            *("done", f"{GRAPH}/users/u1", "It is done"), user_id="u1", chain_id=7, parameters={"who": "me"}
        ),
        *("POST", "users/u1/teamwork/sendActivityNotification"),
        {**NOTIFICATION, "templateParameters": [{"name": "who", "value": "me"}]},
    ),
    "send_activity_notification in a team": (
        lambda bot: bot.send_activity_notification(
            *("done", f"{GRAPH}/users/u1", "It is done"), team_id="t1", chain_id=7, recipient={"userId": "u"}
        ),
        *("POST", "teams/t1/sendActivityNotification", {**NOTIFICATION, "recipient": {"userId": "u"}}),
    ),
    "send_activity_notification in a chat": (
        lambda bot: bot.send_activity_notification(
            "done", {"source": "text", "value": "x"}, "It is done", chat_id="19:c", chain_id=7
        ),
        *("POST", "chats/19:c/sendActivityNotification"),
        {**NOTIFICATION, "topic": {"source": "text", "value": "x"}},
    ),
}
ALL = {
    **{name: (SMBA, "bot-token", row) for name, row in REQUESTS.items()},
    **{name: (GRAPH, "graph-token", row) for name, row in GRAPH_REQUESTS.items()},
}


@pytest.mark.parametrize("operation", ALL)
async def test_an_operation_is_one_request(operation):
    base, token, (call, method, path, body) = ALL[operation]
    teams = Teams(reply({"id": "1"}))
    result = await call(teams.bot)
    assert (result.success, result.data) == (True, {} if operation == "health" else {"id": "1"})
    (sent,) = teams.sent
    assert (sent.method, sent.url) == (method, f"{base}/{path}")
    assert sent.headers["authorization"] == f"Bearer {token}"
    if body is None:
        assert sent.body == b""
    else:
        assert sent.headers["content-type"] == "application/json"
        assert json.loads(sent.body) == body
    assert sent.extensions["aragora_transport"].operation == operation.partition(" ")[0]


async def test_the_same_over_a_real_socket():
    answer = Answer(body=b'{"id": "1", "access_token": "real", "expires_in": 3600}', headers=JSON)
    with FaultServer(answer) as server:
        places = {
            "base_url": f"{server.url}/bot/",
            "graph_url": f"{server.url}/graph",
            "login_url": server.url,
        }
        async with TeamsConnector("app1", SECRET, tenant="t1", **places) as bot:
            for operation, (_, _, (call, *_)) in ALL.items():
                assert (await call(bot)).success, operation
            assert (await bot.post_incoming_webhook(f"{server.url}/webhookb2/{HOOK_PATH}", "hi")).success
        seen = [(one.method, one.target, one.headers.get("authorization")) for one in server.requests]
    expected = [
        (method, f"{'/bot' if base == SMBA else '/graph'}/{path}", "Bearer real")
        for base, _, (_, method, path, _) in ALL.values()
    ]
    logins = [one for one in seen if one[1].endswith("/oauth2/v2.0/token")]
    assert logins == [("POST", "/t1/oauth2/v2.0/token", None)] * 2  # one for each audience
    assert [one for one in seen if one not in logins][:-1] == expected
    assert seen[-1][:2] == ("POST", f"/webhookb2/{HOOK_PATH}")


async def test_lists_come_as_items_and_page_by_page():
    first = reply({"members": [{"id": "a"}], "continuationToken": "c1"})
    last = reply({"members": [{"id": "b"}], "continuationToken": ""})
    teams = Teams(first, last)
    pages = [page.data async for page in teams.bot.iter_members(CID, limit=1)]
    assert pages == [
        {"items": [{"id": "a"}], "next_cursor": "c1"},
        {"items": [{"id": "b"}], "next_cursor": None},
    ]
    url = f"{SMBA}/v3/conversations/{CID_PATH}/pagedmembers?pageSize=1"
    assert [sent.url for sent in teams.sent] == [url, f"{url}&continuationToken=c1"]
    teams = Teams(reply({"conversations": [{"id": "19:c"}]}))
    assert (await teams.bot.list_channels("19:t")).data == {"items": [{"id": "19:c"}], "next_cursor": None}
    assert teams.sent[0].url == f"{SMBA}/v3/teams/19:t/conversations"
    for call in (lambda bot: bot.get_members(CID), lambda bot: bot.list_channels("19:t")):
        assert (await call(Teams(reply({"members": {}})).bot)).error_code == "invalid_response"
        assert (await call(Teams(error(403, "Forbidden")).bot)).error_code == "Forbidden"


async def test_graphs_next_links_are_followed_where_they_stay_at_graph():
    first = reply({"value": [1], "@odata.nextLink": f"{GRAPH}/users?$skiptoken=x"})
    teams = Teams(first, reply({"value": [2]}))
    assert [page.data["items"] async for page in teams.bot.iter_graph("users")] == [[1], [2]]
    assert teams.sent[1].url == f"{GRAPH}/users?$skiptoken=x"
    assert {sent.headers["authorization"] for sent in teams.sent} == {"Bearer graph-token"}
    teams = Teams(reply({"value": [1], "@odata.nextLink": "https://evil.test/users"}))
    assert [page.error_code async for page in teams.bot.iter_graph("users")] == ["invalid_response"]
    assert len(teams.sent) == 1


async def test_graph_needs_a_tenant():
    teams = Teams(reply({}), tenant=None)
    assert (await teams.bot.graph("GET", "users")).error_code == "no_tenant"
    assert [page.error_code async for page in teams.bot.iter_graph("users")] == ["no_tenant"]
    async with teams.bot as bot:
        assert (await bot.send_message(CID, "hi")).success
    assert teams.login.asked[0][0] == f"{LOGIN}/botframework.com/oauth2/v2.0/token"


# --- tokens ---


async def test_there_is_one_token_for_each_audience_however_many_ask():
    teams = Teams(ID)
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(teams.bot.send_message, f"c{number}", "hi")
            tasks.start_soon(teams.bot.graph, "GET", f"users/{number}")
    form = {"grant_type": "client_credentials", "client_id": "app1", "client_secret": SECRET}
    url = f"{LOGIN}/t1/oauth2/v2.0/token"
    assert sorted(teams.login.asked, key=lambda one: one[1]["scope"]) == [
        (url, {**form, "scope": scope}) for scope in TOKENS
    ]
    teams.clock.advance(3600.0)
    await teams.bot.send_message(CID, "hi")
    assert len(teams.login.asked) == 3
    labels = {"platform": "teams", "operation": "token", "status": "200"}
    assert teams.registry.get_sample_value("platform_requests_total", labels) == 3


@pytest.mark.parametrize(
    ("cloud", "urls"),
    [
        (
            "public",
            [
                "login.microsoftonline.com/t1",
                "api.botframework.com",
                "smba.trafficmanager.net",
                "graph.microsoft.com",
            ],
        ),
        (
            "usgov",
            [
                "login.microsoftonline.us/t1",
                "api.botframework.us",
                "smba.infra.gov.teams.microsoft.us",
                "graph.microsoft.us",
            ],
        ),
        (
            "usgovdod",
            [
                "login.microsoftonline.us/t1",
                "api.botframework.us",
                "smba.infra.dod.teams.microsoft.us",
                "dod-graph.microsoft.us",
            ],
        ),
        (
            "china",
            [
                "login.partner.microsoftonline.cn/t1",
                "api.botframework.azure.cn",
                "frontend.botapi.msg.infra.teams.microsoftonline.cn",
                "microsoftgraph.chinacloudapi.cn",
            ],
        ),
    ],
)
async def test_each_cloud_has_places_of_its_own(cloud, urls):
    login, scope, service, graph = (f"https://{url}" for url in urls)
    teams = Teams(ID, cloud=cloud)
    await teams.bot.send_message(CID, "hi")
    await teams.bot.graph("GET", "users")
    told = [(url, form["scope"]) for url, form in teams.login.asked]
    assert told == [
        (f"{login}/oauth2/v2.0/token", f"{scope}/.default"),
        (f"{login}/oauth2/v2.0/token", f"{graph}/.default"),
    ]
    assert [sent.url for sent in teams.sent] == [f"{service}/teams/{A}", f"{graph}/v1.0/users"]
    assert teams.sent[0].headers["authorization"].startswith("Bearer ")
    with pytest.raises(ValueError, match="cloud='mars': it must be one of public, usgov, usgovdod, china"):
        Teams(ID, cloud="mars")


async def test_a_bot_of_many_tenants_gets_its_own_token_elsewhere_than_graphs():
    teams = Teams(ID, multi_tenant=True)
    await teams.bot.send_message(CID, "hi")
    await teams.bot.graph("GET", "users")
    assert [url.split("/")[3] for url, _ in teams.login.asked] == ["botframework.com", "t1"]


async def test_a_login_that_refuses_is_a_result():
    refused = reply({"error": "invalid_client", "error_description": f"AADSTS7000215: {SECRET}"}, 401)
    clock = ManualClock()
    bot = TeamsConnector("app1", SECRET, "t1", transport=ScriptedTransport(refused, clock=clock), clock=clock)
    result = await bot.send_message(CID, "hi")
    assert (result.error_code, result.retryable, result.attempts) == ("invalid_client", False, 0)
    assert "AADSTS7000215" in result.error
    assert SECRET not in result.error


# --- where conversations are, and where the token goes ---

ACTIVITY = {
    "type": "message",
    "serviceUrl": EMEA,
    "conversation": {"id": CID, "conversationType": "channel", "tenantId": "t9"},
    "from": {"id": "29:u"},
    "recipient": {"id": "28:app1"},
}
REFERENCE = ConversationReference(
    conversation_id=CID, service_url=EMEA, tenant_id="t9", user_id="29:u", bot_id="28:app1", kind="channel"
)


async def test_a_conversation_is_spoken_in_where_its_last_activity_came_from(tmp_path):
    teams = Teams(ID)
    assert (await teams.bot.remember(ACTIVITY)).data == {"conversation_id": CID}
    await teams.bot.send_message(CID, "hi")
    await teams.bot.send_message(CID, "hi", service_url="https://smba.trafficmanager.net/apac")
    await teams.bot.remember({**ACTIVITY, "serviceUrl": "https://smba.trafficmanager.net/amer"})
    await teams.bot.send_message(CID, "hi")
    await teams.bot.send_message("another", "hi")
    assert [sent.url.partition("/v3")[0].rpartition("/")[2] for sent in teams.sent] == [
        "emea",
        "apac",
        "amer",
        "teams",
    ]


async def test_a_store_outlives_its_connector(tmp_path):
    path = tmp_path / "teams.sqlite3"
    for store in (path, str(path), SQLiteConversationStore(path)):
        async with Teams(ID, store=store).bot as bot:
            await bot.remember(ACTIVITY)
        teams = Teams(ID, store=store)
        async with teams.bot as bot:
            await bot.send_message(CID, "hi")
            assert await bot.store.references() == [REFERENCE]
            await bot.store.delete(CID)
            assert await bot.store.get(CID) is None
        assert teams.sent[0].url.startswith(EMEA)
    theirs = SQLiteConversationStore(path)
    await theirs.put(REFERENCE)
    async with Teams(ID, store=theirs).bot:
        pass
    assert theirs._database is not None  # who made it closes it
    await theirs.aclose()
    await theirs.aclose()


async def test_a_file_is_worked_on_beside_the_event_loop(tmp_path, monkeypatch):
    threads = []
    connect = sqlite3.connect

    def noted(*arguments, **keywords):
        threads.append(threading.current_thread())
        return connect(*arguments, **keywords)

    monkeypatch.setattr(sqlite3, "connect", noted)
    store = SQLiteConversationStore(tmp_path / "x.sqlite3")
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            reference = ConversationReference(conversation_id=str(number), service_url=EMEA)
            tasks.start_soon(store.put, reference)
    assert len(await store.references()) == 20
    await store.aclose()
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_a_store_that_fails_is_a_result(tmp_path):
    (tmp_path / "x.sqlite3").write_bytes(b"this is no database, whatever it is called" * 100)
    teams = Teams(reply({"id": "c9", "serviceUrl": EMEA}), store=tmp_path / "x.sqlite3")
    for result in (await teams.bot.remember(ACTIVITY), await teams.bot.send_message(CID, "hi")):
        assert (result.success, result.error_code) == (False, "store_failed")
    assert "the store of conversations failed: DatabaseError" in result.error
    assert teams.sent == []
    assert (await teams.bot.send_message(CID, "hi", service_url=EMEA)).success
    assert (await teams.bot.create_conversation("29:u")).success
    await teams.bot.aclose()


def test_what_a_store_holds_may_be_anything():
    for odd in (
        "",
        "[]",
        "nul",
        "{}",
        '{"conversation_id": 7, "service_url": "x"}',
        '{"conversation_id": "x"}',
    ):
        assert ConversationReference.from_json(odd) is None
    assert ConversationReference.from_json(REFERENCE.to_json()) == REFERENCE
    by_data = {**ACTIVITY, "conversation": {"id": CID}, "channelData": {"tenant": {"id": "t8"}}}
    assert ConversationReference.from_activity(by_data).tenant_id == "t8"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://evil.test/",
            "http://smba.trafficmanager.net/emea",
            "https://smba.trafficmanager.net.evil.test",
        ),
        *("https://smba.trafficmanager.net:444/", "https://evil.test/smba.trafficmanager.net", "smba", ""),
        *("https://smba.infra.gov.teams.microsoft.us/gcch", "https://[x"),
    ],
)
async def test_the_token_goes_to_hosts_of_the_cloud_alone(url):
    teams = Teams(ID)
    for result in (
        await teams.bot.send_message(CID, "hi", service_url=url or "x"),
        await teams.bot.remember({**ACTIVITY, "serviceUrl": url or "x"}),
        await teams.bot.call("GET", "v3/x", service_url=url or "x"),
    ):
        assert (result.success, result.error_code) == (False, "foreign_host")
    await teams.bot.store.put(ConversationReference(conversation_id=CID, service_url=url or "x"))
    assert (await teams.bot.send_message(CID, "hi")).error_code == "foreign_host"
    assert (teams.sent, teams.login.asked) == ([], [])
    assert (await teams.bot.remember({"type": "typing"})).error_code == "invalid_request"


async def test_nor_does_it_follow_a_redirect_or_go_to_a_place_that_an_answer_names():
    moved = Reply(status=307, headers={"location": "https://evil.test/"})
    teams = Teams(moved)
    assert (await teams.bot.send_message(CID, "hi")).error_code == "http_307"
    assert len(teams.sent) == 1
    teams = Teams(reply({"id": "c9", "serviceUrl": "https://evil.test/"}), ID)
    assert (await teams.bot.create_conversation("29:u")).success
    assert await teams.bot.store.get("c9") is None


async def test_further_places_can_be_named():
    teams = Teams(ID, service_urls=["https://gateway.test:8443"])
    await teams.bot.remember({**ACTIVITY, "serviceUrl": "https://gateway.test:8443/x/"})
    assert (await teams.bot.send_message(CID, "hi")).success
    assert teams.sent[0].url == f"https://gateway.test:8443/x/{A}"
    assert teams.sent[0].headers["authorization"] == "Bearer bot-token"


async def test_a_conversation_that_was_created_is_known_from_then_on():
    teams = Teams(reply({"id": "c9", "serviceUrl": EMEA}), ID)
    assert (await teams.bot.create_conversation("29:u", tenant_id="t9")).data["id"] == "c9"
    await teams.bot.send_message("c9", "hi")
    assert teams.sent[1].url == f"{EMEA}v3/conversations/c9/activities"
    known = await teams.bot.store.get("c9")
    assert known == ConversationReference(
        conversation_id="c9", service_url=EMEA, tenant_id="t9", user_id="29:u"
    )
    teams = Teams(reply({"id": "c8"}))
    await teams.bot.create_conversation("29:u", service_url=EMEA)
    assert (await teams.bot.store.get("c8")).service_url == EMEA
    teams = Teams(error(403, "BotDisabledByAdmin"))
    assert not (await teams.bot.create_conversation("29:u")).success
    assert await teams.bot.store.references() == []


@pytest.mark.parametrize(
    ("status", "code", "kept"),
    [
        (403, "BotNotInConversationRoster", False),
        (403, "ConversationBlockedByUser", False),
        (404, "ConversationNotFound", False),
        (403, "BotDisabledByAdmin", True),
        (404, "ActivityNotFoundInConversation", True),
    ],
)
async def test_a_conversation_where_nothing_can_be_said_any_more_is_forgotten(status, code, kept):
    teams = Teams(error(status, code))
    await teams.bot.remember(ACTIVITY)
    assert (await teams.bot.send_message(CID, "hi")).error_code == code
    assert (await teams.bot.store.get(CID) is not None) == kept


# --- answers ---

OLD = {"errorCode": 209, "message": '{\r\n "subCode": "MessageWritesBlocked", "details": "x"}'}
ANSWERS = {  # what comes back for a message: code, retryable, wait, attempts, words
    "argument": (error(400, "BadArgument"), "BadArgument", False, None, 1, "400 No"),
    "not registered": (error(401, "BotNotRegistered"), "BotNotRegistered", False, None, 1, "401 No"),
    "blocked": (
        error(403, "ConversationBlockedByUser"),
        "ConversationBlockedByUser",
        False,
        None,
        1,
        "403 No",
    ),
    "old shape": (reply(OLD, 403), "MessageWritesBlocked", False, None, 1, '403 {\\r\\n "subCode"'),
    "not found": (error(404, "ConversationNotFound"), "ConversationNotFound", False, None, 1, "404 No"),
    "precondition": (error(412, "PreconditionFailed"), "PreconditionFailed", True, None, 3, "412 No"),
    "bare precondition": (Reply(status=412), "http_412", True, None, 3, "412"),
    "too big": (error(413, "MessageSizeTooBig"), "MessageSizeTooBig", False, None, 1, "413 No"),
    "limited": (error(429, "Throttled", **{"retry-after": "99"}), "Throttled", True, 99.0, 1, "429 No"),
    "service error": (error(500, "ServiceError"), "ServiceError", True, None, 1, "500 No"),
    "not implemented": (error(501, "NotImplemented"), "NotImplemented", False, None, 1, "501 No"),
    "bad gateway": (Reply(status=502, body=b"<html>"), "http_502", True, None, 1, "502 <html>"),
    "unavailable": (error(503, "ServiceError"), "ServiceError", True, None, 3, "503 No"),
    "page": (Reply(body=b"<html>"), "invalid_response", False, None, 1, "200 an answer that cannot be read"),
    "lost": (httpx.ReadError, "network_error", True, None, 1, "ReadError"),
    "silence": (Hang(), "timeout", True, None, 1, ""),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_an_answer_means(answer):
    step, code, retryable, wait, attempts, words = ANSWERS[answer]
    teams = Teams(step)
    result = await teams.bot.send_message(CID, "hi")
    assert not result.success
    assert (result.error_code, result.retryable, result.retry_after) == (code, retryable, wait)
    assert (result.attempts, len(teams.sent)) == (attempts, attempts)
    assert result.error.startswith(f"teams send_message: {words}")


@pytest.mark.parametrize("step", [Reply(status=202), Reply(status=200), Reply(status=204), reply({}, 201)])
async def test_an_answer_may_be_empty(step):
    for call in (REQUESTS["send_typing"][0], REQUESTS["delete_message"][0], REQUESTS["send_message"][0]):
        result = await call(Teams(step).bot)
        assert (result.success, result.data) == (True, {})


async def test_graphs_answers_are_read_as_its_own():
    refused = error(403, "Forbidden", "Missing role")
    result = await Teams(refused).bot.graph("GET", "users")
    assert (result.error_code, result.error) == ("Forbidden", "teams graph: 403 Missing role")
    assert (await Teams(Reply(status=204)).bot.graph("DELETE", "x")).data == {}
    teams = Teams(LIMITED, reply({}))
    assert (await teams.bot.graph("GET", "users")).success
    assert teams.sent[1].at >= 7.0


async def test_a_412_of_a_message_is_sent_again_since_nothing_was_done():
    teams = Teams(error(412, "PreconditionFailed"), ID)
    result = await teams.bot.send_message(CID, "hi")
    assert (result.success, result.attempts) == (True, 2)


async def test_what_is_harmless_twice_is_sent_again_and_the_rest_is_not():
    unsafe = {"send_message", "reply", "create_conversation", "create_conversation in a channel", "call"}
    for operation, (_, _, (call, *_)) in ALL.items():
        if operation == "graph":
            continue  # what a PATCH does, the caller knows
        for step in (500, httpx.ReadError):
            teams = Teams(step, reply({"id": "1"}))
            result = await call(teams.bot)
            assert (operation, len(teams.sent)) == (operation, 1 if operation in unsafe else 2)
            assert result.success != (operation in unsafe)
    teams = Teams(500, reply({}))
    assert not (await teams.bot.graph("POST", "chats", {})).success
    again = await Teams(500, error(404, "ActivityNotFoundInConversation")).bot.delete_message(CID, "5")
    assert again.data == {"already_done": True}
    assert not (
        await Teams(error(404, "ActivityNotFoundInConversation")).bot.delete_message(CID, "5")
    ).success


async def test_each_notification_has_a_chain_of_its_own_which_its_attempts_share():
    teams = Teams(500, Reply(status=204))
    for _ in range(2):
        assert (await teams.bot.send_activity_notification("done", "x", "y", user_id="u")).success
    first, again, second = (json.loads(sent.body)["chainId"] for sent in teams.sent)
    assert first == again != second
    assert all(0 < one < 2**63 for one in (first, second))
    for owners in ({}, {"user_id": "u", "team_id": "t"}):
        with pytest.raises(ValueError, match="give one of user_id=, team_id= and chat_id="):
            await teams.bot.send_activity_notification("done", "x", "y", **owners)


@pytest.mark.parametrize("status", [404, 405, 501, 200])
async def test_whoever_gets_past_the_login_is_healthy(status):
    assert (await Teams(status).bot.health()).success
    for refused in (401, 403, 400):
        assert not (await Teams(refused).bot.health()).success


async def test_what_teams_has_no_route_for_says_so():
    teams = Teams(ID)
    for result in (
        await teams.bot.add_reaction(CID, "1", "x"),
        await teams.bot.remove_reaction(CID, "1", "x"),
        await teams.bot.pin_message(CID, "1"),
        await teams.bot.unpin_message(CID, "1"),
        await teams.bot.upload_file(CID, b"x"),
    ):
        assert (result.success, result.error_code, result.attempts) == (False, "unsupported", 0)
    assert teams.sent == []


async def test_a_message_of_more_than_100_kib_in_utf_16_is_not_sent():
    teams = Teams(ID, text("1"))
    for call in (
        lambda: teams.bot.send_message(CID, "x" * 52_000),
        lambda: teams.bot.send_message(CID, "\N{ROCKET}" * 26_000),
        lambda: teams.bot.send_message(CID, attachments=["x" * 52_000]),
        lambda: teams.bot.create_conversation(activity={"text": "x" * 52_000}),
        lambda: teams.bot.post_incoming_webhook(HOOK, "x" * 52_000),
    ):
        result = await call()
        assert (result.error_code, result.attempts) == ("text_too_long", 0)
    assert teams.sent == []
    assert (await teams.bot.send_message(CID, "x" * 51_000)).success
    assert (await teams.bot.send_message(CID, "\ud800")).error_code == "invalid_request"


async def test_an_attachment_is_downloaded():
    teams = Teams(Reply(body=b"hello", headers={"content-type": "image/png"}))
    result = await teams.bot.download_file("a/1")
    assert result.data == {"size": 5, "content_type": "image/png", "content": b"hello"}
    assert teams.sent[0].url == f"{SMBA}/v3/attachments/a%2F1/views/original"
    sink = io.BytesIO()
    await teams.bot.download_file("a", sink, view="thumbnail", service_url=EMEA)
    assert teams.sent[1].url == f"{EMEA}v3/attachments/a/views/thumbnail"
    assert sink.getvalue() == b"hello"


# --- incoming webhooks ---


async def test_a_webhook_takes_cards_and_no_token():
    teams = Teams(text("1"))
    assert (await teams.bot.post_incoming_webhook(HOOK, "hi", cards=[{"type": "AdaptiveCard"}])).data == {
        "result": 1
    }
    await teams.bot.post_incoming_webhook(FLOW, payload={"@type": "MessageCard", "text": "hi"})
    hooked, flowed = teams.sent
    assert (hooked.method, hooked.url, flowed.url) == ("POST", HOOK, FLOW)
    kind = "application/vnd.microsoft.card.adaptive"
    said = {
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "TextBlock", "text": "hi", "wrap": True}],
    }
    assert json.loads(hooked.body) == {
        "type": "message",
        "attachments": [{"contentType": kind, "content": card} for card in (said, {"type": "AdaptiveCard"})],
    }
    assert json.loads(flowed.body) == {"@type": "MessageCard", "text": "hi"}
    assert not any("authorization" in sent.headers for sent in teams.sent)
    assert teams.login.asked == []


HIDDEN = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error"
WEBHOOK_ANSWERS = {  # what comes back for a webhook: success, code, retryable, attempts
    "one": (text("1"), True, None, False, 1),
    "accepted": (Reply(status=202), True, None, False, 1),
    "json": (reply({"ok": 1}), True, None, False, 1),
    "hidden 429": (text(f"{HIDDEN} 429 with ContextId MS-CV=1"), False, "429", True, 3),
    "hidden 412": (text(f"{HIDDEN} 412"), False, "412", True, 3),
    "hidden 503": (text(f"{HIDDEN} 503"), False, "503", True, 1),
    "hidden 403": (text(f"{HIDDEN} 403"), False, "403", False, 1),
    "another text": (text("Summary or Text is required."), False, "invalid_response", False, 1),
    "400": (Reply(status=400, body=b"Bad payload"), False, "bad_request", False, 1),
    "gone": (error(404, "WorkflowNotFound"), False, "WorkflowNotFound", False, 1),
}


@pytest.mark.parametrize("answer", WEBHOOK_ANSWERS)
async def test_what_the_text_of_a_webhook_means(answer):
    step, success, code, retryable, attempts = WEBHOOK_ANSWERS[answer]
    result = await Teams(step).bot.post_incoming_webhook(HOOK, "hi")
    assert (result.success, result.error_code, result.retryable) == (success, code, retryable)
    assert result.attempts == attempts


async def test_no_operation_raises_for_any_body():
    calls = [call for _, _, (call, *_) in ALL.values()]
    calls += [lambda bot: bot.get_members(CID), lambda bot: bot.list_channels("19:t")]
    calls += [lambda bot: bot.post_incoming_webhook(HOOK, "hi")]
    for body in ConnectorContract.odd_bodies:
        for headers in (JSON, {"content-type": "text/plain"}):
            teams = Teams(Reply(body=body, headers=headers))
            for call in calls:
                result = await call(teams.bot)
                assert isinstance(result.data, dict) if result.success else isinstance(result.error, str)
            for page in [page async for page in teams.bot.iter_graph("users")]:
                assert isinstance(page.success, bool)


async def test_no_token_request_raises_for_any_body():
    for body in ConnectorContract.odd_bodies:
        for status in (200, 400, 500):
            clock = ManualClock()
            network = ScriptedTransport(Reply(status=status, body=body, headers=JSON), clock=clock)
            bot = TeamsConnector("app1", SECRET, "t1", transport=network, clock=clock)
            result = await bot.send_message(CID, "hi")
            assert (result.success, result.attempts) == (False, 0)
            assert SECRET not in repr(result)


async def test_no_secret_of_a_url_or_a_token_is_seen(caplog):
    caplog.set_level(logging.DEBUG)
    secrets = (SECRET, "bot-token", "graph-token", "hook-of-nobody", "sig-of/nobody", "sig-of%2Fnobody")
    shown = []
    for step in (
        400,
        503,
        httpx.ReadError,
        lambda request: reply({"error": {"message": f"{request.url} {request.headers}"}}, 400),
    ):
        for call in (
            lambda bot: bot.post_incoming_webhook(HOOK, "hi"),
            lambda bot: bot.post_incoming_webhook(FLOW, "hi"),
            lambda bot: bot.send_message(CID, "hi"),
            lambda bot: bot.graph("GET", "users"),
        ):
            teams = Teams(step)
            result = await call(teams.bot)
            bot = {**teams.bot.__dict__, "graph": teams.bot._graph.__dict__}
            shown += [repr(result), repr(bot), generate_latest(teams.registry).decode()]
    for seen in (*shown, *(f"{record.getMessage()} {vars(record)}" for record in caplog.records)):
        assert not any(secret in seen for secret in secrets), seen
