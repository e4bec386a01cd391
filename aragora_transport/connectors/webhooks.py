"""What the platforms post to your server: whether it is really from them, and what it says.

Give the raw bytes of the body, before anybody has parsed them. Nothing here raises for what somebody sends.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aragora_transport.connectors._events import (
    WebhookEvent,
    discord_event,
    slack_event,
    teams_event,
    telegram_event,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Delivery", "DiscordWebhook", "SlackWebhook", "TeamsWebhook", "TelegramWebhook", "WebhookEvent"]

Headers = Mapping[Any, Any] | Collection[tuple[Any, Any]]  # as frameworks have them, text or bytes

WINDOW = 300.0  # seconds that Slack's timestamp may be off

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_ED25519 = re.compile(r"[0-9a-fA-F]{128}", re.ASCII)
_TELEGRAM = re.compile(r"[A-Za-z0-9_-]{1,256}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What has come.

    `verified`: whether the platform has sent it. `event`: what it says; `None` where it was not verified, or
    cannot be read. `reason`: why there is no event.
    """

    verified: bool
    event: WebhookEvent | None = None
    reason: str | None = None

    @property
    def status(self) -> int:
        """What to answer: 200, 401 where it was not verified, 400 where it cannot be read."""
        if not self.verified:
            return 401
        return 400 if self.event is None else 200


class Webhook(ABC):
    """The receiving end of one platform."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def verify(self, headers: Headers, body: bytes, *, now: float | None = None) -> bool:
        """Whether the platform has sent this. `now`: seconds since 1970, for tests."""
        return self._problem(headers, body, time.time() if now is None else now) is None

    @abstractmethod
    def parse(self, headers: Headers, body: bytes) -> WebhookEvent | None:
        """What it says, whoever has sent it; `None` where it cannot be read."""

    def receive(self, headers: Headers, body: bytes, *, now: float | None = None) -> Delivery:
        """Both: verify, and parse what is verified."""
        problem = self._problem(headers, body, time.time() if now is None else now)
        if problem is not None:
            return Delivery(verified=False, reason=problem)
        event = self.parse(headers, body)
        return Delivery(verified=True, event=event, reason=None if event else "its body cannot be read")

    @abstractmethod
    def _problem(self, headers: Headers, body: bytes, now: float) -> str | None:
        """Why it was not the platform that has sent this."""


class DiscordWebhook(Webhook):
    """Interactions and webhook events of Discord's, signed with Ed25519.

    `public_key`: of the application, in hex, from its General Information. Needs the package cryptography.
    Raises `ValueError` for what is no such key, and `ImportError` without the package.
    """

    def __init__(self, public_key: str) -> None:
        self._key = _ed25519(public_key)

    def _problem(self, headers: Headers, body: bytes, now: float) -> str | None:  # noqa: ARG002  # no window
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # it is optional

        signature = _header(headers, "x-signature-ed25519")
        seconds = _header(headers, "x-signature-timestamp")
        if signature is None or seconds is None:
            return _MISSING
        # Digits alone: else the border between timestamp and body could be moved.
        if not _ED25519.fullmatch(signature) or not _SECONDS.fullmatch(seconds):
            return _UNREADABLE
        if not isinstance(body, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # users err
            return _NOT_RAW
        try:
            self._key.verify(bytes.fromhex(signature), seconds.encode() + body)
        except InvalidSignature:
            return _WRONG
        return None

    def parse(self, headers: Headers, body: bytes) -> WebhookEvent | None:  # noqa: ARG002  # all is in the body
        return discord_event(body)


class SlackWebhook(Webhook):
    """Events, commands and interactions of Slack's, signed with HMAC-SHA256 and good for five minutes.

    `signing_secret`: of the app, from its Basic Information. Raises `ValueError` where it is empty.
    """

    def __init__(self, signing_secret: str) -> None:
        self._secret = _given(signing_secret, "SlackWebhook(signing_secret)").encode()

    def _problem(self, headers: Headers, body: bytes, now: float) -> str | None:
        signature = _header(headers, "x-slack-signature")
        seconds = _header(headers, "x-slack-request-timestamp")
        if signature is None or seconds is None:
            return _MISSING
        if not _SECONDS.fullmatch(seconds):
            return _UNREADABLE
        if not isinstance(body, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # users err
            return _NOT_RAW
        if not abs(now - int(seconds)) <= WINDOW:
            return f"its timestamp is more than {WINDOW:g} seconds off"
        right = hmac.new(self._secret, b"v0:" + seconds.encode() + b":" + body, "sha256").hexdigest()
        return None if _same(signature, f"v0={right}") else _WRONG

    def parse(self, headers: Headers, body: bytes) -> WebhookEvent | None:
        return slack_event(body, retry=_header(headers, "x-slack-retry-num"))


class TeamsWebhook(Webhook):
    """An outgoing webhook of Teams', signed with HMAC-SHA256. It wants its answer within five seconds.

    `security_token`: as Teams shows it once when the webhook is made, in base64. Raises `ValueError` for what
    is not that.
    """

    def __init__(self, security_token: str) -> None:
        try:
            token = _given(security_token, "TeamsWebhook(security_token)")
            self._key = base64.b64decode(token, validate=True)
        except binascii.Error:
            raise ValueError("TeamsWebhook(security_token): it must be base64, as Teams shows it") from None

    def _problem(self, headers: Headers, body: bytes, now: float) -> str | None:  # noqa: ARG002  # no timestamp
        given = _header(headers, "authorization")
        if given is None:
            return _MISSING
        if not isinstance(body, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # users err
            return _NOT_RAW
        right = base64.b64encode(hmac.digest(self._key, body, "sha256")).decode()
        return None if _same(given, f"HMAC {right}") else _WRONG

    def parse(self, headers: Headers, body: bytes) -> WebhookEvent | None:  # noqa: ARG002  # all is in the body
        return teams_event(body)


class TelegramWebhook(Webhook):
    """Updates of Telegram's, which come with the secret that `set_webhook` was given.

    `secret_token`: 1 to 256 letters, digits, "_" and "-"; `ValueError` for anything else.
    """

    def __init__(self, secret_token: str) -> None:
        if not _TELEGRAM.fullmatch(secret_token):
            raise ValueError("TelegramWebhook(secret_token): 1 to 256 letters, digits, '_' and '-'")
        self._secret = secret_token

    def _problem(self, headers: Headers, body: bytes, now: float) -> str | None:  # noqa: ARG002  # the header is all
        given = _header(headers, "x-telegram-bot-api-secret-token")
        if given is None:
            return _MISSING
        return None if _same(given, self._secret) else _WRONG

    def parse(self, headers: Headers, body: bytes) -> WebhookEvent | None:  # noqa: ARG002  # all is in the body
        return telegram_event(body)


_MISSING = "a header of its signature is missing, or there twice"
_UNREADABLE = "a header of its signature cannot be read"
_WRONG = "its signature is wrong"
_NOT_RAW = "its body is not bytes: give it as it came, before it is parsed"


def _same(given: str, right: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


def _given(secret: str, what: str) -> str:
    if not secret or not secret.strip():
        raise ValueError(f"{what}: it is empty, and anybody could sign with that")
    return secret.strip()


def _header(headers: Headers, name: str) -> str | None:
    """The one header of this name, in any case; `None` where there is none, or more than one."""
    try:
        pairs = cast("Any", headers.items() if isinstance(headers, Mapping) else headers)
        found = [value for key, value in pairs if _text(key).lower() == name]
    except (TypeError, ValueError):
        return None
    return _text(found[0]) if len(found) == 1 else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _ed25519(public_key: str) -> Ed25519PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415  # it is optional
            Ed25519PublicKey,
        )
    except ImportError as error:
        raise ImportError(
            "DiscordWebhook verifies Ed25519 signatures, which needs the package cryptography: "
            "pip install 'aragora-transport[webhooks]'"
        ) from error
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
    except ValueError:
        raise ValueError(
            "DiscordWebhook(public_key): it must be 64 hex digits, as the application's page shows them"
        ) from None
