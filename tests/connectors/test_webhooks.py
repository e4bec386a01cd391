"""What comes in by webhooks: taken from the platforms alone, whatever others send, and read."""

from __future__ import annotations

import base64
import builtins
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from aragora_transport.connectors import (
    DiscordConnector,
    SlackConnector,
    TeamsConnector,
    TelegramConnector,
    webhooks,
)
from aragora_transport.connectors.webhooks import (
    DiscordWebhook,
    SlackWebhook,
    TeamsWebhook,
    TelegramWebhook,
)
from aragora_transport.testing import ManualClock

NOW = 1531420618
# From the tests of Slack's own SDK.
SLACK = SlackWebhook("8f742231b10e8888abcd99yyyzzz85a5")
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
SLACK_HEADERS = {
    "X-Slack-Request-Timestamp": str(NOW),
    "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}
# Made by PyNaCl, with the seed 00 01 ... 1f.
DISCORD = DiscordWebhook("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
DISCORD_HEADERS = {
    "X-Signature-Timestamp": "1609459200",
    "X-Signature-Ed25519": (
        "9b40f1fccd91ee6a23879fbdcd5feaaa5d60893c908de7384ae1f56ce2ff5a6c"
        "e5e44974ddb08b6a03bb163b5cb4e40a5f805d47070b48b2d0ed66096d64fa08"
    ),
}
TEAMS = TeamsWebhook("vqF0En+Z0ucuRTM/01o2GuhMH3hKKk/N2bOmlM31zaA=")
TEAMS_HEADERS = {"Authorization": "HMAC OsI22fOxGbRqh5cP8AMgGG80vP5pVkuGv1D1ft388ls="}
TELEGRAM = TelegramWebhook("s3cret_token-1")
TELEGRAM_HEADERS = {"X-Telegram-Bot-Api-Secret-Token": "s3cret_token-1"}
VECTORS = {
    "slack": (SLACK, SLACK_HEADERS, SLACK_BODY),
    "discord": (DISCORD, DISCORD_HEADERS, b'{"type":1}'),
    "teams": (TEAMS, TEAMS_HEADERS, b'{"type":"message","text":"hi"}'),
    "telegram": (TELEGRAM, TELEGRAM_HEADERS, b'{"update_id":7,"message":{"text":"hi"}}'),
}
SIGNED = ("slack", "discord", "teams")


@pytest.mark.parametrize("platform", VECTORS)
def test_what_a_platform_has_signed_is_taken_in_any_shape_of_headers(platform):
    webhook, headers, body = VECTORS[platform]
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    for shape in (headers, httpx.Headers(headers), list(headers.items()), raw):
        delivery = webhook.receive(shape, body, now=NOW + 1)
        assert (delivery.verified, delivery.status, delivery.reason) == (True, 200, None)
        assert delivery.event.platform == platform
    assert webhook.verify(headers, body, now=NOW)
    if platform != "slack":  # whose vector is of long ago
        assert webhook.verify(headers, body)
        assert webhook.receive(headers, body).verified


@pytest.mark.parametrize("platform", VECTORS)
def test_what_lacks_a_header_or_has_one_twice_is_refused(platform):
    webhook, headers, body = VECTORS[platform]
    for name in headers:
        others = {key: value for key, value in headers.items() if key != name}
        twice = [*headers.items(), (name.lower(), headers[name])]
        for odd in (
            others,
            twice,
            {**others, name: ""},
            {**others, name: 7},
            None,
            7,
            [1],
            ["ab", "c"],
            "no",
        ):
            assert not webhook.verify(odd, body, now=NOW)
            assert webhook.receive(odd, body, now=NOW).status == 401
    assert webhook.receive({}, body, now=NOW).reason == "a header of its signature is missing, or there twice"


@pytest.mark.parametrize("platform", SIGNED)
def test_a_body_that_is_not_raw_is_refused_with_the_reason(platform):
    webhook, headers, body = VECTORS[platform]
    for parsed in (body.decode(), {"type": 1}, None):
        assert not webhook.verify(headers, parsed, now=NOW)
        assert "not bytes: give it as it came" in webhook.receive(headers, parsed, now=NOW).reason


@pytest.mark.parametrize("platform", VECTORS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_is_enough_to_be_refused(platform, data):
    webhook, headers, body = VECTORS[platform]
    name = data.draw(st.sampled_from([*headers, *(["body"] if platform in SIGNED else [])]))
    text = body if name == "body" else headers[name].encode()
    place = data.draw(st.integers(0, len(text) * 8 - 1))
    flipped = bytearray(text)
    flipped[place // 8] ^= 1 << place % 8
    if name == "body":
        assert not webhook.verify(headers, bytes(flipped), now=NOW)
    elif platform == "discord" and flipped.lower() == text.lower():
        pass  # the same digits of hex, written otherwise
    else:
        assert not webhook.verify({**headers, name: bytes(flipped)}, body, now=NOW)


@settings(max_examples=150, deadline=None)
@given(
    platform=st.sampled_from(list(VECTORS)),
    values=st.lists(st.text() | st.binary() | st.integers() | st.none(), min_size=2, max_size=2),
    body=st.binary() | st.text() | st.none(),
    now=st.floats() | st.integers(-(10**12), 10**12),
)
def test_nothing_that_anybody_sends_raises_or_is_taken(platform, values, body, now):
    webhook, headers, _ = VECTORS[platform]
    odd = dict(zip(headers, values, strict=False))
    assert not webhook.verify(odd, body, now=now)
    assert webhook.receive(odd, body, now=now).event is None


@pytest.mark.parametrize(
    ("off", "taken"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)]
)
def test_slacks_signature_is_good_for_five_minutes(off, taken):
    delivery = SLACK.receive(SLACK_HEADERS, SLACK_BODY, now=NOW + off)
    assert delivery.verified == taken
    assert delivery.reason == (None if taken else "its timestamp is more than 300 seconds off")
    assert not SLACK.verify(SLACK_HEADERS, SLACK_BODY, now=float("nan"))


@pytest.mark.parametrize(
    "seconds", ["", "soon", "-1", "1531420618.0", " 1531420618", "\u0661", "9" * 13, "1e9"]
)
@pytest.mark.parametrize("platform", ["slack", "discord"])
def test_a_timestamp_that_is_none_is_refused(platform, seconds):
    webhook, headers, body = VECTORS[platform]
    name = next(name for name in headers if "Timestamp" in name)
    assert not webhook.verify({**headers, name: seconds}, body, now=NOW)


def test_the_border_between_discords_timestamp_and_body_cannot_be_moved():
    moved = {**DISCORD_HEADERS, "X-Signature-Timestamp": '1609459200{"type"'}
    assert not DISCORD.verify(moved, b":1}")


@pytest.mark.parametrize("signature", ["", "zz" * 64, "9b40", "9b " * 64, "\u0661" * 128])
def test_a_signature_that_is_no_hex_is_refused(signature):
    headers = {**DISCORD_HEADERS, "X-Signature-Ed25519": signature}
    assert DISCORD.receive(headers, b'{"type":1}').status == 401


def test_secrets_that_cannot_be_right_are_refused_at_once_and_shown_nowhere():
    for make, odd in (
        *((SlackWebhook, secret) for secret in ("", "  ", None)),
        *((TeamsWebhook, token) for token in ("", "not base64!", None)),
        *((DiscordWebhook, key) for key in ("", "the-key", "03a1", "zz" * 32)),
        *((TelegramWebhook, token) for token in ("", "a b", "x" * 257)),
    ):
        with pytest.raises(ValueError, match=rf"^{make.__name__}\(\w+\): ") as told:
            make(odd)
        assert not odd or odd not in str(told.value)
    assert repr(SLACK) == "<SlackWebhook>"


def test_without_cryptography_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'aragora-transport\[webhooks\]'"):
        DiscordWebhook("03" * 32)


def test_cryptography_is_loaded_by_those_alone_who_need_it():
    code = (
        "import sys; from aragora_transport.connectors.webhooks import SlackWebhook; SlackWebhook('x');"
        "assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  # our own


# --- events ---


def discord(**payload):
    return DISCORD.parse({}, json.dumps(payload).encode())


def slack(headers=(), **payload):
    return SLACK.parse(headers, json.dumps(payload).encode())


def told(event):
    return (event.kind, event.id, event.channel_id, event.user_id, event.text)


def test_what_discord_says():
    ping = discord(type=1, id="5")
    assert (ping.kind, ping.reply) == ("ping", {"type": 1})
    command = discord(
        type=2,
        id="5",
        token="t",  # noqa: S106  # of nobody
        channel_id="7",
        member={"user": {"id": "9"}},
        data={"name": "go"},
    )
    assert (told(command), command.reply) == (("command", "5", "7", "9", "go"), None)
    assert "token" not in repr(command)
    assert command.payload["token"] == "t"  # noqa: S105  # of nobody
    button = discord(type=3, id="5", user={"id": "9"}, data={"custom_id": "b"})
    assert told(button) == ("component", "5", None, "9", "b")
    assert [discord(type=number).kind for number in (4, 5)] == ["autocomplete", "modal"]
    assert told(discord(version=1, type=0)) == ("ping", None, None, None, None)
    authorized = discord(type=1, event={"type": "APPLICATION_AUTHORIZED", "data": {"user": {"id": "9"}}})
    assert (told(authorized), authorized.reply) == (("APPLICATION_AUTHORIZED", None, None, "9", None), None)
    assert [discord(type=number) for number in (99, "1", None, [])] == [None] * 4


def test_what_slack_says():
    command = SLACK.parse({}, SLACK_BODY)
    assert told(command) == (
        *("slash_command", "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c", "G8PSS9T3V"),
        *("U2CERLKJA", None),
    )
    assert command.payload["command"] == "/webhook-collect"
    challenge = slack(type="url_verification", challenge="c")
    assert (challenge.kind, challenge.reply) == ("url_verification", {"challenge": "c"})
    said = {"type": "app_mention", "channel": "C1", "user": "U1", "text": "hi"}
    mention = slack({"X-Slack-Retry-Num": "2"}, type="event_callback", event_id="Ev1", event=said)
    assert (told(mention), mention.retry) == (("app_mention", "Ev1", "C1", "U1", "hi"), 2)
    assert slack({"X-Slack-Retry-Num": "many"}, type="event_callback").retry == 0
    assert slack(type="event_callback").kind == "event_callback"
    pressed = {
        "type": "block_actions",
        "trigger_id": "1.2",
        "channel": {"id": "C1"},
        "user": {"id": "U1"},
        "actions": [{"action_id": "a", "value": "v"}],
    }
    button = SLACK.parse({}, urlencode({"payload": json.dumps(pressed)}).encode())
    assert told(button) == ("block_actions", "1.2", "C1", "U1", "v")
    for odd in (b"", b"payload=7", b"payload", b"a=b", b"{}", b'{"type": 1.5}', b"\xff=\xff"):
        assert SLACK.parse({}, odd) is None


def test_what_teams_says():
    body = {
        "type": "message",
        "id": "1",
        "text": "<at>bot</at> hi",
        "conversation": {"id": "19:x"},
        "from": {"id": "29:u"},
    }
    event = TEAMS.parse({}, json.dumps(body).encode())
    assert told(event) == ("message", "1", "19:x", "29:u", "<at>bot</at> hi")
    assert TEAMS.parse({}, b'{"type": []}') is None
    assert TEAMS.parse({}, b"[]") is None


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (
            {"message": {"chat": {"id": -7}, "from": {"id": 9}, "text": "hi"}},
            ("message", "5", "-7", "9", "hi"),
        ),
        (
            {"callback_query": {"from": {"id": 9}, "data": "d", "message": {"chat": {"id": 7}}}},
            ("callback_query", "5", "7", "9", "d"),
        ),
        ({"edited_message": {"caption": "c"}}, ("edited_message", "5", None, None, "c")),
        ({"inline_query": {"query": "q"}}, ("inline_query", "5", None, None, "q")),
        ({"message_reaction": {"user": {"id": 9}}}, ("message_reaction", "5", None, "9", None)),
    ],
)
def test_what_telegram_says(update, expected):
    assert told(TELEGRAM.parse({}, json.dumps({"update_id": 5, **update}).encode())) == expected


def test_what_cannot_be_read_is_no_event_though_it_was_verified():
    for odd in (
        b"",
        b"[]",
        b"{}",
        b'{"update_id": 5}',
        b'{"message": {}}',
        b"[" * 100_000,
        b"9" * 5000,
        None,
    ):
        delivery = TELEGRAM.receive(TELEGRAM_HEADERS, odd)
        assert (delivery.verified, delivery.event, delivery.status) == (True, None, 400)
        assert delivery.reason == "its body cannot be read"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([{}])
NAMES = st.sampled_from(
    [
        "type",
        "event",
        "data",
        "user",
        "member",
        "channel",
        "actions",
        "from",
        "update_id",
        "message",
        "id",
        "text",
    ]
)


@settings(max_examples=100, deadline=None)
@given(
    payload=st.dictionaries(NAMES, SCALARS | st.dictionaries(NAMES, SCALARS, max_size=4)), form=st.booleans()
)
def test_any_json_is_an_event_or_none(payload, form):
    body = json.dumps(payload).encode()
    if form:
        body = urlencode({"payload": body}).encode()
    for webhook, headers, _ in VECTORS.values():
        event = webhook.parse(headers, body)
        if event is not None:
            parts = (event.id, event.channel_id, event.user_id, event.text)
            assert all(part is None or isinstance(part, str) for part in (event.kind, *parts))


@settings(max_examples=25, deadline=None)
@given(body=st.binary(), seed=st.binary(min_size=32, max_size=32))
def test_whatever_discord_signs_is_taken(body, seed):
    key = Ed25519PrivateKey.from_private_bytes(seed)
    webhook = DiscordWebhook(key.public_key().public_bytes_raw().hex())
    headers = {"X-Signature-Timestamp": "7", "X-Signature-Ed25519": key.sign(b"7" + body).hex().upper()}
    assert webhook.verify(headers, body)
    assert not webhook.verify({**headers, "X-Signature-Timestamp": "8"}, body)


CONNECTORS = {
    "discord": (DiscordConnector, ["a-token"]),
    "slack": (SlackConnector, ["a-token"]),
    "teams": (TeamsConnector, ["an-id", "a-secret"]),
    "telegram": (TelegramConnector, ["12:a-token"]),
}
SIGNS_WITH = {  # the argument of the connector, and of the webhook
    "discord": ("public_key", "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"),
    "slack": ("signing_secret", "8f742231b10e8888abcd99yyyzzz85a5"),
    "teams": ("security_token", "vqF0En+Z0ucuRTM/01o2GuhMH3hKKk/N2bOmlM31zaA="),
    "telegram": ("secret_token", "s3cret_token-1"),
}


@pytest.mark.parametrize("platform", CONNECTORS)
def test_a_connector_verifies_and_reads_what_its_platform_posts(platform):
    webhook, headers, body = VECTORS[platform]
    make, arguments = CONNECTORS[platform]
    name, secret = SIGNS_WITH[platform]
    clock = ManualClock(wall=NOW)
    connector = make(*arguments, **{name: secret}, clock=clock)
    assert connector.verify_webhook(headers, body)
    assert connector.verify_webhook({}, body) is False
    assert connector.verify_webhook(headers, body, now=NOW + 301) == (platform != "slack")
    assert connector.parse_event(body) == webhook.parse({}, body)
    assert connector.parse_event(b"\xff") is None
    assert connector.parse_event("no bytes") is None
    bare = make(*arguments)
    assert bare.parse_event(body) == webhook.parse({}, body)
    with pytest.raises(ValueError, match=rf"{make.__name__}\(..., {name}=...\)"):
        bare.verify_webhook(headers, body)
    table = (Path(__file__).parents[2] / "docs" / "connectors" / "webhooks.md").read_text(encoding="utf-8")
    assert f"| `{make.__name__}` | `{name}` |\n" in table


def test_the_public_names_are_these():
    assert sorted(webhooks.__all__) == [
        *("Delivery", "DiscordWebhook", "SlackWebhook", "TeamsWebhook", "TelegramWebhook", "WebhookEvent"),
    ]
    assert base64.b64encode(TEAMS._key).startswith(b"vqF0")
