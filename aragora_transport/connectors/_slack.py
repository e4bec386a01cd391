"""Slack's HTTP API: how a request is made and an answer read; webhooks, files and tokens.

https://docs.slack.dev/apis/web-api
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import parse_qsl, quote_plus, unquote, urlencode, urlsplit

from aragora_transport._credentials import origin_of
from aragora_transport.connectors._answer import Answer, fields_of, items_of
from aragora_transport.connectors._files import Download, File, FileRefusedError, Sink, Upload
from aragora_transport.connectors._settings import ConnectorOptions, given, segment
from aragora_transport.connectors.base import ChatPlatformConnector

if TYPE_CHECKING:
    from aragora_transport._credentials import Secret
    from aragora_transport.result import ConnectorResult

TEXT = 40_000  # characters of a message: Slack cuts off what is beyond
EDITED = 4000  # characters of a message that is changed, and of a message that one user sees

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
_WORD = re.compile(r"[a-z][a-z_]+")


class SlackApi(ChatPlatformConnector):
    """An app of Slack's in one workspace.

    `token`: of the bot or of a user; sent to `base_url` and `files_url` alone.
    `app_token`: the app-level one (`xapp-`), for `open_socket`.
    `base_url`: of the Web API. `files_url`: where `download_file` takes files from.
    `max_upload`, `max_download`: bytes of a file; `None` for no limit on our side.
    For the rest see `Connector`.
    """

    platform_name = "slack"

    def __init__(
        self,
        token: str,
        *,
        app_token: str | None = None,
        base_url: str = "https://slack.com/api",
        files_url: str = "https://files.slack.com",
        max_upload: int | None = None,
        max_download: int | None = None,
        **keywords: Unpack[ConnectorOptions],
    ) -> None:
        secrets = given(**{"slack-token": token, "slack-app-token": app_token})
        super().__init__(base_url=base_url, secrets=secrets, **keywords)
        mine = self._secrets["slack-token"]
        self._identity = {"Authorization": f"Bearer {mine}"}
        self._app_identity = {"Authorization": f"Bearer {self._secrets.get('slack-app-token', mine)}"}
        self._files_token = self._secret(mine.reveal(), "slack-token", origin=files_url)
        self.max_upload = max_upload
        self.max_download = max_download

    def read(self, answer: Answer) -> ConnectorResult:
        """The JSON of an answer; of a failure its `error`, and what Slack says beside it."""
        if answer.ok:
            return answer.success(answer.json) if answer.fields.get("ok") is True else answer.unreadable()
        told = answer.fields
        scopes = {name: told[name] for name in ("needed", "provided") if isinstance(told.get(name), str)}
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

    # --- incoming webhooks and response URLs: secret by their path, answered in text, and without a token ---

    async def post_webhook(self, url: str, text: str | None = None, **fields: Any) -> ConnectorResult:
        """Post through an incoming webhook; `fields` are blocks and so on."""
        return self._too_long("post_webhook", text, TEXT) or await self._hook(
            "post_webhook", url, {**given(text=text), **fields}
        )

    async def respond(
        self,
        response_url: str,
        text: str | None = None,
        *,
        response_type: str | None = None,
        replace_original: bool | None = None,
        delete_original: bool | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """Answer a command or the press of a button, at most five times within 30 minutes.

        `response_type`: "ephemeral" (Slack's default) or "in_channel".
        """
        said = given(
            text=text,
            response_type=response_type,
            replace_original=replace_original,
            delete_original=delete_original,
        )
        return self._too_long("respond", text, TEXT) or await self._hook(
            "respond", response_url, {**said, **fields}
        )

    async def _hook(self, operation: str, url: str, body: dict[str, Any]) -> ConnectorResult:
        place, secrets = self._grant(url)
        return await self._request(
            "POST", place, operation=operation, secrets=secrets, json=body, read=_read_text
        )

    def _grant(self, url: str) -> tuple[str, tuple[Secret, ...]]:
        """A URL that lets everybody in, with what does so taken out: its path from the second segment on."""
        parts = urlsplit(url)
        kind, _, rest = parts.path.lstrip("/").partition("/")
        if parts.scheme not in {"http", "https"} or not parts.netloc or not kind:
            raise ValueError("a webhook's URL looks like https://hooks.slack.com/services/<T>/<B>/<secret>")
        origin = f"{parts.scheme}://{parts.netloc}"
        secret = self._secret(unquote(rest or kind), "slack-path", origin=origin)
        place = f"{origin}/{kind}/{secret}" if rest else f"{origin}/{secret}"
        query = {
            name: self._secret(value, "slack-query", origin=origin) for name, value in parse_qsl(parts.query)
        }
        return f"{place}?{urlencode(query)}" if query else place, (secret, *query.values())

    # --- files ---

    async def upload_file(
        self,
        channel_id: str | None,
        file: File,
        *,
        filename: str | None = None,
        title: str | None = None,
        text: str | None = None,
        thread_ts: str | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """Share a file: bytes, a `Path` or an open binary file that can be rewound; with a text beside it.

        Three requests: for a URL, of the bytes to it (without the token), and for the message. A file is
        read while it is sent, and so sent once; bytes are sent again where that may help.
        `channel_id`: `None` keeps it private. `fields` are files.getUploadURLExternal's.
        """
        try:
            with Upload(file, filename, self.max_upload).raw() as raw:
                asked = await self._method(
                    "files.getUploadURLExternal",
                    {"filename": raw.name, "length": raw.length, **fields},
                    operation="upload_file",
                )
                url, file_id = (fields_of(asked.data).get(name) for name in ("upload_url", "file_id"))
                if not asked.success:
                    return asked
                if not isinstance(url, str) or not isinstance(file_id, str):
                    return self._refused("upload_file", "Slack named no place to send it to", "no_upload_url")
                sent = await self._send_bytes(url, raw.content, raw.length)
        except FileRefusedError as error:
            return self._refused("upload_file", str(error), error.code)
        if not sent.success:
            return sent
        shared = given(channel_id=channel_id, initial_comment=text, thread_ts=thread_ts)
        files = [{"id": file_id, "title": title or raw.name}]
        return await self._method(
            "files.completeUploadExternal", {"files": files, **shared}, operation="upload_file"
        )

    async def _send_bytes(self, url: str, content: Any, length: int) -> ConnectorResult:
        """To a URL that lets everybody in: the token does not go there."""
        try:
            place, secrets = self._grant(url)
        except ValueError:
            return self._refused("upload_file", "Slack named a place that makes no sense", "no_upload_url")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        return await self._request(
            "POST",
            place,
            operation="upload_file",
            secrets=secrets,
            headers=headers,
            content=content,
            idempotent=True,  # the file appears when the third request names it
            read=_read_uploaded,
        )

    async def download_file(self, url: str, to: Sink | None = None) -> ConnectorResult:
        """A file by its `url_private`, as `content`, or written to `to`, an open binary file.

        The token is sent to `files_url` and `base_url` alone; a URL elsewhere is refused.
        """
        token = self._token_for(url)
        if token is None:
            error = "the URL is at none of the hosts that get the token; see files_url"
            return self._refused("download_file", error, "foreign_host")
        return await self._request(
            "GET",
            url,
            operation="download_file",
            secrets=(token,),
            headers={"Authorization": f"Bearer {token}"},
            download=_FileDownload(limit=self.max_download, to=to),
        )

    def _token_for(self, url: str) -> Secret | None:
        """The token, where files are; `None` where it does not go."""
        try:
            origin = origin_of(url, "slack-file")
        except ValueError:
            return None
        tokens = (self._secrets["slack-token"], self._files_token)
        return next((token for token in tokens if origin in token.origins), None)

    # --- tokens ---

    async def refresh_token(self, client_id: str, client_secret: str, refresh_token: str) -> ConnectorResult:
        """Exchange a refresh token: `access_token`, the next `refresh_token`, and `expires_in` seconds.

        Slack revokes the old one: keep the new one before it is used. The result's `data` holds both tokens
        in the clear.
        """
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"  # RFC 6749, 2.3.1
        client = self._secret(base64.b64encode(pair.encode()).decode(), "slack-client")
        return await self._method(
            "oauth.v2.access",
            {"grant_type": "refresh_token", "refresh_token": refresh_token},
            operation="refresh_token",
            headers={"Authorization": f"Basic {client}"},
            secrets=(client,),
            resend_unsafe="unprocessed",  # whatever is said of messages: a second exchange is refused
        )


class _FileDownload(Download):
    """Takes a file, but no page: Slack shows its login page to who may not have a file."""

    async def take(self, response: Any) -> dict[str, Any]:
        kind: str = response.headers.get("content-type", "")
        if kind.startswith("text/html") and not response.request.url.path.endswith((".html", ".htm")):
            text = "Slack answered with a page in place of the file; does the token have files:read?"
            raise FileRefusedError(text, "no_file")
        return await super().take(response)


def _in_form(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(one, str | int) for one in value):  # pyright: ignore[reportUnknownVariableType]  # JSON
        return ",".join(str(one) for one in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON
    return json.dumps(value)


def _read_text(answer: Answer) -> ConnectorResult:
    """`ok`, or a word that says what is wrong; a response URL may answer in JSON."""
    if answer.ok:
        return answer.success(answer.fields or answer.text)
    word = answer.text if _WORD.fullmatch(answer.text) else None
    return answer.failure(answer.fields.get("error"), code=word)


def _read_uploaded(answer: Answer) -> ConnectorResult:
    return answer.success(None) if answer.ok else answer.failure()
