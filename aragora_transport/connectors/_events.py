"""What the platforms' webhooks say, in one shape. Nothing here raises, whatever it is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aragora_transport.connectors._answer import fields_of, items_of

_INTERACTIONS = {1: "ping", 2: "command", 3: "component", 4: "autocomplete", 5: "modal"}


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookEvent:
    """Something that has happened on a platform.

    `kind`: the platform's own name for it. `id`: of the delivery, the same when it comes again.
    `channel_id`, `user_id`, `text`: where, who and what, as far as it says so.
    `reply`: what the platform wants back at once, as JSON; `None` where an empty answer does.
    `retry`: how often it has been tried before. `payload`: all of it.
    """

    platform: str
    kind: str
    id: str | None = None
    channel_id: str | None = None
    user_id: str | None = None
    text: str | None = None
    reply: Mapping[str, Any] | None = None
    retry: int = 0
    payload: dict[str, Any] = field(repr=False)  # it holds tokens


def discord_event(body: bytes) -> WebhookEvent | None:
    """An interaction, or an event of a webhook: https://discord.com/developers/docs/events/webhook-events."""
    payload = _object(body)
    if payload is None:
        return None
    event, number = fields_of(payload.get("event")), payload.get("type")
    if number == 0 or event:
        told = fields_of(event.get("data"))
        return WebhookEvent(
            platform="discord",
            kind=_id(event.get("type")) or "ping",
            user_id=_id(fields_of(told.get("user")).get("id")),
            payload=payload,
        )
    kind = _INTERACTIONS.get(number) if isinstance(number, int) else None
    if kind is None:
        return None
    data = fields_of(payload.get("data"))
    user = fields_of(payload.get("user")) or fields_of(fields_of(payload.get("member")).get("user"))
    return WebhookEvent(
        platform="discord",
        kind=kind,
        id=_id(payload.get("id")),
        channel_id=_id(payload.get("channel_id")),
        user_id=_id(user.get("id")),
        text=_id(data.get("name")) or _id(data.get("custom_id")),
        reply={"type": 1} if kind == "ping" else None,
        payload=payload,
    )


def slack_event(body: bytes, *, retry: str | None = None) -> WebhookEvent | None:
    """An event in JSON, or a command or an interaction in a form."""
    again = int(retry) if retry is not None and retry.isascii() and retry.isdigit() and len(retry) < 5 else 0
    payload = _object(body)
    if payload is None:
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)  # pyright: ignore[reportUnnecessaryIsInstance]  # users err
        form: dict[str, Any] = dict(parse_qsl(text, keep_blank_values=True))
        if "command" in form:
            return _slack("slash_command", form, form.get("trigger_id"), form, again)
        payload = _object(form.get("payload", ""))
    kind = None if payload is None else _id(payload.get("type"))
    if payload is None or kind is None:
        return None
    if kind == "url_verification":
        reply = {"challenge": payload.get("challenge")}
        return WebhookEvent(platform="slack", kind=kind, reply=reply, retry=again, payload=payload)
    if kind == "event_callback":
        event = fields_of(payload.get("event"))
        return _slack(_id(event.get("type")) or kind, event, payload.get("event_id"), payload, again)
    action = fields_of(next(iter(items_of(payload.get("actions")) or ()), None))
    said = {**payload, "text": action.get("value") or action.get("action_id") or payload.get("callback_id")}
    return _slack(kind, said, payload.get("trigger_id"), payload, again)


def _slack(kind: str, said: dict[str, Any], number: Any, payload: dict[str, Any], retry: int) -> WebhookEvent:
    channel, user = said.get("channel_id", said.get("channel")), said.get("user_id", said.get("user"))
    return WebhookEvent(
        platform="slack",
        kind=kind,
        id=_id(number),
        channel_id=_id(channel) or _id(fields_of(channel).get("id")),
        user_id=_id(user) or _id(fields_of(user).get("id")),
        text=_id(said.get("text")),
        retry=retry,
        payload=payload,
    )


def teams_event(body: bytes) -> WebhookEvent | None:
    """An activity of the Bot Framework's."""
    payload = _object(body)
    kind = None if payload is None else _id(payload.get("type"))
    if payload is None or kind is None:
        return None
    return WebhookEvent(
        platform="teams",
        kind=kind,
        id=_id(payload.get("id")),
        channel_id=_id(fields_of(payload.get("conversation")).get("id")),
        user_id=_id(fields_of(payload.get("from")).get("id")),
        text=_id(payload.get("text")),
        payload=payload,
    )


def telegram_event(body: bytes) -> WebhookEvent | None:
    """An update, whose kind is the one member that it has besides its number."""
    payload = _object(body)
    kind = None if payload is None else next((name for name in payload if name != "update_id"), None)
    if payload is None or kind is None or not isinstance(payload.get("update_id"), int):
        return None
    said = fields_of(payload[kind])
    chat = fields_of(said.get("chat")) or fields_of(fields_of(said.get("message")).get("chat"))
    user = fields_of(said.get("from")) or fields_of(said.get("user"))
    return WebhookEvent(
        platform="telegram",
        kind=kind,
        id=_id(payload["update_id"]),
        channel_id=_id(chat.get("id")),
        user_id=_id(user.get("id")),
        text=_id(said.get("text") or said.get("caption") or said.get("data") or said.get("query")),
        payload=payload,
    )


def _object(body: Any) -> dict[str, Any] | None:
    """The JSON object that it is."""
    try:
        value: Any = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return None
    return fields_of(value) if isinstance(value, dict) else None


def _id(value: Any) -> str | None:
    """Text, or a number as text."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64:
        return str(value)
    return value if isinstance(value, str) and value else None
