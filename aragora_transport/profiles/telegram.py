"""Telegram's Bot API: the status is the error's own, the wait is in the body, the token is in the path."""

from __future__ import annotations

import re
from typing import Any

from aragora_transport._retry_after import told_number
from aragora_transport.profile import Bucket, Judgement, Profile
from aragora_transport.profiles._reading import (
    code_of,
    digest,
    fields_of,
    inner,
    is_json,
    json_object,
    name_of,
    segments,
)

LONGEST_POLL = 50.0  # seconds; the server cuts a longer `timeout` of getUpdates down to it
_MESSAGES = ("send", "forward", "copy")  # how the methods begin that post something to a chat
# The Bot FAQ: about 30 messages a second in all, one a second in a chat, 20 a minute in a group.
_IN_ALL = ((30, 1.0),)
_IN_A_CHAT = ((1, 1.0),)
_IN_A_GROUP = ((1, 1.0), (20, 60.0))


def reads_body(response: Any) -> bool:
    """An error's; its status is always the body's `error_code`."""
    return response.status_code >= 400 and is_json(response)


def classify(response: Any, body: bytes | None) -> Judgement | None:
    """By the body's `parameters`: a wait to keep, or the id of the chat that a group became."""
    told = json_object(body)
    if told.get("ok") is not False:
        return None
    parameters = inner(told, "parameters")
    status: int = response.status_code
    code = code_of(told.get("error_code")) or str(status)
    if status == 429:  # Too Many Requests
        wait: Any = told_number(parameters.get("retry_after"))
        return Judgement(verdict="neither", wait=wait, limited=True, code=code)
    if parameters.get("migrate_to_chat_id") is not None:
        return Judgement(verdict="success", retryable=False, code="migrate_to_chat_id")
    if status == 409:  # another getUpdates runs, or a webhook is set: asking again ends that one, and so on
        return Judgement(verdict="success", retryable=False, code=code)
    return Judgement(verdict="success" if status < 500 or status == 501 else "failure", code=code)


def _method(request: Any) -> tuple[str, str]:
    """The bot, as a digest, and the method in lower case: its name is in any case."""
    *before, method = segments(request)
    token = next((part for part in before if part.startswith("bot")), "")
    return digest(token), "file" if "file" in before else method.lower()


def rate_key(request: Any) -> tuple[Bucket, ...]:
    """For a message its chat, and the bot as a whole; else the method."""
    bot, method = _method(request)
    if not method.startswith(_MESSAGES) or method == "sendchataction":
        return (Bucket(f"{method} {bot}"),)
    in_all = Bucket(f"messages {bot}", _IN_ALL)
    chat = name_of(fields_of(request).get("chat_id"))
    if chat is None:  # inside a multipart body
        return (Bucket(f"{method} {bot}"), in_all)
    return (Bucket(f"chat {chat} {bot}", _IN_A_GROUP if chat[0] in "-@" else _IN_A_CHAT), in_all)


def long_poll(request: Any) -> float | None:
    """The `timeout` of getUpdates, as far as the server keeps to it."""
    if segments(request)[-1].lower() != "getupdates":
        return None
    seconds = told_number(name_of(fields_of(request).get("timeout")))
    return min(seconds, LONGEST_POLL) if seconds else None


TELEGRAM = Profile(
    name="telegram",
    classify=classify,
    reads_body=reads_body,
    rate_key=rate_key,
    long_poll=long_poll,
    secrets=re.compile(r"/bot([^/?#]+)(?:[/?#]|$)"),
)
