"""Slack's connector: the operations of an app. How a request is made is in `_slack`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from aragora_transport.connectors._settings import given
from aragora_transport.connectors._slack import EDITED, TEXT
from aragora_transport.connectors._slack_urls import SlackUrls

if TYPE_CHECKING:
    from aragora_transport.connectors._answer import Answer
    from aragora_transport.result import ConnectorResult


class SlackConnector(SlackUrls):
    """An app of Slack's in one workspace; for the arguments see `SlackApi` and `Connector`.

    A message is known by its channel and its `ts`.
    """

    # --- messages ---

    async def send_message(self, channel_id: str, text: str | None = None, **fields: Any) -> ConnectorResult:
        """Post a message of at most 40,000 characters, or of the `blocks` and so on in `fields`."""
        params = {"channel": channel_id, **given(text=text), **fields}
        return self._too_long("send_message", text, TEXT) or await self._method(
            "chat.postMessage", params, operation="send_message"
        )

    async def update_message(
        self, channel_id: str, message_id: str, text: str | None = None, **fields: Any
    ) -> ConnectorResult:
        """Change a message; its text may have 4000 characters."""
        params = {"channel": channel_id, "ts": message_id, **given(text=text), **fields}
        return self._too_long("update_message", text, EDITED) or await self._method(
            "chat.update", params, operation="update_message"
        )

    async def delete_message(self, channel_id: str, message_id: str) -> ConnectorResult:
        """Delete a message."""
        return await self._method(
            "chat.delete",
            {"channel": channel_id, "ts": message_id},
            operation="delete_message",
            already_done=_says("message_not_found"),
        )

    async def post_ephemeral(
        self, channel_id: str, user_id: str, text: str | None = None, **fields: Any
    ) -> ConnectorResult:
        """Post a message that one user sees, for as long as the session lasts."""
        params = {"channel": channel_id, "user": user_id, **given(text=text), **fields}
        return self._too_long("post_ephemeral", text, TEXT) or await self._method(
            "chat.postEphemeral", params, operation="post_ephemeral"
        )

    async def schedule_message(
        self, channel_id: str, post_at: int, text: str | None = None, **fields: Any
    ) -> ConnectorResult:
        """Post a message later: at `post_at`, in seconds since 1970, within 120 days."""
        params = {"channel": channel_id, "post_at": post_at, **given(text=text), **fields}
        return self._too_long("schedule_message", text, TEXT) or await self._method(
            "chat.scheduleMessage", params, operation="schedule_message"
        )

    async def get_permalink(self, channel_id: str, message_id: str) -> ConnectorResult:
        """The URL of a message."""
        params = {"channel": channel_id, "message_ts": message_id}
        return await self._method("chat.getPermalink", params, operation="get_permalink")

    async def send_typing(self, channel_id: str) -> ConnectorResult:
        """Always a failure: no method of Slack's shows that an app is typing."""
        error = f"Slack does not show in {channel_id} that an app is typing; post a message and change it"
        return self._refused("send_typing", error, "unsupported")

    async def add_reaction(self, channel_id: str, message_id: str, emoji: str) -> ConnectorResult:
        """React with an emoji by its name, such as `thumbsup`."""
        return await self._react("reactions.add", "add_reaction", channel_id, message_id, emoji)

    async def remove_reaction(self, channel_id: str, message_id: str, emoji: str) -> ConnectorResult:
        """Take the app's reaction back."""
        return await self._react("reactions.remove", "remove_reaction", channel_id, message_id, emoji)

    async def _react(
        self, method: str, operation: str, channel_id: str, message_id: str, emoji: str
    ) -> ConnectorResult:
        params = {"channel": channel_id, "timestamp": message_id, "name": emoji.strip(":")}
        done = _says("already_reacted" if operation == "add_reaction" else "no_reaction")
        return await self._method(method, params, operation=operation, already_done=done)

    async def pin_message(self, channel_id: str, message_id: str) -> ConnectorResult:
        """Pin a message."""
        params = {"channel": channel_id, "timestamp": message_id}
        done = _says("already_pinned")
        return await self._method("pins.add", params, operation="pin_message", already_done=done)

    async def unpin_message(self, channel_id: str, message_id: str) -> ConnectorResult:
        """Unpin a message."""
        params = {"channel": channel_id, "timestamp": message_id}
        done = _says("no_pin", "not_pinned")
        return await self._method("pins.remove", params, operation="unpin_message", already_done=done)

    # --- lists: one page as `items` and `next_cursor`; or page after page, of which a failure is the last ---

    async def list_pins(self, channel_id: str) -> ConnectorResult:
        """What is pinned in a channel, on one page."""
        return await self._method(
            "pins.list", {"channel": channel_id}, operation="list_pins", read=self._page("items")
        )

    async def history(
        self, channel_id: str, *, cursor: str | None = None, limit: int = 100, **fields: Any
    ) -> ConnectorResult:
        """Up to `limit` messages of a channel, the newest first."""
        params = {"channel": channel_id, **fields}
        return await self._listed("conversations.history", "history", "messages", params, cursor, limit)

    def iter_history(
        self, channel_id: str, *, limit: int = 100, **fields: Any
    ) -> AsyncGenerator[ConnectorResult]:
        """Page after page of `history`."""
        return self._pages(lambda cursor: self.history(channel_id, cursor=cursor, limit=limit, **fields))

    async def replies(
        self, channel_id: str, message_id: str, *, cursor: str | None = None, limit: int = 100, **fields: Any
    ) -> ConnectorResult:
        """Up to `limit` messages of a thread, the oldest first."""
        params = {"channel": channel_id, "ts": message_id, **fields}
        return await self._listed("conversations.replies", "replies", "messages", params, cursor, limit)

    def iter_replies(
        self, channel_id: str, message_id: str, *, limit: int = 100, **fields: Any
    ) -> AsyncGenerator[ConnectorResult]:
        """Page after page of `replies`."""
        return self._pages(
            lambda cursor: self.replies(channel_id, message_id, cursor=cursor, limit=limit, **fields)
        )

    async def list_channels(
        self,
        *,
        types: Sequence[str] = ("public_channel",),
        cursor: str | None = None,
        limit: int = 200,
        **fields: Any,
    ) -> ConnectorResult:
        """Up to `limit` channels; `types` also has "private_channel", "mpim" and "im"."""
        params = {"types": list(types), **fields}
        return await self._listed("conversations.list", "list_channels", "channels", params, cursor, limit)

    def iter_channels(
        self, *, types: Sequence[str] = ("public_channel",), limit: int = 200, **fields: Any
    ) -> AsyncGenerator[ConnectorResult]:
        """Page after page of `list_channels`."""
        return self._pages(
            lambda cursor: self.list_channels(types=types, cursor=cursor, limit=limit, **fields)
        )

    async def list_members(
        self, channel_id: str, *, cursor: str | None = None, limit: int = 200
    ) -> ConnectorResult:
        """Up to `limit` ids of a channel's members."""
        params = {"channel": channel_id}
        return await self._listed("conversations.members", "list_members", "members", params, cursor, limit)

    def iter_members(self, channel_id: str, *, limit: int = 200) -> AsyncGenerator[ConnectorResult]:
        """Page after page of `list_members`."""
        return self._pages(lambda cursor: self.list_members(channel_id, cursor=cursor, limit=limit))

    async def list_users(
        self, *, cursor: str | None = None, limit: int = 200, **fields: Any
    ) -> ConnectorResult:
        """Up to `limit` users of the workspace."""
        return await self._listed("users.list", "list_users", "members", fields, cursor, limit)

    def iter_users(self, *, limit: int = 200, **fields: Any) -> AsyncGenerator[ConnectorResult]:
        """Page after page of `list_users`."""
        return self._pages(lambda cursor: self.list_users(cursor=cursor, limit=limit, **fields))

    async def _listed(
        self, method: str, operation: str, key: str, params: dict[str, Any], cursor: str | None, limit: int
    ) -> ConnectorResult:
        params = {**params, **given(cursor=cursor), "limit": limit}
        return await self._method(method, params, operation=operation, read=self._page(key))

    # --- channels, users, views, and the app itself ---

    async def get_channel(self, channel_id: str) -> ConnectorResult:
        """What is known of a channel."""
        return await self._method("conversations.info", {"channel": channel_id}, operation="get_channel")

    async def open_conversation(self, *user_ids: str) -> ConnectorResult:
        """The channel for direct messages with one user or up to eight; always the same one."""
        params = {"users": ",".join(user_ids)}
        return await self._method("conversations.open", params, operation="open_conversation")

    async def get_user(self, user_id: str) -> ConnectorResult:
        """What is known of a user."""
        return await self._method("users.info", {"user": user_id}, operation="get_user")

    async def lookup_by_email(self, email: str) -> ConnectorResult:
        """The user who has this address."""
        return await self._method("users.lookupByEmail", {"email": email}, operation="lookup_by_email")

    async def open_view(self, trigger_id: str, view: dict[str, Any]) -> ConnectorResult:
        """Open a modal, within three seconds of what the user did."""
        return await self._method(
            "views.open",
            {"trigger_id": trigger_id, "view": view},
            operation="open_view",
            already_done=_says("exchanged_trigger_id"),
        )

    async def update_view(self, view_id: str, view: dict[str, Any], **fields: Any) -> ConnectorResult:
        """Change a modal; `hash` of the one that was seen guards against changing another."""
        params = {"view_id": view_id, "view": view, **fields}
        return await self._method("views.update", params, operation="update_view")

    async def publish_view(self, user_id: str, view: dict[str, Any], **fields: Any) -> ConnectorResult:
        """Set what a user sees on the app's Home tab."""
        params = {"user_id": user_id, "view": view, **fields}
        return await self._method("views.publish", params, operation="publish_view")

    async def open_socket(self) -> ConnectorResult:
        """A `url` to open one WebSocket with: a secret, good once and for a short time.

        Needs `app_token`. When Slack ends the socket, ask for another URL.
        """
        return await self._method(
            "apps.connections.open", {}, operation="open_socket", headers=self._app_identity
        )

    async def health(self) -> ConnectorResult:
        """Who the token belongs to: whether token and platform work."""
        return await self._method("auth.test", {}, operation="health")


def _says(*codes: str) -> Callable[[Answer], bool]:
    return lambda answer: answer.judged.code in codes
