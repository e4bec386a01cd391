"""Secrets take their place below everything, and nobody above sees them."""

import copy
import logging
import pickle
import traceback

import httpx
import httpx2
import pytest

from aragora_transport import Policy, RetryPolicy, Secret, resilient, resilient_sync, wrap_client
from aragora_transport._credentials import CredentialTransport, secrets_alive
from aragora_transport.testing import FaultServer, Reply, ScriptedTransport

TOKEN = "123456:AA+secret/=xyz"  # noqa: S105  # nobody's; it needs quoting, and in a query another one than in a path
IN_PATH = "123456:AA+secret/=xyz"
IN_QUERY = "123456%3AAA%2Bsecret%2F%3Dxyz"
HOME = "https://api.platform.test"
ONCE = Policy(retry=None)


def leaks(*shown):
    text = "\n".join(map(str, shown))
    return [form for form in (TOKEN, IN_QUERY, "secret/", "secret%2F") if form in text]


@pytest.fixture(autouse=True)
def every_log(caplog):
    caplog.set_level(logging.DEBUG)


async def test_a_secret_is_written_in_path_query_and_header_for_the_network_alone(world, caplog):
    token = Secret(f"  {TOKEN}\r\n", origin=HOME, name="bot-token")
    network = world.scripted(Reply(body=b"{}"))
    stack = world.stack(network, credentials=token)
    answer = await world.post(
        stack,
        url=f"{HOME}/bot{token}/send?sig={token}&text=a%20b",
        headers={"Authorization": f"Bot {token}"},
        content=b"the body",
    )
    (sent,) = network.sent
    assert sent.url == f"{HOME}/bot{IN_PATH}/send?sig={IN_QUERY}&text=a%20b"
    assert sent.headers["Authorization"] == f"Bot {TOKEN}"
    assert sent.body == b"the body"
    request = answer.request
    assert str(request.url) == f"{HOME}/bot{token}/send?sig={token}&text=a%20b"
    assert request.headers["Authorization"] == f"Bot {token}"
    assert stack.describe()["credentials"] == {str(token): [HOME]}
    shown = [repr(request.url), request.headers.raw, repr(answer), stack.describe(), repr(token), token]
    assert leaks(*shown, *world.events, answer.extensions, *(r.getMessage() for r in caplog.records)) == []
    assert "HTTP Request: POST" in caplog.text  # httpx's own line was written, and looked at


async def test_a_streamed_body_and_the_extensions_of_a_request_pass_through(world):
    token = Secret(TOKEN, origin=HOME)
    seen = []

    def trace(name, info):
        raise AssertionError("a scripted network traces nothing")

    def network_step(request):
        seen.append(request.extensions["trace"])
        return 200

    def blocking_parts():
        yield from (b"one ", b"two")

    async def parts():
        for part in blocking_parts():
            yield part

    network = world.scripted(network_step)
    content = blocking_parts() if world.blocking else parts()
    url = f"{HOME}/{token}"
    transport = world.stack(network, policy=ONCE, credentials=[token])
    await world.post(transport, url=url, content=content, extensions={"trace": trace})
    assert network.sent[0].body == b"one two"
    assert network.sent[0].headers["transfer-encoding"] == "chunked"
    assert seen == [trace]


ELSEWHERE = ["https://other.test", "http://api.platform.test", "https://api.platform.test:8443"]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
async def test_a_redirect_carries_no_secret_to_another_origin(world, elsewhere):
    token = Secret(TOKEN, origin=HOME)

    def platform(request):
        path = request.url.raw_path.decode()
        if path.startswith("/first"):  # it repeats the token, quoted and as it is
            return Reply(status=307, headers={"location": f"/second/bot{TOKEN}?sig={IN_QUERY}"})
        if path.startswith("/second"):
            return Reply(status=307, headers={"location": f"{elsewhere}/third/bot{TOKEN}?sig={IN_QUERY}"})
        return 200

    network = world.scripted(platform)
    client = world.client(world.stack(network, credentials=token), follow_redirects=True)
    headers = {"X-Api-Key": str(token)}
    answer = client.get(f"{HOME}/first/{token}", headers=headers)
    answer = answer if world.blocking else await answer
    first, second, third = network.sent
    assert second.url == f"{HOME}/second/bot{IN_PATH}?sig={IN_QUERY}"
    assert (first.headers["x-api-key"], second.headers["x-api-key"]) == (TOKEN, TOKEN)
    assert third.url == f"{elsewhere}/third/bot{token}?sig={token}"
    assert third.headers["x-api-key"] == str(token)
    for each in (*answer.history, answer):
        assert leaks(each.request.url, each.request.headers.raw, each.headers.raw) == []


@pytest.mark.parametrize("kind", ["ConnectError", "ReadTimeout", "LocalProtocolError", "RuntimeError"])
async def test_an_error_holds_the_request_that_was_passed_in(world, caplog, kind):
    token = Secret(TOKEN, origin=HOME)

    def fail(request):
        below = OSError(f"no route to {request.url}")
        if kind == "RuntimeError":
            error = RuntimeError(f"not mocked: {request.url}")
            error.request = error._request = request  # some mocks do as httpx does
        else:
            error = getattr(world.httpx, kind)(f"failed: {request.url}", request=request)
        error.__cause__ = below
        below.__cause__ = ValueError("the text of this one is harmless")
        return error

    stack = world.stack(world.scripted(fail), policy=Policy(retry=RetryPolicy(max_attempts=2)))
    transport = world.stack(world.scripted(fail), state=stack.state, credentials=token)
    with pytest.raises(Exception, match=str(token)) as caught:
        await world.get(transport, url=f"{HOME}/bot{token}")
    error = caught.value
    assert type(error).__name__ == kind
    assert str(error.request.url) == f"{HOME}/bot{token}"
    ours = [
        value
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if "/aragora_transport/_" in frame.f_code.co_filename or "/layers/" in frame.f_code.co_filename
        for value in frame.f_locals.values()
    ]
    assert len(ours) > 5
    records = [record.getMessage() for record in caplog.records]
    assert leaks(error, repr(error), repr(error.__cause__), *map(repr, ours), *world.events, *records) == []
    # As some tools report errors: with what the variables held, below us too.
    shown = list(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert any("handle" in line and "request = " in line for line in shown)
    assert leaks(*shown) == []


async def test_an_answer_of_a_mock_holds_the_request_that_was_passed_in(async_world):
    token = Secret(TOKEN, origin=HOME)
    network = async_world.scripted(200)

    class Mock(type(network)):
        async def handle_async_request(self, request):
            answer = await super().handle_async_request(request)
            answer.request = request
            return answer

    network.__class__ = Mock
    request = async_world.httpx.Request("GET", f"{HOME}/{token}")
    answer = await CredentialTransport(network, (token,)).handle_async_request(request)
    assert answer.request is request


async def test_the_transport_below_is_opened_and_closed_with_the_stack(world):
    network = world.scripted(200)
    client = world.client(world.stack(network, credentials=Secret(TOKEN, origin=HOME)))
    if world.blocking:
        with client:
            pass
    else:
        async with client:
            pass
    assert (network.opened, network.closed) == (1, 1)
    transport = world.stack(network, credentials=Secret(TOKEN, origin=HOME))
    if world.blocking:
        transport.close()
    else:
        await transport.aclose()
    assert network.closed == 2


async def test_what_shares_the_origin_but_not_the_secret_is_sent_as_it_came(world):
    token, other = Secret(TOKEN, origin=[HOME, "http://files.test:81"]), Secret("other-token", origin=HOME)
    network = world.scripted(200)
    transport = world.stack(network, credentials=(token, other))
    await world.get(
        transport, url="http://files.test:81/a%2Fb/{x}?q=%7E&e=", headers={"X": f"{token}{other}"}
    )
    assert network.sent[0].url == "http://files.test:81/a%2Fb/%7Bx%7D?q=%7E&e="
    assert network.sent[0].headers["x"] == f"{TOKEN}{other}"


async def test_a_short_secret_is_not_mistaken_for_what_a_platform_says(world):
    key = Secret("ok", origin=HOME)
    network = world.scripted(Reply(headers={"x-state": "all ok"}))
    answer = await world.get(world.stack(network, credentials=key), url=f"{HOME}/?key={key}")
    assert network.sent[0].url == f"{HOME}/?key=ok"
    assert answer.headers["x-state"] == "all ok"


@pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_client_that_exists_is_given_secrets_over_a_real_socket(module, caplog):
    with FaultServer(200) as server, module.Client() as client:
        token = Secret(TOKEN, origin=server.url)
        wrap_client(client, "telegram", credentials=token)
        answer = client.post(f"{server.url}/bot{token}/send", json={"text": "hi"})
    assert answer.status_code == 200
    assert server.requests[0].path == f"/bot{IN_PATH}/send"
    assert server.requests[0].body == b'{"text":"hi"}'
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("hpack")]
    assert leaks(answer.request.url, *ours) == []


def test_without_secrets_nothing_is_wrapped():
    network = ScriptedTransport(200)
    stack = resilient("test", network)
    innermost = stack
    while innermost is not network:
        assert not isinstance(innermost, CredentialTransport)
        innermost = vars(innermost).get("top") or innermost.below
    assert stack.describe()["credentials"] == {}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("abc-def\r\nghi", "a control character at position 7 of 12"),
        ("abc-def\x7f!", "a control character"),
        ("abc-défg", "not ASCII at position 5"),
        ("abc-def\u2028x", "not ASCII"),
    ],
)
def test_a_token_that_cannot_be_sent_is_refused_without_being_shown(value, why):
    with pytest.raises(ValueError, match=why) as caught:
        Secret(value, origin=HOME)
    assert "abc-d" not in str(caught.value)


@pytest.mark.parametrize(
    "origin", ["api.platform.test", "ftp://x/", "", "https://", 7, [], [7], "https://[" + TOKEN]
)
def test_an_origin_has_scheme_and_host(origin):
    with pytest.raises((ValueError, TypeError), match="origin") as caught:
        Secret(TOKEN, origin=origin)
    assert leaks(caught.value) == []


def test_what_is_no_secret_is_refused_without_being_shown():
    for given in (TOKEN, [TOKEN], TOKEN.encode()):
        with pytest.raises(TypeError, match="Secret") as caught:
            resilient_sync("test", ScriptedTransport(200), credentials=given)
        assert leaks(caught.value) == []
    with pytest.raises(TypeError, match="a str, not bytes"):
        Secret(TOKEN.encode(), origin=HOME)
    with pytest.raises(ValueError, match="such as 'telegram-token'"):
        Secret(TOKEN, origin=HOME, name="telegram token")


def test_a_secret_shows_itself_to_nobody_but_who_asks():
    token = Secret(TOKEN, origin=["https://b.test:8443/x", "https://a.test"], name="key")
    assert token.reveal() == TOKEN
    assert repr(token) == f"<Secret {token} for https://a.test, https://b.test:8443>"
    assert f"{token}" == token.placeholder != Secret(TOKEN, origin=HOME, name="key").placeholder
    assert copy.copy(token) is copy.deepcopy(token) is token
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.dumps(token)
    assert leaks(caught.value, repr(token), [token]) == []
    assert token in secrets_alive()
    assert set(token.forms) == {TOKEN, IN_QUERY}
