"""What httpx's clients do above a transport: redirects, authentication, cookies, entering and closing."""

from __future__ import annotations

import pytest

from aragora_transport.testing import Answer, FaultServer

pytestmark = pytest.mark.anyio

FINE = Answer(body=b"fine")


def fails_first(*statuses):
    """Each path answers with these first."""
    calls = {}

    def step(request):
        rest = calls.setdefault(request.path, list(statuses))
        if rest:
            return rest.pop(0)
        if request.path == "/from":
            return Answer(status=302, headers={"Location": "/to", "Set-Cookie": "hop=1"}, body=b"over there")
        return FINE

    return FaultServer(step)


async def test_each_hop_of_a_redirect_is_a_call_with_retries_of_its_own(sockets):
    with fails_first(503, 503) as server:
        async with sockets.caller(client={"follow_redirects": True}) as caller:
            answer = await caller.get(f"{server.url}/from")
            assert answer.content == b"fine"
            assert [hop.status_code for hop in answer.history] == [302]
            assert dict(caller.client.cookies) == {"hop": "1"}
            assert caller.taken == []
        assert [request.path for request in server.requests] == ["/from"] * 3 + ["/to"] * 3
        assert server.connections == 1
        records = [one.extensions["aragora_transport"] for one in (*answer.history, answer)]
        assert [[attempt.status for attempt in record.attempts] for record in records] == [
            [503, 503, 302],
            [503, 503, 200],
        ]
        assert records[0] is not records[1]


async def test_a_request_says_itself_whether_to_follow_a_redirect(sockets):
    with fails_first() as server:
        async with sockets.caller(client={"follow_redirects": True}) as caller:
            answer = await caller.get(f"{server.url}/from", follow_redirects=False)
            assert answer.status_code == 302
        assert len(server.requests) == 1


async def test_a_redirected_upload_is_sent_again_as_httpx_does(sockets):
    def step(request):
        if request.path == "/from":
            return Answer(status=307, headers={"Location": "/to"})
        return 503 if len(server.requests) < 3 else FINE

    with FaultServer(step) as server:
        async with sockets.caller(client={"follow_redirects": True}) as caller:
            answer = await caller.request("POST", f"{server.url}/from", content=b"all of it")
            assert answer.content == b"fine"
        assert [request.path for request in server.requests] == ["/from", "/to", "/to"]
        assert {request.body for request in server.requests} == {b"all of it"}


async def test_an_auth_flow_sends_the_same_request_twice(sockets):
    class Auth(sockets.httpx.Auth):
        def auth_flow(self, request):
            answer = yield request
            if answer.status_code == 401:
                request.headers["Authorization"] = "token"
                yield request

    def step(request):
        if "authorization" not in request.headers:
            return Answer(status=401, body=b"who are you?")
        return 503 if len(server.requests) < 3 else FINE

    with FaultServer(step) as server:
        async with sockets.caller(client={"auth": Auth()}) as caller:
            answer = await caller.request("POST", server.url, content=b"all of it")
            assert answer.content == b"fine"
            assert caller.taken == []
        assert {request.body for request in server.requests} == {b"all of it"}
        assert len(server.requests) == 3


async def test_hooks_of_a_client_see_one_request_and_one_answer(sockets):
    seen = []

    def note(one):
        seen.append(type(one).__name__)

    async def note_async(one):
        note(one)

    hook = note if sockets.blocking else note_async
    with fails_first(503, 503) as server:
        hooks = {"event_hooks": {"request": [hook], "response": [hook]}}
        async with sockets.caller(client=hooks) as caller:
            assert (await caller.get(server.url)).content == b"fine"
        assert seen == ["Request", "Response"]


async def test_a_client_that_is_closed_closes_the_connections(sockets):
    with FaultServer(FINE) as server:
        async with sockets.caller() as caller:
            await caller.get(server.url)
            assert server.open_connections == 1
        await sockets.wait(server.wait_until, lambda: server.open_connections == 0)
