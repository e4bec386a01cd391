"""Microsoft Teams: the Bot Connector, Microsoft Graph, and the incoming webhook that hides its errors."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from aragora_transport.profile import Bucket, Judgement, Profile
from aragora_transport.profiles._reading import (
    code_of,
    digest,
    inner,
    is_json,
    json_object,
    segments,
    whose,
)

_HIDDEN = re.compile(rb"Microsoft Teams endpoint returned HTTP error ([0-9]{3})")
_WEBHOOKS = frozenset({"webhook", "webhookb2"})
_TRANSIENT = frozenset({412, 429, 500, 502, 503, 504, 509})

# (requests, seconds) of a bot in a conversation, of its app in a tenant, and of an incoming webhook
# (Microsoft Learn: "Rate limiting for bots", "Create Incoming Webhooks", "Graph throttling limits").
_SEND = ((7, 1.0), (8, 2.0), (60, 30.0), (1800, 3600.0))
_MEMBERS = ((14, 1.0), (16, 2.0), (120, 30.0), (3600, 3600.0))
_APP = ((50, 1.0),)
_FEED = ((5, 1.0),)
_FEED_MANY = ((2, 1.0),)
_WEBHOOK = ((4, 1.0), (60, 30.0), (100, 3600.0), (150, 7200.0), (1800, 86_400.0))


def reads_body(response: Any) -> bool:
    """An error's, and the text of an incoming webhook: `1`, or an error that is called a 200."""
    if response.status_code >= 400:
        return is_json(response)
    kind: str = response.headers.get("content-type", "")
    return response.status_code == 200 and kind.startswith("text/")


def classify(response: Any, body: bytes | None) -> Judgement | None:
    """By the error that an incoming webhook's text names, or the code of the body."""
    status: int = response.status_code
    if status < 400:
        hidden = None if body is None else _HIDDEN.search(body)
        if hidden is None:
            return None
        status = int(hidden[1])
        return replace(_by_status(status, hidden[1].decode()), retryable=status in _TRANSIENT)
    code = _code(json_object(body))
    return None if code is None and status != 412 else _by_status(status, code)


def _by_status(status: int, code: str | None) -> Judgement:
    if status == 429:  # Too Many Requests
        return Judgement(verdict="neither", limited=True, code=code)
    if status == 412:  # two operations met in one conversation, and this one was refused
        return Judgement(verdict="success", unprocessed=True, code=code)
    failed = status >= 500 and status not in (501, 505)  # HTTP's server errors
    return Judgement(verdict="failure" if failed else "success", code=code)


def _code(told: dict[str, Any]) -> str | None:
    """Of an error of the connector or Graph, of its older shape with JSON in its text, of a token refused."""
    error = inner(told, "error")
    message = told.get("message")
    nested = json_object(message) if isinstance(message, str) else {}
    return (
        code_of(error.get("code"))
        or code_of(nested.get("subCode"))
        or code_of(told.get("error"))
        or code_of(told.get("errorCode"))
    )


def rate_key(request: Any) -> tuple[Bucket, ...]:
    """By conversation and app for the connector, by app and tenant for Graph, a webhook by itself."""
    host: str = request.url.host
    parts = segments(request)
    if not _WEBHOOKS.isdisjoint(parts) or host.endswith(("logic.azure.com", "powerplatform.com")):
        return (Bucket(f"webhook {digest(request.url.path)}", _WEBHOOK),)
    app = whose(request)
    if host.startswith("graph."):
        return (_graph(parts, app),)
    if host.startswith("login."):
        return (Bucket(f"token {parts[0]}"),)
    in_all = Bucket(f"app {app}", _APP)
    if "conversations" not in parts:
        return (Bucket(f"connector {app}"), in_all)
    return (_conversation(request.method, parts[parts.index("conversations") + 1 :], app), in_all)


def _graph(parts: list[str], app: str) -> Bucket:
    if parts[-1] == "sendActivityNotification":
        return Bucket(f"activity feed {app}", _FEED)
    if parts[-1] == "sendActivityNotificationToRecipients":
        return Bucket(f"activity feed to many {app}", _FEED_MANY)
    return Bucket(f"graph {'/'.join(parts[1:2])} {app}")


def _conversation(method: str, parts: list[str], app: str) -> Bucket:
    if not parts:
        return Bucket(f"create {app}", _SEND)
    conversation, *rest = parts
    if "members" in "".join(rest[:1]):
        return Bucket(f"members {conversation}", _MEMBERS)
    if method == "POST":
        return Bucket(f"send {conversation}", _SEND)
    return Bucket(f"{method} {conversation}")


TEAMS = Profile(
    name="teams",
    classify=classify,
    reads_body=reads_body,
    retry_statuses=frozenset({412, 509}),  # the latter is Graph's bandwidth limit
    rate_key=rate_key,
    secrets=re.compile(r"/webhook(?:b2)?/([^?#]+)|[?&]sig=([^&#]+)"),
)
