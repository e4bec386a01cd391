"""Discord's HTTP API: how a request is made and an answer read; webhooks and interactions.

https://discord.com/developers/docs/reference
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote, urlsplit

from aragora_transport._version import __version__
from aragora_transport.connectors._answer import fields_of, items_of
from aragora_transport.connectors._events import discord_event
from aragora_transport.connectors._files import File, Upload
from aragora_transport.connectors._receiving import ReceivingConnector
from aragora_transport.connectors._settings import ConnectorOptions, given, segment
from aragora_transport.connectors.webhooks import DiscordWebhook

if TYPE_CHECKING:
    from aragora_transport._credentials import Secret
    from aragora_transport.connectors._answer import Answer
    from aragora_transport.result import ConnectorResult

Id = int | str
Webhook = str | tuple[Id, str]  # its URL, or its id and its token

TEXT = 2000  # characters of a message
UPLOAD = 10 << 20  # bytes of a file
EPHEMERAL = 64  # the flag of a message that one user alone sees
ALREADY_ACKNOWLEDGED, UNKNOWN_MESSAGE, THREAD_EXISTS = "40060", "10008", "160004"
# Of the three seconds in which an interaction must be answered: the rest is for the way of its request.
WINDOW = 2.5
USER_AGENT = f"DiscordBot (aragora-transport, {__version__})"


class DiscordApi(ReceivingConnector):
    """A bot of Discord's.

    `token`: of the bot; sent to `base_url` alone. `token_type`: "Bot", or "Bearer" for an OAuth token.
    `base_url`: of the API, version included. `user_agent`: Discord asks for `DiscordBot (<url>, <version>)`.
    `public_key`: of the application, for `verify_webhook`; see `DiscordWebhook`.
    `max_upload`, `max_download`: bytes of a file; `None` for no limit on our side.
    For the rest see `Connector`.
    """

    platform_name = "discord"
    _signed_with = "public_key"
    _webhook_event = staticmethod(discord_event)

    def __init__(
        self,
        token: str,
        *,
        base_url: str = "https://discord.com/api/v10",
        token_type: str = "Bot",  # noqa: S107  # no password
        user_agent: str = USER_AGENT,
        public_key: str | None = None,
        max_upload: int | None = UPLOAD,
        max_download: int | None = None,
        **keywords: Unpack[ConnectorOptions],
    ) -> None:
        super().__init__(base_url=base_url, secrets={"discord-token": token}, **keywords)
        self._inbox = None if public_key is None else DiscordWebhook(public_key)
        self._agent = {"User-Agent": user_agent}
        self._identity = {**self._agent, "Authorization": f"{token_type} {self._secrets['discord-token']}"}
        self.max_upload = max_upload
        self.max_download = max_download

    def read(self, answer: Answer) -> ConnectorResult:
        """The JSON of an answer; of a failure its message, and which fields it speaks of."""
        if not answer.ok:
            told = [answer.fields.get("message"), *_complaints(answer.fields.get("errors"))]
            return answer.failure("; ".join(part for part in told if isinstance(part, str)))
        if answer.body and answer.json is None:
            return answer.unreadable()
        return answer.success(answer.json if answer.body else None)

    async def call(
        self, method: str, path: str, *, operation: str = "call", **keywords: Any
    ) -> ConnectorResult:
        """Any route, such as `call("GET", "guilds/7/roles")`.

        `keywords`: `json`, `params`, `uploads`, `reason` (for the audit log), `idempotent` and the other
        options of `call_options()`.
        """
        return await self._api(method, path, operation, **keywords)

    async def _api(
        self,
        method: str,
        path: str,
        operation: str,
        *,
        json: Any = None,
        uploads: Mapping[str, Upload] | None = None,
        reason: str | None = None,
        identity: Mapping[str, str] | None = None,
        **keywords: Any,
    ) -> ConnectorResult:
        headers = dict(self._identity if identity is None else identity)
        if reason is not None:
            headers["X-Audit-Log-Reason"] = quote(reason, safe=" /")
        if uploads:
            keywords.update(data={"payload_json": json_module.dumps(json)}, uploads=uploads)
        else:
            keywords["json"] = json
        return await self._request(method, path, operation=operation, headers=headers, **keywords)

    # --- webhooks: their token is in the path, and no other is sent ---

    async def execute_webhook(
        self,
        webhook: Webhook,
        text: str | None = None,
        *,
        wait: bool = True,
        thread_id: Id | None = None,
        file: File | None = None,
        filename: str | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """Post through a webhook, given by its URL or by `(id, token)`.

        `wait`: for the message; without it Discord reports no failure to store one.
        """
        uploads = None if file is None else {"files[0]": Upload(file, filename, self.max_upload)}
        return self._too_long("execute_webhook", text, TEXT) or await self._hook(
            "POST",
            *self._webhook(webhook),
            "",
            "execute_webhook",
            params=given(wait="true" if wait else "false", thread_id=thread_id),
            json={**given(content=text), **fields},
            uploads=uploads,
        )

    async def edit_webhook_message(
        self, webhook: Webhook, message_id: Id, text: str | None = None, **fields: Any
    ) -> ConnectorResult:
        """Change a message that the webhook has posted."""
        return await self._edit("edit_webhook_message", *self._webhook(webhook), message_id, text, fields)

    async def delete_webhook_message(self, webhook: Webhook, message_id: Id) -> ConnectorResult:
        """Delete a message that the webhook has posted."""
        return await self._unpost("delete_webhook_message", *self._webhook(webhook), message_id)

    async def _hook(
        self, method: str, owner: Id, token: Secret, below: str, operation: str, **keywords: Any
    ) -> ConnectorResult:
        path = f"webhooks/{segment(owner)}/{token}{below}"
        return await self._api(method, path, operation, identity=self._agent, secrets=(token,), **keywords)

    async def _edit(
        self,
        operation: str,
        owner: Id,
        token: Secret,
        message_id: Id,
        text: str | None,
        fields: dict[str, Any],
    ) -> ConnectorResult:
        below = f"/messages/{segment(message_id)}"
        body = {**given(content=text), **fields}
        return self._too_long(operation, text, TEXT) or await self._hook(
            "PATCH", owner, token, below, operation, json=body, idempotent=True
        )

    async def _unpost(self, operation: str, owner: Id, token: Secret, message_id: Id) -> ConnectorResult:
        done = has_code(UNKNOWN_MESSAGE)
        below = f"/messages/{segment(message_id)}"
        return await self._hook("DELETE", owner, token, below, operation, already_done=done)

    def _webhook(self, webhook: Webhook) -> tuple[Id, Secret]:
        """Its id and its token, which goes to `base_url` alone, whatever host the URL names."""
        if isinstance(webhook, str):
            _, found, rest = urlsplit(webhook).path.partition("/webhooks/")
            owner, _, token = rest.partition("/")
            if not found or not owner or not token:
                raise ValueError("a webhook's URL looks like https://discord.com/api/webhooks/<id>/<token>")
            return owner, self._token(token)
        return webhook[0], self._token(webhook[1])

    def _token(self, token: str) -> Secret:
        if set(token) & set("/?#") or token in {".", ".."}:
            raise ValueError("the token of a webhook or an interaction is one segment of a path")
        return self._secret(token, "path-token")

    # --- interactions: answered within three seconds of their request, or not at all ---

    async def respond_to_interaction(
        self,
        interaction_id: Id,
        token: str,
        text: str | None = None,
        *,
        type: int = 4,  # noqa: A002  # Discord's name for it
        ephemeral: bool = False,
        with_response: bool = False,
        window: float = WINDOW,
        **fields: Any,
    ) -> ConnectorResult:
        """The first answer to an interaction; by default a message with `text`.

        `type`: of the answer (4 a message, 5 one that follows, 7 an update, 8 choices, 9 a modal).
        `ephemeral`: for the user alone. `with_response`: return what was made of it.
        `window`: seconds that are left; the whole call has them, in at most two attempts.
        """
        flags: int = fields.pop("flags", 0) | (EPHEMERAL if ephemeral else 0)
        data = {**given(content=text, flags=flags or None), **fields}
        hidden = self._token(token)
        return self._too_long("respond_to_interaction", text, TEXT) or await self._api(
            "POST",
            f"interactions/{segment(interaction_id)}/{hidden}/callback",
            "respond_to_interaction",
            identity=self._agent,
            secrets=(hidden,),
            params={"with_response": "true"} if with_response else None,
            json={"type": type, **given(data=data or None)},
            total_timeout=window,
            attempt_timeout=window * 0.4,  # so that a second one has a chance
            max_attempts=2,
            idempotent=True,  # the second one would be told so
            already_done=has_code(ALREADY_ACKNOWLEDGED),
        )

    async def defer(
        self,
        interaction_id: Id,
        token: str,
        *,
        ephemeral: bool = False,
        update: bool = False,
        window: float = WINDOW,
    ) -> ConnectorResult:
        """Say that the answer follows, by `edit_original` and within 15 minutes.

        `update`: it will change the message that the pressed button is on, and shows nothing until then.
        """
        kind = 6 if update else 5
        return await self.respond_to_interaction(
            interaction_id, token, type=kind, ephemeral=ephemeral, window=window
        )

    async def get_original(self, application_id: Id, token: str) -> ConnectorResult:
        """The first answer to an interaction."""
        return await self._hook("GET", application_id, self._token(token), _ORIGINAL, "get_original")

    async def edit_original(
        self, application_id: Id, token: str, text: str | None = None, **fields: Any
    ) -> ConnectorResult:
        """Change the first answer to an interaction, or give the one that was deferred."""
        return await self._edit(
            "edit_original", application_id, self._token(token), "@original", text, fields
        )

    async def delete_original(self, application_id: Id, token: str) -> ConnectorResult:
        """Delete the first answer to an interaction."""
        return await self._unpost("delete_original", application_id, self._token(token), "@original")

    async def followup(
        self,
        application_id: Id,
        token: str,
        text: str | None = None,
        *,
        ephemeral: bool = False,
        **fields: Any,
    ) -> ConnectorResult:
        """A further message after the first answer, within 15 minutes of the interaction."""
        flags: int = fields.pop("flags", 0) | (EPHEMERAL if ephemeral else 0)
        body = {**given(content=text, flags=flags or None), **fields}
        return self._too_long("followup", text, TEXT) or await self._hook(
            "POST", application_id, self._token(token), "", "followup", json=body
        )


_ORIGINAL = "/messages/@original"


def has_code(code: str) -> Callable[[Answer], bool]:
    return lambda answer: answer.judged.code == code


def _complaints(errors: Any, at: str = "", depth: int = 8) -> list[str]:
    """What is wrong with which field, from `{"content": {"_errors": [{"message": ...}]}}`."""
    found: list[str] = []
    for name, inner in fields_of(errors).items():
        if name == "_errors":
            found += [f"{at}: {fields_of(one).get('message')}" for one in items_of(inner) or ()]
        elif depth:
            found += _complaints(inner, f"{at}.{name}" if at else name, depth - 1)
    return found
