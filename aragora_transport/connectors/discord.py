"""Discord's connector: the operations of a bot. How a request is made is in `_discord`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any

from aragora_transport.connectors._answer import fields_of, items_of
from aragora_transport.connectors._discord import (
    TEXT,
    THREAD_EXISTS,
    UNKNOWN_MESSAGE,
    DiscordApi,
    Id,
    has_code,
)
from aragora_transport.connectors._files import Download, File, Sink, Upload
from aragora_transport.connectors._settings import given, segment

if TYPE_CHECKING:
    from aragora_transport.connectors._answer import Answer
    from aragora_transport.result import ConnectorResult


class DiscordConnector(DiscordApi):
    """A bot of Discord's; for the arguments see `DiscordApi` and `Connector`."""

    # --- messages ---

    async def send_message(
        self, channel_id: Id, text: str | None = None, *, nonce: str | int | None = None, **fields: Any
    ) -> ConnectorResult:
        """Post a message of at most 2000 characters, or of the `embeds` and so on in `fields`.

        Each has a nonce that Discord keeps for some minutes: sent twice, it is posted once.
        """
        body = {**given(content=text), **fields, **_once(nonce)}
        return self._too_long("send_message", text, TEXT) or await self._api(
            "POST", f"channels/{segment(channel_id)}/messages", "send_message", json=body, idempotent=True
        )

    async def update_message(
        self, channel_id: Id, message_id: Id, text: str | None = None, **fields: Any
    ) -> ConnectorResult:
        """Change a message of the bot's."""
        return self._too_long("update_message", text, TEXT) or await self._api(
            "PATCH",
            _message(channel_id, message_id),
            "update_message",
            json={**given(content=text), **fields},
            idempotent=True,
        )

    async def delete_message(
        self, channel_id: Id, message_id: Id, *, reason: str | None = None
    ) -> ConnectorResult:
        """Delete a message."""
        return await self._api(
            "DELETE",
            _message(channel_id, message_id),
            "delete_message",
            reason=reason,
            already_done=has_code(UNKNOWN_MESSAGE),
        )

    async def bulk_delete(
        self, channel_id: Id, message_ids: Iterable[Id], *, reason: str | None = None
    ) -> ConnectorResult:
        """Delete 2 to 100 messages that are younger than two weeks."""
        return await self._api(
            "POST",
            f"channels/{segment(channel_id)}/messages/bulk-delete",
            "bulk_delete",
            json={"messages": [str(message_id) for message_id in message_ids]},
            reason=reason,
            idempotent=True,
        )

    async def send_typing(self, channel_id: Id) -> ConnectorResult:
        """Show for ten seconds that the bot is typing."""
        path = f"channels/{segment(channel_id)}/typing"
        return await self._api("POST", path, "send_typing", idempotent=True)

    async def add_reaction(self, channel_id: Id, message_id: Id, emoji: str) -> ConnectorResult:
        """React with an emoji, or with `name:id` for one of a server's own."""
        path = f"{_message(channel_id, message_id)}/reactions/{segment(emoji)}/@me"
        return await self._api("PUT", path, "add_reaction")

    async def remove_reaction(
        self, channel_id: Id, message_id: Id, emoji: str, user_id: Id = "@me"
    ) -> ConnectorResult:
        """Take a reaction back, the bot's own or a user's."""
        path = f"{_message(channel_id, message_id)}/reactions/{segment(emoji)}/{segment(user_id)}"
        return await self._api("DELETE", path, "remove_reaction")

    async def pin_message(
        self, channel_id: Id, message_id: Id, *, reason: str | None = None
    ) -> ConnectorResult:
        """Pin a message."""
        return await self._api("PUT", _pin(channel_id, message_id), "pin_message", reason=reason)

    async def unpin_message(
        self, channel_id: Id, message_id: Id, *, reason: str | None = None
    ) -> ConnectorResult:
        """Unpin a message."""
        return await self._api("DELETE", _pin(channel_id, message_id), "unpin_message", reason=reason)

    async def list_pins(
        self, channel_id: Id, *, before: str | None = None, limit: int = 50
    ) -> ConnectorResult:
        """Pinned messages, the last pinned first; `next_cursor` is the next page's `before`."""

        def page(answer: Answer) -> ConnectorResult:
            items = items_of(answer.fields.get("items"))
            if not answer.ok or items is None:
                return self.read(answer)
            more = answer.fields.get("has_more") is True
            cursor = _last(items, "pinned_at") if more else None
            return answer.success({"items": items, "next_cursor": cursor})

        params = given(before=before, limit=limit)
        path = f"channels/{segment(channel_id)}/messages/pins"
        return await self._api("GET", path, "list_pins", params=params, read=page)

    def iter_pins(self, channel_id: Id, *, limit: int = 50) -> AsyncGenerator[ConnectorResult]:
        """Page after page of `list_pins`, each a result; one that failed is the last."""
        return self._pages(lambda cursor: self.list_pins(channel_id, before=cursor, limit=limit))

    async def history(
        self,
        channel_id: Id,
        *,
        before: Id | None = None,
        after: Id | None = None,
        around: Id | None = None,
        limit: int = 50,
    ) -> ConnectorResult:
        """Up to 100 messages, the newest first; `next_cursor` is the next older page's `before`."""

        def page(answer: Answer) -> ConnectorResult:
            items = items_of(answer.json)
            if not answer.ok or items is None:
                return self.read(answer)
            full = len(items) >= limit and after is None and around is None
            cursor = _last(items, "id") if full else None
            return answer.success({"items": items, "next_cursor": cursor})

        params = given(before=before, after=after, around=around, limit=limit)
        path = f"channels/{segment(channel_id)}/messages"
        return await self._api("GET", path, "history", params=params, read=page)

    def iter_history(
        self, channel_id: Id, *, before: str | None = None, limit: int = 100
    ) -> AsyncGenerator[ConnectorResult]:
        """Page after page of `history`, each a result; one that failed is the last."""
        return self._pages(lambda cursor: self.history(channel_id, before=cursor, limit=limit), before)

    # --- files ---

    async def upload_file(
        self,
        channel_id: Id,
        file: File,
        *,
        filename: str | None = None,
        text: str | None = None,
        description: str | None = None,
        nonce: str | int | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """Post a file: bytes, a `Path` or an open binary file; with a text beside it."""
        attachments = None if description is None else [{"id": 0, "description": description}]
        body = {**given(content=text, attachments=attachments), **fields, **_once(nonce)}
        return self._too_long("upload_file", text, TEXT) or await self._api(
            "POST",
            f"channels/{segment(channel_id)}/messages",
            "upload_file",
            json=body,
            uploads={"files[0]": Upload(file, filename, self.max_upload)},
            idempotent=True,
        )

    async def download_file(self, url: str, to: Sink | None = None) -> ConnectorResult:
        """An attachment by its URL, as `content`, or written to `to`, an open binary file.

        The bot's token is not sent: such URLs are signed, and expire.
        """
        url, signature = self._concealed(url)
        return await self._request(
            "GET",
            url,
            operation="download_file",
            headers=self._agent,
            secrets=signature,
            download=Download(limit=self.max_download, to=to),
        )

    # --- channels, users and the bot itself ---

    async def get_channel(self, channel_id: Id) -> ConnectorResult:
        """What is known of a channel."""
        return await self._api("GET", f"channels/{segment(channel_id)}", "get_channel")

    async def get_user(self, user_id: Id = "@me") -> ConnectorResult:
        """What is known of a user."""
        return await self._api("GET", f"users/{segment(user_id)}", "get_user")

    async def health(self) -> ConnectorResult:
        """The bot's own user: whether token and platform work."""
        return await self._api("GET", "users/@me", "health")

    async def create_dm(self, user_id: Id) -> ConnectorResult:
        """The channel for direct messages with a user; always the same one."""
        body = {"recipient_id": str(user_id)}
        return await self._api("POST", "users/@me/channels", "create_dm", json=body, idempotent=True)

    async def create_thread(
        self,
        channel_id: Id,
        name: str,
        *,
        message_id: Id | None = None,
        reason: str | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """Begin a thread, on a message where one is given: a message has at most one."""
        on_message = message_id is not None
        below = _message(channel_id, message_id) if on_message else f"channels/{segment(channel_id)}"
        return await self._api(
            "POST",
            f"{below}/threads",
            "create_thread",
            json={"name": name, **fields},
            reason=reason,
            idempotent=True if on_message else None,
            already_done=has_code(THREAD_EXISTS),
        )


def _message(channel_id: Id, message_id: Id | None) -> str:
    return f"channels/{segment(channel_id)}/messages/{segment(message_id)}"


def _pin(channel_id: Id, message_id: Id) -> str:
    return f"channels/{segment(channel_id)}/messages/pins/{segment(message_id)}"


def _once(nonce: str | int | None) -> dict[str, Any]:
    """What makes two messages one: at most 25 characters, checked for some minutes."""
    return {"nonce": secrets.token_hex(12) if nonce is None else nonce, "enforce_nonce": True}


def _last(items: list[Any], field: str) -> str | None:
    cursor = fields_of(items[-1]).get(field) if items else None
    return cursor if isinstance(cursor, str) else None
