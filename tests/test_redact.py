"""Secrets in foreign text are found by name, place, shape, or because somebody holds them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aragora_transport import Secret
from aragora_transport._redact import HIDDEN, describe_error, one_line, redact

# Each with what must not be seen of it. All are made up.
SECRET = "S3cretS3cret-made_up-abcdefghijklmnop"  # noqa: S105  # nobody's
SHAPES = {
    "Telegram path": (f"https://api.telegram.org/bot123456789:{SECRET}/sendMessage", SECRET),
    "Telegram file": (f"https://api.telegram.org/file/bot123456789:{SECRET}/photos/a.jpg", SECRET),
    "Telegram quoted": (f"https://api.telegram.org/bot123456789%3A{SECRET}/getMe", SECRET),
    "Telegram token": (f"the token 123456789:{SECRET} is", SECRET),
    "Discord webhook": (f"https://discord.com/api/webhooks/1234/{SECRET}?wait=true", SECRET),
    "Discord interaction": (f"https://discord.com/api/v10/interactions/12/{SECRET}/callback", SECRET),
    "Discord path alone": (f"/api/webhooks/123456789012345678/{SECRET}", SECRET),
    "Discord bot token": (f"MTIzNDU2Nzg5MDEyMzQ1Njc4.Gabcde.{SECRET}", SECRET),
    "Slack hook": ("https://hooks.slack.com/services/T00000000/B00000000/S3cretS3cret", "S3cret"),
    "Slack workflow": ("https://hooks.slack.com/workflows/T0/A0/12/S3cretS3cret", "S3cret"),
    "Slack path alone": ("/services/T00000000/B00000000/S3cretS3cret", "S3cret"),
    "Slack token": ("xoxb-1234567890-S3cretS3cret", "S3cret"),
    "Slack app token": ("xapp-1-A0-S3cretS3cret", "S3cret"),
    "Teams webhook": ("https://acme.webhook.office.com/webhookb2/a@b/IncomingWebhook/S3cret/d", "S3cret"),
    "Teams workflow": ("https://prod-1.logic.azure.com/workflows/a/paths/invoke?sp=%2F&sig=S3cret", "S3cret"),
    "user and password": ("https://user:S3cret@host.test/x", "S3cret"),
    "user alone": ("https://S3cret@host.test/x", "S3cret"),
    "query token": ("https://host.test/x?a=1&access_token=S3cret&b=2", "S3cret"),
    "query key, quoted": ("https://host.test/?api%5Fkey=S3cret", "S3cret"),
    "query key, quoted twice": ("https://host.test/?api%255Fkey=S3cret", "S3cret"),
    "query code": ("https://host.test/callback?code=S3cret&state=xyz", "S3cret"),
    "code verifier": ("grant_type=authorization_code&code_verifier=S3cret", "S3cret"),
    "long query key": (f"https://host.test/?key={SECRET}", SECRET),
    "header": ("authorization: Bearer S3cret", "S3cret"),
    "header of another name": ("X-Telegram-Bot-Api-Secret-Token: S3cret", "S3cret"),
    "headers as Python shows them": ("[(b'Set-Cookie', b'sid=S3cret; Path=/'), (b'Date', b'x')]", "S3cret"),
    "header of hpack": ("Adding b'x-api-key'=b'S3cret' to the header table", "S3cret"),
    "JSON": ('{"client_secret": "S3cret", "a": 1}', "S3cret"),
    "bearer": ("Illegal header value b'Bearer S3cretS3cret\\n'", "S3cret"),
    "basic": ("sent Basic dXNlcjpTM2NyZXQ=", "dXNlcjpTM2NyZXQ"),
    "JSON Web Token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.S3cret-S3cret", "S3cret"),
    "GitHub": ("ghp_S3cretS3cretS3cretS3cretS3cret", "S3cret"),
    "GitHub, fine-grained": ("github_pat_S3cretS3cretS3cretS3cret_x", "S3cret"),
    "OpenAI": ("sk-proj-S3cretS3cretS3cretS3cret", "S3cret"),
    "Stripe": ("sk_live_S3cretS3cret", "S3cret"),
    "AWS": ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
    "Google": ("AIzaS3cretS3cretS3cretS3cretS3cretS3cret", "S3cret"),
    "private key": ("-----BEGIN RSA PRIVATE KEY-----\nS3cret+/=\n-----END RSA PRIVATE KEY-----", "S3cret"),
}
ORDINARY = [
    "https://example.com/",
    "https://api.github.com/repos/encode/httpx/issues?page=2&per_page=100&sort=created",
    "https://slack.com/api/chat.postMessage?channel=C123&cursor=dXNlcjpVMEc5V0ZYTlo=",
    "https://discord.com/api/v10/channels/123456789012345678/messages?limit=50",
    "https://graph.microsoft.com/v1.0/teams/19:abc@thread.tacv2/channels",
    "https://api.telegram.org/bots/12:30 and /bottom",
    "https://example.com/webhooks/42/deliveries",
    "https://medium.com/@user/story-of-a-token-economy-in-2024",
    "https://example.com/?max_tokens=100&page_token=abc&code_style=x&keyword=a&monkey=1&key=1",
    "https://example.com:8443/a;b=c?d=e#f=g",
    "https://user-images.example.com/a@2x.png?v=1.2.3 mailto:bob@example.com",
    "https://example.com/task-management-and-more-things-to-do/2024-01-01T12:00:00",
    'HTTP Request: GET https://www.example.org/ "HTTP/1.1 200 OK"',
    "connect_tcp.started host='api.example.com' port=443 local_address=None timeout=5.0",
    "slack chat.postMessage: no token: invalid_grant; look at the credentials",
    "test GET failed (attempt 1/3): HTTP 503",
    "Basic authentication is required, Bearer tokens are not",
    "ValueError: 'token' must be one of 'a', 'b'",
    '{"tokens": 12, "next_page_token": "abc", "code": "invalid_auth", "status": "ok"}',
    "urn:uuid:123e4567-e89b-12d3-a456-426614174000 4bf92f3577b34da6a3ce929d0e0e4736",
]


@pytest.mark.parametrize(("text", "secret"), SHAPES.values(), ids=SHAPES)
def test_a_secret_of_a_known_shape_is_not_shown(text, secret):
    for around in (text, f"before {text} after", f"b'{text}'", f"<{text}>"):
        shown = redact(around)
        assert secret not in shown
        assert HIDDEN in shown
        assert redact(shown) == shown


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_text_stays_as_it_is(text):
    assert redact(text) == text


PIECES = st.sampled_from(
    [
        *(text for text, _ in SHAPES.values()),
        *("token=", "?sig=", "://", "@", "/bot", "1234567:", "Bearer ", "xoxb-", "eyJ", ".", "'", '"', ": "),
        *("=", "&", ";", HIDDEN, "authorization", "cookie", "(b'", "', b'", "%3A", "A" * 30, "9" * 9, "\n"),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES | st.text(max_size=6), max_size=12).map("".join))
def test_redacting_twice_is_redacting_once(text):
    shown = redact(text)
    assert redact(shown) == shown


@settings(max_examples=200, deadline=None)
@given(
    before=st.text("abcdefgh /.,", max_size=20),
    after=st.text("abcdefgh /.,", max_size=20),
    shape=st.sampled_from(list(SHAPES.values())),
)
def test_a_shape_is_found_wherever_it_stands(before, after, shape):
    text, secret = shape
    assert secret not in redact(f"{before} {text} {after}")


@settings(max_examples=200, deadline=None)
@given(
    host=st.sampled_from(["example.com", "api.example.org:8080", "slack.com", "graph.microsoft.com"]),
    path=st.lists(st.text("abcdefghij-_0123456789", min_size=1, max_size=12), max_size=5),
    query=st.dictionaries(
        st.sampled_from(["page", "limit", "q", "cursor", "sort", "id", "lang", "max_tokens", "offset"]),
        st.text("abcdefghijABCD0123456789-_", min_size=1, max_size=12),
    ),
)
def test_ordinary_addresses_stay_as_they_are(host, path, query):
    url = f"https://{host}/{'/'.join(path)}" + "?" * bool(query) + "&".join(map("=".join, query.items()))
    assert redact(url) == url


@pytest.mark.parametrize("value", ["pl/ain+se cret", "123456:AA+x/y=z", "ordinaryword"])
def test_a_secret_that_somebody_holds_is_found_whatever_it_looks_like(value):
    secret = Secret(value, origin="https://a.test", name="held")
    small = "".join(f"%{ord(sign):02x}" if sign in "/+=: " else sign for sign in value)
    for form in (*secret.forms, small):
        assert redact(f"before {form} after") == f"before {secret} after"


def test_a_secret_that_nobody_holds_any_more_is_an_ordinary_word():
    assert redact("ordinaryword2") == "ordinaryword2"
    secret = Secret("ordinaryword2", origin="https://a.test")
    assert redact("ordinaryword2") == str(secret)
    del secret
    assert redact("ordinaryword2") == "ordinaryword2"


def test_a_text_in_which_each_find_uncovers_the_next_is_not_shown_at_all(monkeypatch):
    import re

    from aragora_transport import _redact

    monkeypatch.setattr(_redact, "_RULES", ((re.compile("a"), "aa"),))
    assert redact("banana") == HIDDEN


def test_a_text_is_redacted_before_it_is_cut():
    text = "x" * 280 + " xoxb-1234567890-S3cretS3cretS3cret"
    assert "xoxb" not in one_line(text)
    assert len(one_line(text)) <= 300


def test_what_an_error_says_is_redacted():
    assert (
        describe_error(OSError("no route to https://u:pw1234@host"))
        == f"OSError: no route to https://{HIDDEN}@host"
    )
