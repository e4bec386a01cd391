"""Token sources: what they ask a token endpoint, and how they keep what it answers."""

from __future__ import annotations

import asyncio
import base64
import json
import os

import httpx
import pytest

from aragora_transport import TokenRefreshError, resilient, resilient_sync
from aragora_transport.connectors import ClientCredentials, FileStore, RefreshToken, StaticKey
from aragora_transport.testing import Answer, FaultServer, Reply, ScriptedTransport

API = "http://api.test"
LOGIN = "https://login.test/token"
SECRET = "s3cret/+"  # noqa: S105  # nobody's
FIRST = "refresh-0"
BLANK = " "


def answer(**fields):
    return Reply(body=json.dumps({"access_token": "access", **fields}).encode())


def form_of(sent):
    return dict(httpx.QueryParams(sent.body.decode()))


async def token_of(world, source):
    """What a request to the API is sent with, or the error."""
    network = world.scripted(200)
    try:
        await world.get(world.stack(network, auth=source), url=API)
    except TokenRefreshError as error:
        return error
    return network.sent[0].headers.get("authorization")


async def test_client_credentials_go_in_a_header_by_default(world):
    network = world.scripted(answer(expires_in=3600))
    source = ClientCredentials(
        LOGIN, "the id", SECRET, scope="a b", extra={"resource": "r"}, origin=API, transport=network
    )
    assert await token_of(world, source) == "Bearer access"
    (sent,) = network.sent
    assert (sent.method, sent.url) == ("POST", LOGIN)
    assert form_of(sent) == {"grant_type": "client_credentials", "scope": "a b", "resource": "r"}
    assert sent.headers["content-type"] == "application/x-www-form-urlencoded"
    basic = sent.headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(basic) == b"the+id:s3cret%2F%2B"
    assert world.registry.get_sample_value("platform_requests_total") is None


async def test_token_requests_are_counted_where_they_are_told_to_be(world):
    source = ClientCredentials(
        *(LOGIN, "id", SECRET), origin=API, transport=world.scripted(answer()), registry=world.registry
    )
    assert await token_of(world, source) == "Bearer access"
    labels = {"platform": "oauth", "operation": "token", "status": "200"}
    assert world.registry.get_sample_value("platform_requests_total", labels) == 1


async def test_client_credentials_may_go_in_the_form(world):
    network = world.scripted(answer())
    source = ClientCredentials(LOGIN, "id", SECRET, client_auth="post", origin=API, transport=network)
    assert await token_of(world, source) == "Bearer access"
    asked = {"grant_type": "client_credentials", "client_id": "id", "client_secret": SECRET}
    assert form_of(network.sent[0]) == asked
    assert "authorization" not in network.sent[0].headers


async def test_a_public_client_tells_its_id_alone(world):
    network = world.scripted(answer(refresh_token=FIRST))  # one that does not rotate
    source = RefreshToken(LOGIN, "id", refresh_token=FIRST, origin=API, transport=network)
    assert await token_of(world, source) == "Bearer access"
    asked = {"grant_type": "refresh_token", "client_id": "id", "refresh_token": FIRST}
    assert form_of(network.sent[0]) == asked


@pytest.mark.parametrize(
    ("told", "lasts"),
    [(100.0, True), ("100", True), ("", False), ("soon", False), (-5, False), ("inf", False), (None, False)],
)
async def test_a_token_lasts_as_long_as_the_endpoint_says(world, told, lasts):
    network = world.scripted(answer(expires_in=told))
    source = ClientCredentials(LOGIN, "id", SECRET, origin=API, transport=network)
    await token_of(world, source)
    world.clock.advance(101.0)
    await token_of(world, source)
    assert len(network.sent) == (2 if lasts else 1)


async def test_what_is_safe_is_tried_again_and_a_refresh_token_only_where_nobody_took_it(world):
    lost = world.httpx.ReadError
    network = world.scripted(lost, 503, answer())
    source = ClientCredentials(LOGIN, "id", SECRET, origin=API, transport=network)
    assert await token_of(world, source) == "Bearer access"
    network = world.scripted(429, world.httpx.ConnectError, lost, answer())
    source = RefreshToken(LOGIN, "id", refresh_token=FIRST, origin=API, transport=network)
    error = await token_of(world, source)
    assert error.retryable
    assert "ReadError" in str(error)
    assert len(network.sent) == 3


async def test_a_login_that_hangs_ends_with_the_sources_own_limit(world):
    network = world.scripted(Reply(after=100.0))
    source = ClientCredentials(LOGIN, "id", SECRET, origin=API, transport=network, timeout=7.0)
    error = await token_of(world, source)
    assert "total limit of 7 s" in str(error)


class Store:
    """Saves when `works`, and is async where that is possible."""

    def __init__(self, world, kept=None):
        self.world, self.kept, self.works, self.saves = world, kept, True, 0

    def load(self):
        return self.result(self.kept)

    def save(self, refresh_token):
        self.saves += 1
        if not self.works:
            raise OSError(f"disk full, {refresh_token} is lost")
        self.kept = refresh_token
        return self.result(None)

    def result(self, value):
        async def later():
            return value

        return value if self.world.blocking else later()


async def test_a_new_refresh_token_is_saved_before_what_came_with_it_is_used(world):
    network = world.scripted(
        *(answer(refresh_token=f"refresh-{n}", access_token=f"access-{n}", expires_in=100) for n in (1, 2))
    )
    store = Store(world, kept="refresh-0")
    source = RefreshToken(LOGIN, "id", SECRET, store=store, origin=API, transport=network)
    store.works = False
    error = await token_of(world, source)
    assert (error.code, error.retryable) == ("not_saved", True)
    assert "disk full, refresh-token-" in str(error)
    world.clock.advance(30.0)
    store.works = True
    assert await token_of(world, source) == "Bearer access-1"  # the endpoint was not asked again
    assert (store.kept, store.saves, len(network.sent)) == ("refresh-1", 2, 1)
    world.clock.advance(69.0)  # 1 s is left of it
    assert await token_of(world, source) == "Bearer access-2"
    assert [form_of(sent)["refresh_token"] for sent in network.sent] == ["refresh-0", "refresh-1"]


async def test_what_another_process_has_stored_meanwhile_is_used(world):
    network = world.scripted(answer(expires_in=10, refresh_token=BLANK), answer(refresh_token=FIRST))
    store = Store(world)
    source = RefreshToken(LOGIN, "id", SECRET, store=store, origin=API, transport=network)
    error = await token_of(world, source)
    assert error.code == "no_refresh_token"
    store.kept = FIRST
    await token_of(world, source)
    world.clock.advance(10.0)
    store.kept = "refresh-7"
    await token_of(world, source)
    assert [form_of(sent)["refresh_token"] for sent in network.sent] == [FIRST, "refresh-7"]
    assert store.kept == FIRST


async def test_an_unusable_refresh_token_is_refused(world):
    network = world.scripted(answer(refresh_token="two\nlines"))  # noqa: S106  # nobody's
    source = RefreshToken(LOGIN, "id", SECRET, refresh_token=FIRST, origin=API, transport=network)
    assert "a control character" in str(await token_of(world, source))


def test_a_file_store_keeps_a_token_for_its_owner_alone(tmp_path):
    store = FileStore(tmp_path / "token")
    assert store.load() is None
    store.save("refresh-1")
    store.save("refresh-2")
    assert store.load() == "refresh-2"
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_a_file_store_writes_to_no_file_that_was_laid_out_for_it(tmp_path):
    (tmp_path / "theirs").touch()
    (tmp_path / f".token.{os.getpid()}").symlink_to(tmp_path / "theirs")
    FileStore(tmp_path / "token").save("refresh-1")
    assert (tmp_path / "theirs").read_text() == ""


def test_a_file_store_that_fails_leaves_nothing_behind(tmp_path):
    store = FileStore(tmp_path / "token")
    store.save("refresh-1")
    with pytest.raises(UnicodeEncodeError):
        store.save("schlüssel")
    assert [path.name for path in tmp_path.iterdir()] == ["token"]
    assert store.load() == "refresh-1"


@pytest.mark.parametrize("seconds", [f"1{'0' * 400}", "1e400", "-5", "NaN", '"soon"', "[]"])
async def test_a_time_that_makes_no_sense_is_no_reason_to_lose_a_token(world, seconds):
    body = b'{"access_token": "access", "refresh_token": "next", "expires_in": %s}' % seconds.encode()
    network = world.scripted(Reply(body=body))
    kept = []
    source = RefreshToken(
        LOGIN, "id", SECRET, refresh_token=FIRST, save=kept.append, origin=API, transport=network
    )
    assert await token_of(world, source) == "Bearer access"
    assert kept == ["next"]


async def test_a_static_key_is_sent_as_it_is_told(world):
    assert await token_of(world, StaticKey("the key", origin=API)) == "Bearer the key"
    key = StaticKey("the key", origin=API, header="Authorization", scheme="")
    assert await token_of(world, key) == "the key"
    with pytest.raises(ValueError, match="empty"):
        StaticKey(" ", origin=API)


def test_what_makes_no_sense_is_said_so():
    with pytest.raises(ValueError, match="client_auth"):
        ClientCredentials(LOGIN, "id", SECRET, origin=API, client_auth="jwt")
    with pytest.raises(ValueError, match="refresh_token="):
        RefreshToken(LOGIN, "id", origin=API)
    with pytest.raises(ValueError, match="not both"):
        RefreshToken(LOGIN, "id", origin=API, store=FileStore("x"), save=print)


def test_a_source_makes_connections_of_its_own_for_each_refresh():
    token = Answer(body=b'{"access_token": "access", "expires_in": 0}')
    with FaultServer(token) as server:
        source = ClientCredentials(f"{server.url}/token", "id", SECRET, origin=API)

        async def ask():
            transport = resilient("api", ScriptedTransport(200), auth=source)
            async with httpx.AsyncClient(transport=transport) as client:
                return await client.get(API)

        for _ in range(2):  # two event loops
            assert asyncio.run(ask()).status_code == 200
        with httpx.Client(transport=resilient_sync("api", ScriptedTransport(200), auth=source)) as client:
            assert client.get(API).status_code == 200
    assert len(server.requests) == 3
