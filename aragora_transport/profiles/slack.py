"""Slack: a failure is a `200 {"ok": false}`, and each method has a limit of its own in each workspace."""

from __future__ import annotations

import re
from typing import Any

from aragora_transport.profile import Bucket, Judgement, Profile
from aragora_transport.profiles._reading import (
    code_of,
    digest,
    fields_of,
    is_json,
    json_object,
    name_of,
    segments,
    whose,
)

_LIMITED = frozenset({"ratelimited", "rate_limited"})
_UNWELL = frozenset({"service_unavailable", "internal_error", "fatal_error"})
# The request came truncated, or the workspace is being moved: no fault of the platform's, and it passes.
_PASSING = frozenset({"request_timeout", "team_added_to_org"})
# Of these, what says that nothing was done; after a fatal_error some of it may have been.
_UNPROCESSED = frozenset({"service_unavailable", "request_timeout"})
# The token has run out: a new one may be had.
_EXPIRED = "token_expired"

_MINUTE = 60.0
# Tiers 2 to 4, for each method in each workspace (docs.slack.dev, "Rate limits"); tier 5 is special.
_TIERS = {
    20: "conversations.list users.list reactions.remove pins.add pins.list pins.remove",
    50: "chat.update chat.delete chat.scheduleMessage conversations.history conversations.info "
    "conversations.replies reactions.add apps.connections.open",
    100: "chat.postEphemeral conversations.members users.info files.getUploadURLExternal "
    "files.completeUploadExternal views.open",
}
_RATES = {method: ((each, _MINUTE),) for each, methods in _TIERS.items() for method in methods.split()}
_METHOD = re.compile(r"[a-z]+(?:\.[A-Za-z]+)+")
_ONE_A_SECOND = ((1, 1.0),)  # of chat.postMessage in a channel, and of an incoming webhook


def classify(response: Any, body: bytes | None) -> Judgement | None:
    """By `ok` and `error` of the body, which tell what the status does not."""
    told = json_object(body)
    if told.get("ok") is not False:
        return None
    code = code_of(told.get("error")) or "unknown_error"
    hidden = response.status_code < 400
    if code in _LIMITED or response.status_code == 429:  # Too Many Requests
        return Judgement(verdict="neither", retryable=hidden or None, limited=True, code=code)
    unprocessed = code in _UNPROCESSED
    if code in _UNWELL:
        return Judgement(verdict="failure", retryable=True, unprocessed=unprocessed, code=code)
    if code in _PASSING:
        return Judgement(verdict="neither", retryable=True, unprocessed=unprocessed, code=code)
    if response.status_code >= 500:  # the status says more than the code
        return Judgement(verdict="failure", code=code)
    return Judgement(verdict="success", retryable=False, unauthenticated=code == _EXPIRED, code=code)


def rate_key(request: Any) -> tuple[Bucket, ...]:
    """The method in its workspace; of chat.postMessage the channel as well; a webhook by itself."""
    parts = segments(request)
    method = parts[-1]
    if request.url.host.startswith("hooks.") or "services" in parts:
        return (Bucket(f"webhook {digest(request.url.path)}", _ONE_A_SECOND),)
    workspace = whose(request)
    if not _METHOD.fullmatch(method):
        method = "files"  # what grants an upload is in its path
    bucket = Bucket(f"{method} {workspace}", _RATES.get(method, ()))
    if method != "chat.postMessage":
        return (bucket,)
    channel = name_of(fields_of(request).get("channel"))
    if channel is None:
        return (bucket,)
    # A 429 speaks of the method, so that comes first.
    return (bucket, Bucket(f"{method} {workspace} {channel}", _ONE_A_SECOND))


SLACK = Profile(
    name="slack",
    classify=classify,
    reads_body=is_json,
    success_begins=(b'{"ok":true', b'{"ok": true'),
    rate_key=rate_key,
    # The path of an incoming webhook and of a response_url, and what grants an upload or a socket.
    secrets=re.compile(
        r"(?://hooks\.[^/?#]+/[a-z]+|/services)/([^?#]+)|/upload/v1/([^?#]+)|[?&](?:ticket|token)=([^&#]+)"
    ),
)
