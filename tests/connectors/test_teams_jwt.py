"""The tokens of inbound activities: which are the Bot Framework's, and when its keys are fetched."""

from __future__ import annotations

import builtins
import json
import logging
import subprocess
import sys

import anyio
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from aragora_transport.connectors import TeamsConnector
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

KEY, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
NOW = 1_700_000_000
HOST = "https://login.botframework.com"
METADATA, KEYS = f"{HOST}/v1/.well-known/openidconfiguration", f"{HOST}/v1/.well-known/keys"
EMEA = "https://smba.trafficmanager.net/emea/"
ACTIVITY = {"type": "message", "channelId": "msteams", "serviceUrl": EMEA, "text": "hi"}
CLAIMS = {
    "iss": "https://api.botframework.com",
    "aud": "app1",
    "nbf": NOW - 300,
    "exp": NOW + 3300,
    "serviceurl": EMEA,
}
DAY = 86400


def jwk(kid="k1", key=KEY, **fields):
    read = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**read, "kid": kid, "use": "sig", "endorsements": ["msteams", "webchat"], **fields}


def signed(key=KEY, algorithm="RS256", kid="k1", **claims):
    kept = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(kept, key, algorithm, {} if kid is None else {"kid": kid})


def unchecked(header, claims=CLAIMS):
    """A token that no library would make."""
    parts = (
        json.dumps(header).encode(),
        claims if isinstance(claims, bytes) else json.dumps(claims).encode(),
    )
    return ".".join([*(jwt.utils.base64url_encode(part).decode() for part in parts), "c2ln"])


class Login:
    """A bot, and the server that has Microsoft's keys."""

    def __init__(self, *keys, place=KEYS, **keywords):
        self.keys = list(keys or [jwk()])
        self.place = place
        self.fails = None
        self.clock = ManualClock(wall=NOW)
        self.network = ScriptedTransport(self._answer, clock=self.clock)
        self.bot = TeamsConnector("app1", "a-secret", transport=self.network, clock=self.clock, **keywords)

    def _answer(self, request):
        if self.fails is not None:
            return self.fails
        body = {"jwks_uri": self.place} if request.url.path.endswith("openidconfiguration") else self.keys
        body = {"keys": body} if isinstance(body, list) else body
        return Reply(body=json.dumps(body).encode(), headers={"content-type": "application/json"})

    @property
    def asked(self):
        return [sent.url for sent in self.network.sent]

    async def takes(self, token, activity=ACTIVITY):
        return await self.bot.verify_jwt(f"Bearer {token}", activity)


async def test_the_bot_frameworks_token_is_taken():
    login = Login()
    assert await login.takes(signed()) is True
    assert await login.bot.verify_jwt(f"bearer  {signed(nbf=None)}", ACTIVITY) is True
    assert login.asked == [METADATA, KEYS]
    assert "authorization" not in login.network.sent[0].headers


PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
HEADER = {"alg": "RS256", "typ": "JWT", "kid": "k1"}


def hmac_by_public_key():
    # By hand: PyJWT's encode() would not sign with a public key.
    header, payload, _ = unchecked({**HEADER, "alg": "HS256"}).split(".")
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = algorithm.sign(f"{header}.{payload}".encode(), PEM)
    return f"{header}.{payload}.{jwt.utils.base64url_encode(signature).decode()}"


NO_REQUEST = {  # what is seen without a key
    "no algorithm": unchecked({**HEADER, "alg": "none"}),
    "another algorithm": signed(algorithm="RS512"),
    "the public key as a shared secret": hmac_by_public_key(),
    "no key named": signed(kid=None),
    "a key that is no text": unchecked({**HEADER, "kid": 7}),
    "another issuer": signed(iss="https://sts.windows.net/t/"),
    "no issuer": signed(iss=None),
    "another bot": signed(aud="app2"),
    "this bot and another": signed(aud=["app1", "app2"]),
    "no audience": signed(aud=None),
    "expired": signed(exp=NOW - 300),
    "without an end": signed(exp=None),
    "an end that is no number": unchecked(HEADER, {**CLAIMS, "exp": "9999999999"}),
    "not begun": signed(nbf=NOW + 301),
    "a beginning that is no number": unchecked(HEADER, {**CLAIMS, "nbf": "0"}),
    "a beginning beyond reason": unchecked(HEADER, {**CLAIMS, "nbf": 10**400}),
    "another place": signed(serviceurl="https://smba.trafficmanager.net/amer/"),
    "no place": signed(serviceurl=None),
    "claims that are no object": unchecked(HEADER, b"[1]"),
    "claims that are no JSON": unchecked(HEADER, b"\xff{"),
    "claims too deep": unchecked(HEADER, b"[" * 200_000),
    "a header that is no JSON": "eA.eA.eA",
    "two parts": "a.b",
}


@pytest.mark.parametrize("token", NO_REQUEST.values(), ids=NO_REQUEST)
async def test_a_token_with_one_thing_wrong_is_refused_and_no_keys_are_fetched_for_it(token):
    login = Login()
    assert await login.takes(token) is False
    assert login.asked == []


def tampered():
    header, _, signature = signed().split(".")
    payload = jwt.utils.base64url_encode(json.dumps({**CLAIMS, "more": "rights"}).encode()).decode()
    return f"{header}.{payload}.{signature}"


WITH_KEYS = {
    "another key": signed(OTHER),
    "an unknown key": signed(kid="k2"),
    "tampered with": tampered(),
    "not signed": signed().rpartition(".")[0] + ".c2ln",
}


@pytest.mark.parametrize("token", WITH_KEYS.values(), ids=WITH_KEYS)
async def test_a_signature_that_is_not_by_the_key_named_is_refused(token):
    login = Login()
    assert await login.takes(token) is False
    assert await login.takes(signed())


async def test_clocks_may_differ_by_five_minutes():
    login = Login()
    assert await login.takes(signed(exp=NOW - 299))
    assert await login.takes(signed(nbf=NOW + 300))
    token = signed(exp=NOW)
    assert await login.takes(token)
    login.clock.advance(300)
    assert not await login.takes(token)


@pytest.mark.parametrize(
    ("endorsements", "taken"), [(["msteams"], True), (None, True), (["webchat"], False), ([], False)]
)
async def test_a_key_is_good_for_the_channels_that_it_is_endorsed_for(endorsements, taken):
    assert await Login(jwk(endorsements=endorsements)).takes(signed()) is taken


@pytest.mark.parametrize("change", [{"serviceUrl": None}, {"serviceUrl": EMEA[:-1]}, {"channelId": None}])
async def test_a_token_is_for_activities_from_its_own_place_and_channel(change):
    assert not await Login().takes(signed(), {**ACTIVITY, **change})


async def test_no_place_is_not_the_same_place():
    assert not await Login().takes(signed(serviceurl=None), {**ACTIVITY, "serviceUrl": None})


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.binary() | st.just(signed(OTHER)),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(ACTIVITY)), inner),
    max_leaves=5,
)
HEADERS = JUNK | st.builds("Bearer {}".format, JUNK) | st.from_regex(r"Bearer [\w-]+\.[\w-]+\.[\w-]+")


@given(authorization=HEADERS, activity=JUNK)
@settings(max_examples=50, deadline=None)
def test_junk_of_any_type_is_refused(authorization, activity):
    async def verify():
        login = Login()
        return [
            await login.bot.verify_jwt(authorization, ACTIVITY),
            await login.bot.verify_jwt(f"Bearer {signed()}", activity),
        ]

    assert anyio.run(verify) == [False, False]


async def test_keys_serve_for_five_days():
    login = Login()
    for day in range(5):
        assert await login.takes(signed(exp=NOW + day * DAY + 60))
        login.clock.advance(DAY - 1)
    assert len(login.asked) == 2
    login.clock.advance(5)
    assert await login.takes(signed(exp=NOW + 6 * DAY))
    assert len(login.asked) == 4
    login.clock.advance(5 * DAY)
    login.keys = [jwk("k2", OTHER)]
    assert not await login.takes(signed(exp=NOW + 11 * DAY))  # the old key is no longer there
    assert await login.takes(signed(OTHER, kid="k2", exp=NOW + 11 * DAY))
    assert len(login.asked) == 6


async def test_for_a_key_that_is_not_known_they_are_fetched_every_five_minutes_at_most():
    login = Login()
    assert await login.takes(signed())
    login.keys.append(jwk("k2", OTHER))
    token = signed(OTHER, kid="k2")
    login.clock.advance(299)
    assert not await login.takes(token)
    assert len(login.asked) == 2
    login.clock.advance(1)
    assert await login.takes(token)
    assert await login.takes(signed())
    for _ in range(5):
        assert not await login.takes(signed(kid="k3"))
    assert len(login.asked) == 4


async def test_a_refresh_that_fails_leaves_the_known_keys():
    login = Login()
    assert await login.takes(signed())
    login.clock.advance(300)
    login.fails = 404
    assert not await login.takes(signed(kid="k2"))
    assert not await login.takes(signed(kid="k2"))
    assert await login.takes(signed())
    assert len(login.asked) == 3
    login.clock.advance(5 * DAY)
    assert not await login.takes(signed(exp=NOW + 6 * DAY))


async def together(login, count):
    taken = []

    async def one():
        taken.append(await login.takes(signed()))

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)
    return taken


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_hundred_callers_share_one_fetch(anyio_backend):
    login = Login()
    assert await together(login, 100) == [True] * 100
    assert login.asked == [METADATA, KEYS]


async def test_and_its_failure_which_the_log_tells(caplog):
    login = Login()
    login.fails = httpx.ConnectError
    with caplog.at_level(logging.WARNING, "aragora_transport"):
        assert await together(login, 100) == [False] * 100
    assert login.asked == [METADATA] * 3
    (told,) = [r.getMessage() for r in caplog.records if "no keys" in r.getMessage()]
    assert "ConnectError" in told
    login.fails = None
    assert await login.takes(signed())


async def test_a_caller_that_is_cancelled_leaves_the_fetch_to_the_next():
    login = Login()
    with anyio.CancelScope() as scope:
        login.fails = Reply(after=5)
        login.clock.call_at(1, scope.cancel)
        await login.takes(signed())
    assert scope.cancelled_caught
    login.fails = None
    assert await login.takes(signed())
    assert login.asked == [METADATA, METADATA, KEYS]


@pytest.mark.parametrize(
    "place",
    [
        *(
            "https://login.example.com/keys",
            "https://com/keys",
            "https://login.botframework.com.example.com/",
        ),
        *("http://login.botframework.com/keys", "https://login.botframework.com:8443/keys", "/keys", None, 7),
    ],
)
async def test_keys_from_elsewhere_are_not_fetched(place, caplog):
    login = Login(place=place)
    assert not await login.takes(signed())
    assert login.asked == [METADATA]
    assert "names no jwks_uri at the same host" in caplog.text


async def test_keys_may_be_at_the_parent_domain():
    login = Login(place="https://botframework.com/keys")
    assert await login.takes(signed())


async def test_keys_that_cannot_be_read_are_passed_over(caplog):
    odd = [7, {}, {"kid": "k1", "kty": "EC"}, jwk(n=7), jwk(None), jwk(kty=["RSA"])]
    assert await Login(*odd, jwk()).takes(signed())
    assert not await Login(*odd).takes(signed())
    assert "there is no key that can be read" in caplog.text


async def test_each_cloud_has_its_own_issuer_and_keys():
    host = "https://login.botframework.azure.us/v1/.well-known"
    login = Login(cloud="usgov", place=f"{host}/keys")
    assert not await login.takes(signed())
    assert await login.takes(signed(iss="https://api.botframework.us"))
    assert login.asked == [f"{host}/openidconfiguration", f"{host}/keys"]


async def test_what_fetches_the_keys_is_closed_with_the_bot():
    async with Login().bot as bot:
        await bot.verify_jwt(f"Bearer {signed()}", ACTIVITY)
    assert bot._tokens._client.is_closed
    with pytest.raises(RuntimeError, match="is closed"):
        await bot.verify_jwt(f"Bearer {signed()}", ACTIVITY)


async def test_without_pyjwt_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name == "jwt":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'aragora-transport\[webhooks\]'"):
        await Login().bot.verify_jwt(None, ACTIVITY)


def test_pyjwt_is_loaded_by_those_alone_who_need_it():
    code = (
        "import sys; from aragora_transport.connectors import TeamsConnector; TeamsConnector('a', 'b');"
        "assert 'jwt' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  # our own
