"""Telegram's Bot API: every method is a POST to `/bot<token>/<method>`, every answer one envelope.

https://core.telegram.org/bots/api
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack

from aragora_transport.connectors._answer import fields_of, items_of
from aragora_transport.connectors._events import telegram_event
from aragora_transport.connectors._files import Download, File, Sink, Upload
from aragora_transport.connectors._receiving import ReceivingConnector
from aragora_transport.connectors._settings import ConnectorOptions, given, segment
from aragora_transport.connectors.webhooks import TelegramWebhook
from aragora_transport.layers.timeout import LONG_POLL_MARGIN

if TYPE_CHECKING:
    from aragora_transport.connectors._answer import Answer
    from aragora_transport.result import ConnectorResult

ChatId = int | str
Kind = Literal["document", "photo", "video", "audio", "animation", "voice", "video_note", "sticker"]

TEXT = 4096  # characters of a message
CAPTION = 1024
UPLOAD = 50_000_000  # bytes
PHOTO = 10_000_000
DOWNLOAD = 20 << 20

_HARMLESS_TWICE = ("get", "set", "edit", "delete", "answer", "pin", "unpin", "sendchataction")
_LONGEST_WAIT = 30.0  # seconds between two polls that fail


class TelegramConnector(ReceivingConnector):
    """A bot of Telegram's.

    `token`: as BotFather gives it; it is sent to `base_url` alone.
    `base_url`: of the API, for a server of your own. `test`: the test environment's methods.
    `secret_token`: as given to `set_webhook`, for `verify_webhook`.
    `max_upload`, `max_download`: bytes of a file, by default what Telegram's own servers take (50 MB, and
        10 MB for a photo) and give (20 MiB); `None` for a server of your own, which has no limits.
    For the rest see `Connector`.
    """

    platform_name = "telegram"
    _signed_with = "secret_token"
    _webhook_event = staticmethod(telegram_event)

    def __init__(
        self,
        token: str,
        *,
        base_url: str = "https://api.telegram.org",
        test: bool = False,
        secret_token: str | None = None,
        max_upload: int | None = UPLOAD,
        max_download: int | None = DOWNLOAD,
        **keywords: Unpack[ConnectorOptions],
    ) -> None:
        super().__init__(base_url=base_url, secrets={"telegram-token": token}, **keywords)
        self._inbox = None if secret_token is None else TelegramWebhook(secret_token)
        token_name = self._secrets["telegram-token"]
        self._methods = f"bot{token_name}/test" if test else f"bot{token_name}"
        self._files = f"file/{self._methods}"
        self.max_upload = max_upload
        self.max_download = max_download
        self._next_update: int | None = None

    def read(self, answer: Answer) -> ConnectorResult:
        """`result` of the envelope; a failure with its `description`."""
        if answer.fields.get("ok") is True and answer.ok:
            return answer.success(answer.fields.get("result"))
        if answer.ok:
            return answer.unreadable()
        moved = fields_of(answer.fields.get("parameters")).get("migrate_to_chat_id")
        data = None if moved is None else {"migrate_to_chat_id": moved}
        return answer.failure(answer.fields.get("description"), data=data)

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, **keywords: Any
    ) -> ConnectorResult:
        """Any method by Telegram's name for it, such as `call("getChat", {"chat_id": 7})`.

        `keywords`: `operation` (default the method's name), `idempotent` and the other options of
        `call_options()`; by default methods that get, set, edit, delete or answer are harmless twice.
        """
        return await self._method(method, dict(params or {}), **keywords)

    async def _method(
        self,
        method: str,
        params: dict[str, Any],
        *,
        uploads: Mapping[str, Upload] | None = None,
        **keywords: Any,
    ) -> ConnectorResult:
        keywords.setdefault("operation", method)
        if method.lower().startswith(_HARMLESS_TWICE):
            keywords.setdefault("idempotent", True)
        if uploads:
            # In a form, what is no text is JSON.
            form = {k: v if isinstance(v, str) else json.dumps(v) for k, v in params.items()}
            keywords.update(data=form, uploads=uploads)
        elif params:
            keywords["json"] = params
        return await self._request("POST", f"{self._methods}/{segment(method)}", **keywords)

    # --- messages ---

    async def send_message(self, channel_id: ChatId, text: str, **fields: Any) -> ConnectorResult:
        """Post a text of at most 4096 characters; `fields` are sendMessage's others."""
        return self._unfit("send_message", text, TEXT, fields) or await self._method(
            "sendMessage", {"chat_id": channel_id, "text": text, **fields}, operation="send_message"
        )

    async def update_message(
        self, channel_id: ChatId, message_id: int, text: str, **fields: Any
    ) -> ConnectorResult:
        """Change the text of a message."""
        params = {"chat_id": channel_id, "message_id": message_id, "text": text, **fields}
        return self._unfit("update_message", text, TEXT, fields) or await self._method(
            "editMessageText",
            params,
            operation="update_message",
            already_done=_says("message is not modified"),
        )

    async def delete_message(self, channel_id: ChatId, message_id: int) -> ConnectorResult:
        """Delete a message."""
        return await self._method(
            "deleteMessage",
            {"chat_id": channel_id, "message_id": message_id},
            operation="delete_message",
            already_done=_says("message to delete not found"),
        )

    async def send_typing(self, channel_id: ChatId, action: str = "typing") -> ConnectorResult:
        """Show for five seconds that the bot is busy."""
        params = {"chat_id": channel_id, "action": action}
        return await self._method("sendChatAction", params, operation="send_typing")

    async def add_reaction(self, channel_id: ChatId, message_id: int, emoji: str) -> ConnectorResult:
        """Set the bot's reaction; a bot has one, so it replaces another."""
        return await self._react("add_reaction", channel_id, message_id, [{"type": "emoji", "emoji": emoji}])

    async def remove_reaction(
        self,
        channel_id: ChatId,
        message_id: int,
        emoji: str | None = None,  # noqa: ARG002  # as with other platforms
    ) -> ConnectorResult:
        """Take the bot's reaction back, whichever `emoji` it is: a bot has one."""
        return await self._react("remove_reaction", channel_id, message_id, [])

    async def _react(
        self, operation: str, channel_id: ChatId, message_id: int, reaction: list[dict[str, str]]
    ) -> ConnectorResult:
        params = {"chat_id": channel_id, "message_id": message_id, "reaction": reaction}
        return await self._method("setMessageReaction", params, operation=operation)

    async def pin_message(self, channel_id: ChatId, message_id: int, **fields: Any) -> ConnectorResult:
        """Pin a message."""
        params = {"chat_id": channel_id, "message_id": message_id, **fields}
        return await self._method("pinChatMessage", params, operation="pin_message")

    async def unpin_message(self, channel_id: ChatId, message_id: int) -> ConnectorResult:
        """Unpin a message."""
        params = {"chat_id": channel_id, "message_id": message_id}
        return await self._method("unpinChatMessage", params, operation="unpin_message")

    # --- chats and the bot itself ---

    async def get_channel(self, channel_id: ChatId) -> ConnectorResult:
        """What is known of a chat, its pinned message included."""
        return await self._method("getChat", {"chat_id": channel_id}, operation="get_channel")

    async def get_user(self, user_id: int, channel_id: ChatId | None = None) -> ConnectorResult:
        """A user who has talked to the bot; with `channel_id` as a member of that chat."""
        if channel_id is None:
            return await self._method("getChat", {"chat_id": user_id}, operation="get_user")
        params = {"chat_id": channel_id, "user_id": user_id}
        return await self._method("getChatMember", params, operation="get_user")

    async def health(self) -> ConnectorResult:
        """The bot's own user: whether token and platform work."""
        return await self._method("getMe", {}, operation="health")

    async def set_my_commands(self, commands: list[dict[str, str]], **fields: Any) -> ConnectorResult:
        """The bot's menu: a list of `{"command": ..., "description": ...}`."""
        params = {"commands": commands, **fields}
        return await self._method("setMyCommands", params, operation="set_my_commands")

    async def answer_callback_query(
        self, callback_query_id: str, text: str | None = None, **fields: Any
    ) -> ConnectorResult:
        """Answer the press of a button; `text` is shown to the user (at most 200 characters)."""
        params = {"callback_query_id": callback_query_id, **given(text=text), **fields}
        return self._too_long("answer_callback_query", text, 200) or await self._method(
            "answerCallbackQuery", params, operation="answer_callback_query"
        )

    async def answer_inline_query(
        self, inline_query_id: str, results: list[dict[str, Any]], **fields: Any
    ) -> ConnectorResult:
        """Answer an inline query with at most 50 results."""
        params = {"inline_query_id": inline_query_id, "results": results, **fields}
        return await self._method("answerInlineQuery", params, operation="answer_inline_query")

    # --- files ---

    async def upload_file(
        self,
        channel_id: ChatId,
        file: File | str,
        *,
        kind: Kind = "document",
        filename: str | None = None,
        text: str | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """Post a file: bytes, a `Path`, an open binary file, or as `str` the id or URL of one that exists.

        `text`: its caption, of at most 1024 characters.
        Its size is checked before it is sent, or on the way where nobody knows it.
        """
        method = "send" + kind.title().replace("_", "")  # sendVideoNote
        caption = fields.pop("caption", text)  # Telegram's own name will do
        params = {"chat_id": channel_id, **given(caption=caption), **fields}
        too_long = self._unfit("upload_file", caption, CAPTION, fields)
        if too_long is not None:
            return too_long
        if isinstance(file, str):
            return await self._method(method, {**params, kind: file}, operation="upload_file")
        limit = self.max_upload
        if kind == "photo" and limit is not None:
            limit = min(limit, PHOTO)
        upload = Upload(file, filename, limit)
        return await self._method(method, params, uploads={kind: upload}, operation="upload_file")

    async def send_media_group(
        self,
        channel_id: ChatId,
        media: list[dict[str, Any]],
        files: Mapping[str, File] | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """Post an album; `files` are those that `media` calls `attach://<name>`."""
        params = {"chat_id": channel_id, "media": media, **fields}
        uploads = {name: Upload(file, limit=self.max_upload) for name, file in (files or {}).items()}
        return await self._method("sendMediaGroup", params, uploads=uploads, operation="send_media_group")

    async def get_file(self, file_id: str) -> ConnectorResult:
        """Where a file can be downloaded from for at least an hour: `file_path`, and its size."""
        return await self._method("getFile", {"file_id": file_id}, operation="get_file")

    async def download_file(self, file_id: str, to: Sink | None = None) -> ConnectorResult:
        """The file as `content`, or written to `to`, an open binary file; and its `size` in bytes.

        Its size is checked before it is asked for, and again while it comes.
        """
        found = await self.get_file(file_id)
        if not found.success or found.data is None:
            return found
        path, size = found.data.get("file_path"), found.data.get("file_size")
        too_large = f"the file has more than {self.max_download} bytes, the most that is allowed here"
        if isinstance(size, int) and self.max_download is not None and size > self.max_download:
            return self._refused("download_file", too_large, "file_too_large")
        if not isinstance(path, str) or ".." in path.split("/"):
            return self._refused("download_file", "the file has no path to download it from", "no_file_path")
        return await self._request(
            "GET",
            f"{self._files}/{'/'.join(segment(part) for part in path.split('/') if part)}",
            operation="download_file",
            download=Download(limit=self.max_download, to=to),
        )

    # --- updates ---

    async def get_updates(
        self, offset: int | None = None, *, timeout: int = 30, limit: int = 100, **fields: Any
    ) -> ConnectorResult:
        """One long poll: up to `limit` updates from `offset` on, none after `timeout` seconds (at most 50).

        `offset` confirms all before it: they do not come again.
        """
        total = None if self.policy.timeout is None else self.policy.timeout.total
        return await self._method(
            "getUpdates",
            {**given(offset=offset), "timeout": timeout, "limit": limit, **fields},
            operation="get_updates",
            # An attempt may take as long by Telegram's profile.
            total_timeout=None if total is None else total + timeout + LONG_POLL_MARGIN,
        )

    async def poll(
        self,
        *,
        timeout: int = 30,
        limit: int = 100,
        on_error: Callable[[ConnectorResult], object] | None = None,
        **fields: Any,
    ) -> AsyncGenerator[dict[str, Any]]:
        """Every update, one after the other, for ever: `async for update in telegram.poll():`.

        An update is confirmed after the loop has come back for the next one, so that none is lost when the
        program ends in the middle of it: that one comes again. A poll that fails is told to `on_error`
        (raise there to end the loop) and made again after what Telegram asks to wait, or after 1 to 30
        seconds that double; so is a 409, which says that somebody else polls, or that a webhook is set.
        """
        failures = 0
        while True:
            result = await self.get_updates(self._next_update, timeout=timeout, limit=limit, **fields)
            items = items_of(fields_of(result.data).get("items"))
            updates = list(filter(_is_update, items or ()))
            if result.success and (items is None or (items and not updates)):
                # Asked again at once, it would come again, for ever.
                error = "an answer without an update that can be confirmed"
                result = self._refused("get_updates", error, "invalid_response")
            if not result.success:
                if on_error is not None:
                    on_error(result)
                wait = min(2.0**failures, _LONGEST_WAIT) * random.uniform(1.0, 1.1)
                failures = min(failures + 1, 10)
                # The server keeps a conflicting poll for three seconds: asking at once only prolongs it.
                least = 3.0 if result.status_code == 409 else 0.0
                await self._clock.sleep(max(wait, least, result.retry_after or 0.0))
                continue
            failures = 0
            for update in updates:
                yield update
                self._next_update = update["update_id"] + 1

    async def set_webhook(self, url: str, secret_token: str | None = None, **fields: Any) -> ConnectorResult:
        """Have updates posted to `url`, with `secret_token` in a header; ends long polling."""
        params = {"url": url, **given(secret_token=secret_token), **fields}
        return await self._method("setWebhook", params, operation="set_webhook")

    async def delete_webhook(self, *, drop_pending_updates: bool = False) -> ConnectorResult:
        """Have no updates posted any more: `poll()` may go on."""
        params = {"drop_pending_updates": drop_pending_updates}
        return await self._method("deleteWebhook", params, operation="delete_webhook")

    async def get_webhook_info(self) -> ConnectorResult:
        """What is set, how many updates wait, and the last error."""
        return await self._method("getWebhookInfo", {}, operation="get_webhook_info")

    def _unfit(
        self, operation: str, text: str | None, most: int, fields: Mapping[str, Any]
    ) -> ConnectorResult | None:
        """The limits hold for what is left after markup was parsed: with `parse_mode` only Telegram knows."""
        return None if fields.get("parse_mode") else self._too_long(operation, text, most)


def _is_update(item: object) -> bool:
    """Whether it has the number that confirms it."""
    return isinstance(fields_of(item).get("update_id"), int)


def _says(words: str) -> Callable[[Answer], bool]:
    return lambda answer: words in str(answer.fields.get("description"))
