"""Slack's HTTP API: how a request is made and an answer read, and tokens that rotate.

https://docs.slack.dev/apis/web-api
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack
from urllib.parse import quote_plus, urlsplit

from aragora_transport._credentials import Secret, origin_of
from aragora_transport._redact import one_line
from aragora_transport._tokens import TokenSource
from aragora_transport.connectors._answer import Answer, fields_of, items_of
from aragora_transport.connectors._events import slack_event
from aragora_transport.connectors._receiving import ReceivingConnector
from aragora_transport.connectors._settings import ConnectorOptions, given, segment
from aragora_transport.connectors.oauth import RefreshToken
from aragora_transport.connectors.webhooks import SlackWebhook

if TYPE_CHECKING:
    from aragora_transport.connectors.oauth import TokenStore
    from aragora_transport.result import ConnectorResult

_API = "https://slack.com/api"
_FILES = "https://files.slack.com"
_REFRESHED_BEFORE = 7200.0  # seconds, of the 43,200 that Slack's tokens last; as slack_sdk does

TEXT = 40_000  # characters of a message: Slack cuts off what is beyond
EDITED = 4000  # characters of a message that is changed

# Every method takes a form; these take JSON as well, in which blocks and views need no second encoding.
_JSON = re.compile(
    r"(?:chat|views)\.(?!getPermalink)\w.*|(?:pins|reactions)\.(?:add|remove)|auth\.test|apps\.connections\.open"
    r"|files\.(?:completeUploadExternal|delete)|users\.(?:profile\.set|setPresence)"
    r"|conversations\.(?:open|history|create|join|leave|close|invite|kick|rename|archive|unarchive|mark"
    r"|setTopic|setPurpose)"
)
# What only looks, what says how something shall be, and what leaves a grant behind that expires.
_HARMLESS_TWICE = re.compile(
    r".+\.(?:list|info|history|replies|members|test|lookupByEmail|get\w*|open|identity|conversations)"
    r"|chat\.(?:update|delete)|(?:pins|reactions)\..+|views\.(?:update|publish)"
)


class SlackApi(ReceivingConnector):
    """An app of Slack's in one workspace.

    `token`: of the bot or of a user; sent to `base_url` and `files_url` alone. For one that is exchanged
        every twelve hours see `rotating`.
    `app_token`: the app-level one (`xapp-`), for `open_socket`.
    `signing_secret`: of the app, for `verify_webhook`.
    `base_url`: of the Web API. `files_url`: where `download_file` takes files from.
    `max_upload`, `max_download`: bytes of a file; `None` for no limit on our side.
    For the rest see `Connector`.
    """

    platform_name = "slack"
    _signed_with = "signing_secret"
    _webhook_event = staticmethod(slack_event)

    def __init__(
        self,
        token: str | TokenSource,
        *,
        app_token: str | None = None,
        signing_secret: str | None = None,
        base_url: str = _API,
        files_url: str = _FILES,
        max_upload: int | None = None,
        max_download: int | None = None,
        **keywords: Unpack[ConnectorOptions],
    ) -> None:
        source = token if isinstance(token, TokenSource) else None  # then the stack writes the token
        mine = token if isinstance(token, str) else None
        secrets = given(**{"slack-token": mine, "slack-app-token": app_token})
        super().__init__(base_url=base_url, secrets=secrets, auth=source, **keywords)
        self._inbox = None if signing_secret is None else SlackWebhook(signing_secret)
        self._identity = {} if mine is None else bearer(self._secrets["slack-token"])
        self._app_identity = self._identity if app_token is None else bearer(self._secrets["slack-app-token"])
        places = (self.base_url, files_url)
        self._file_origins = {origin_of(place, "slack-file") for place in places}
        self._file_token = None if mine is None else Secret(mine, origin=places, name="slack-token")
        self.max_upload = max_upload
        self.max_download = max_download

    def read(self, answer: Answer) -> ConnectorResult:
        """The JSON of an answer; of a failure its `error`, and what Slack says beside it."""
        if answer.ok:
            return answer.success(answer.json) if answer.fields.get("ok") is True else answer.unreadable()
        told = answer.fields
        said = ((name, told.get(name)) for name in ("needed", "provided"))
        scopes = {name: self._hide(one_line(value)) for name, value in said if isinstance(value, str)}
        notes = [f"{name}: {value}" for name, value in scopes.items()]
        notes += [
            str(one) for one in items_of(fields_of(told.get("response_metadata")).get("messages")) or ()
        ]
        error = told.get("error")
        if isinstance(error, str) and notes:
            error = f"{error} ({'; '.join(notes)})"
        return answer.failure(error, data=scopes or None)

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, **keywords: Any
    ) -> ConnectorResult:
        """Any method by Slack's name for it, such as `call("team.info", {"team": "T1"})`.

        `params`: sent as JSON where the method takes that, else as a form, in which lists of words are joined
        by commas, and what else is no text is JSON.
        `keywords`: `operation` (default the method's name), `idempotent` and the other options of
        `call_options()`; by default methods that look, or say how something shall be, are harmless twice.
        """
        return await self._method(method, dict(params or {}), **keywords)

    async def _method(
        self,
        method: str,
        params: dict[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        **keywords: Any,
    ) -> ConnectorResult:
        keywords.setdefault("operation", method)
        if _HARMLESS_TWICE.fullmatch(method):
            keywords.setdefault("idempotent", True)
        headers = dict(self._identity if headers is None else headers)
        if not params:
            pass
        elif _JSON.fullmatch(method):
            headers["Content-Type"] = "application/json; charset=utf-8"
            keywords["content"] = json.dumps(params)
        else:
            keywords["data"] = {name: _in_form(value) for name, value in params.items()}
        return await self._request("POST", segment(method), headers=headers, **keywords)

    def _page(self, key: str) -> Callable[[Answer], ConnectorResult]:
        """Reads an answer whose list is called `key`."""

        def read(answer: Answer) -> ConnectorResult:
            items = items_of(answer.fields.get(key))
            if not answer.ok or items is None:
                return answer.unreadable() if answer.ok else self.read(answer)
            cursor = fields_of(answer.fields.get("response_metadata")).get("next_cursor")
            following = cursor if isinstance(cursor, str) and cursor else None
            return answer.success({"items": items, "next_cursor": following})

        return read

    # --- tokens ---

    @classmethod
    def rotating(
        cls,
        client_id: str,
        client_secret: str,
        refresh_token: str | None = None,
        *,
        store: TokenStore | None = None,
        save: Callable[[str], Any] | None = None,
        **keywords: Any,
    ) -> Self:
        """An app whose token rotates: exchanged two hours before its end, once for any number of calls.

        `refresh_token`, `store`, `save`: where the refresh token comes from, and where the next one is kept
        before it counts; see `RefreshToken`. `keywords`: of the connector.
        """
        base_url, files_url = keywords.get("base_url", _API), keywords.get("files_url", _FILES)
        source = _RotatingToken(
            f"{base_url.rstrip('/')}/oauth.v2.access",
            client_id,
            client_secret,
            refresh_token=refresh_token,
            store=store,
            save=save,
            origin=(base_url, files_url),
            margin=_REFRESHED_BEFORE,
            transport=keywords.get("transport"),
            registry=keywords.get("registry"),
        )
        return cls(source, **keywords)

    async def refresh_token(self, client_id: str, client_secret: str, refresh_token: str) -> ConnectorResult:
        """Exchange a refresh token: `access_token`, the next `refresh_token`, and `expires_in` seconds.

        Slack revokes the old one: keep the new one before it is used. The result's `data` holds both tokens
        in the clear.
        """
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"  # RFC 6749, 2.3.1
        client = self._secret(base64.b64encode(pair.encode()).decode(), "slack-client")
        old = self._secret(refresh_token, "slack-refresh-token")  # which Slack might repeat
        return await self._method(
            "oauth.v2.access",
            {"grant_type": "refresh_token", "refresh_token": refresh_token},
            operation="refresh_token",
            headers={"Authorization": f"Basic {client}"},
            secrets=(client, old),
            resend_unsafe="unprocessed",  # whatever is said of messages: a second exchange is refused
        )


class _RotatingToken(RefreshToken):
    """For the Web API but where another credential belongs, and for files but not the URLs that take them."""

    _not_for = frozenset({"apps.connections.open", "oauth.v2.access"})

    def covers(self, url: Any) -> bool:
        api = urlsplit(self.token_url).path.removesuffix("oauth.v2.access")
        method = url.path.removeprefix(api)
        wanted = "/" not in method and method not in self._not_for
        return super().covers(url) and (wanted or url.path.startswith("/files"))


def bearer(token: Secret) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _in_form(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(one, str | int) for one in value):  # pyright: ignore[reportUnknownVariableType]  # JSON
        return ",".join(str(one) for one in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON
    return json.dumps(value)
