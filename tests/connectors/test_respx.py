"""Connectors in a user's own tests: respx, beneath httpx's own transport, sees each operation as sent."""

from __future__ import annotations

import runpy
from pathlib import Path

import httpx
import pytest

from aragora_transport.connectors import DiscordConnector, SlackConnector, TeamsConnector, TelegramConnector
from aragora_transport.testing import Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

CONNECTORS = {
    "discord": (DiscordConnector, ["a-token"]),
    "slack": (SlackConnector, ["a-token"]),
    "teams": (TeamsConnector, ["an-id", "a-secret", "a-tenant"]),
    "telegram": (TelegramConnector, ["12:a-token"]),
}
ANSWER = b'{"ok": true, "access_token": "t", "expires_in": 3600}'
JSON = {"content-type": "application/json"}


def shown(request, body):
    kept = {name: request.headers.get(name) for name in ("authorization", "content-type", "user-agent")}
    return request.method, str(request.url), kept, body


@pytest.mark.parametrize("platform", CONNECTORS)
async def test_respx_sees_the_requests_that_a_scripted_transport_does(platform, respx_mock):
    make, arguments = CONNECTORS[platform]
    requests = runpy.run_path(str(Path(__file__).parent / f"test_{platform}.py"))
    calls = [call for call, *_ in {**requests["REQUESTS"], **requests.get("GRAPH_REQUESTS", {})}.values()]
    route = respx_mock.route().mock(return_value=httpx.Response(200, content=ANSWER, headers=JSON))
    network = ScriptedTransport(Reply(body=ANSWER, headers=JSON))
    async with make(*arguments) as real, make(*arguments, transport=network) as scripted:
        for call in calls:
            results = await call(real), await call(scripted)
            assert results[0].data == results[1].data
    seen = [shown(request, request.content) for request, _ in route.calls]
    assert seen == [shown(sent, sent.body) for sent in network.sent]
    assert len(seen) >= len(calls)
