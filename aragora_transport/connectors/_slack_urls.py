"""What of Slack is not its Web API: webhooks, response URLs, and where files go to and come from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from aragora_transport._credentials import origin_of
from aragora_transport.connectors._answer import fields_of
from aragora_transport.connectors._files import Download, File, FileRefusedError, Sink, Upload
from aragora_transport.connectors._settings import given
from aragora_transport.connectors._slack import TEXT, SlackApi, bearer

if TYPE_CHECKING:
    from aragora_transport._credentials import Secret
    from aragora_transport.connectors._answer import Answer
    from aragora_transport.result import ConnectorResult

_WORD = re.compile(r"[a-z][a-z_]+")


class SlackUrls(SlackApi):
    """Requests to URLs that Slack hands out, most of which let in whoever has them."""

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
        if not self._is_a_file_place(url):
            error = "the URL is at none of the hosts that get the token; see files_url"
            return self._refused("download_file", error, "foreign_host")
        token = self._file_token
        return await self._request(
            "GET",
            url,
            operation="download_file",
            secrets=() if token is None else (token,),
            headers=None if token is None else bearer(token),
            download=_FileDownload(limit=self.max_download, to=to),
        )

    def _is_a_file_place(self, url: str) -> bool:
        try:
            return origin_of(url, "slack-file") in self._file_origins
        except ValueError:
            return False


class _FileDownload(Download):
    """Takes a file, but no page: Slack shows its login page to who may not have a file."""

    async def take(self, response: Any) -> dict[str, Any]:
        kind: str = response.headers.get("content-type", "")
        if kind.startswith("text/html") and not response.request.url.path.endswith((".html", ".htm")):
            text = "Slack answered with a page in place of the file; does the token have files:read?"
            raise FileRefusedError(text, "no_file")
        return await super().take(response)


def _read_text(answer: Answer) -> ConnectorResult:
    """`ok`, or a word that says what is wrong; a response URL may answer in JSON."""
    if answer.ok:
        return answer.success(answer.fields or answer.text)
    word = answer.text if _WORD.fullmatch(answer.text) else None
    return answer.failure(answer.fields.get("error"), code=word)


def _read_uploaded(answer: Answer) -> ConnectorResult:
    return answer.success(None) if answer.ok else answer.failure()
