"""Teams' connector: the operations of a bot. How a request is made is in `_teams`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from aragora_transport.connectors._answer import Answer, fields_of, items_of
from aragora_transport.connectors._conversations import ConversationReference
from aragora_transport.connectors._files import Download, Sink
from aragora_transport.connectors._settings import given, segment
from aragora_transport.connectors._teams_graph import TeamsGraph

if TYPE_CHECKING:
    from aragora_transport.result import ConnectorResult


class TeamsConnector(TeamsGraph):
    """A bot of Microsoft Teams'; for the arguments see `TeamsApi` and `Connector`.

    `service_url=` of a method says where the conversation is; by default the store does, and where that
    does not know it, `base_url`.
    """

    # --- messages ---

    async def send_message(
        self, channel_id: str, text: str | None = None, *, service_url: str | None = None, **fields: Any
    ) -> ConnectorResult:
        """Post a message in a conversation; `fields` are the `attachments` and so on of the activity."""
        return await self._in_conversation(
            "POST",
            channel_id,
            "/activities",
            "send_message",
            service_url=service_url,
            activity=_message(text, fields),
        )

    async def reply(
        self,
        channel_id: str,
        message_id: str,
        text: str | None = None,
        *,
        service_url: str | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """Answer a message, in a channel in its thread."""
        return await self._in_conversation(
            "POST",
            channel_id,
            f"/activities/{segment(message_id)}",
            "reply",
            service_url=service_url,
            activity={**_message(text, fields), "replyToId": message_id},
        )

    async def update_message(
        self,
        channel_id: str,
        message_id: str,
        text: str | None = None,
        *,
        service_url: str | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """Put another message in the place of one of the bot's."""
        return await self._in_conversation(
            "PUT",
            channel_id,
            f"/activities/{segment(message_id)}",
            "update_message",
            service_url=service_url,
            activity={**_message(text, fields), "id": message_id},
        )

    async def delete_message(
        self, channel_id: str, message_id: str, *, service_url: str | None = None
    ) -> ConnectorResult:
        """Delete a message of the bot's."""
        return await self._in_conversation(
            "DELETE",
            channel_id,
            f"/activities/{segment(message_id)}",
            "delete_message",
            service_url=service_url,
            already_done=_is_away,
        )

    async def send_typing(self, channel_id: str, *, service_url: str | None = None) -> ConnectorResult:
        """Show for some seconds that the bot is typing."""
        return await self._in_conversation(
            "POST",
            channel_id,
            "/activities",
            "send_typing",
            service_url=service_url,
            activity={"type": "typing"},
            idempotent=True,
        )

    async def add_reaction(self, channel_id: str, message_id: str, emoji: str) -> ConnectorResult:
        """Always a failure: bots cannot react."""
        error = f"a bot cannot put {emoji} on message {message_id} in {channel_id}: Teams has no such route"
        return self._refused("add_reaction", error, "unsupported")

    async def remove_reaction(self, channel_id: str, message_id: str, emoji: str) -> ConnectorResult:
        """Always a failure: bots cannot react."""
        error = f"a bot has no {emoji} on message {message_id} in {channel_id}: Teams has no such route"
        return self._refused("remove_reaction", error, "unsupported")

    async def pin_message(self, channel_id: str, message_id: str) -> ConnectorResult:
        """Always a failure: bots cannot pin. In chats Graph can; see `graph`."""
        error = f"a bot cannot pin message {message_id} in {channel_id}: Teams has no such route"
        return self._refused("pin_message", error, "unsupported")

    async def unpin_message(self, channel_id: str, message_id: str) -> ConnectorResult:
        """Always a failure, as `pin_message`."""
        error = f"a bot cannot unpin message {message_id} in {channel_id}: Teams has no such route"
        return self._refused("unpin_message", error, "unsupported")

    # --- conversations and who is in them ---

    async def create_conversation(
        self,
        user_id: str | None = None,
        *,
        channel_id: str | None = None,
        tenant_id: str | None = None,
        activity: dict[str, Any] | None = None,
        service_url: str | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """A conversation to speak in first: its `id`, which the store then knows.

        `user_id`: whom to talk to, by the id that this bot knows the user by, with `tenant_id`; the same
        user is always the same conversation. `channel_id`: in place of that, where to begin a thread, with
        its first message as `activity`.
        """
        data = fields.pop("channelData", {})
        if channel_id is not None:
            data = {"channel": {"id": channel_id}, **data}
        if tenant_id is not None:
            data = {"tenant": {"id": tenant_id}, **data}
        body = {
            "isGroup": channel_id is not None,
            "bot": {"id": f"28:{self.app_id}"},
            **({} if user_id is None else {"members": [{"id": user_id}]}),
            **given(tenantId=tenant_id, activity=activity, channelData=data or None),
            **fields,
        }
        result = self._too_large("create_conversation", body) or await self.call(
            "POST", "v3/conversations", service_url=service_url, operation="create_conversation", json=body
        )
        told = fields_of(result.data)
        reference = ConversationReference.from_activity(
            {
                "conversation": {"id": told.get("id"), "tenantId": tenant_id},
                "serviceUrl": told.get("serviceUrl") or service_url or self.base_url,
                "from": {"id": user_id},
            }
        )
        if result.success and reference is not None and self._may_have_the_token(reference.service_url):
            await self._stored("create_conversation", self.store.put(reference))
        return result

    async def get_members(
        self,
        channel_id: str,
        *,
        cursor: str | None = None,
        limit: int = 200,
        service_url: str | None = None,
    ) -> ConnectorResult:
        """Up to 500 members of a conversation."""

        def page(answer: Answer) -> ConnectorResult:
            members = items_of(answer.fields.get("members"))
            if not answer.ok or members is None:
                return answer.unreadable() if answer.ok else self.read(answer)
            told = answer.fields.get("continuationToken")
            following = told if isinstance(told, str) and told else None
            return answer.success({"items": members, "next_cursor": following})

        return await self._in_conversation(
            "GET",
            channel_id,
            "/pagedmembers",
            "get_members",
            service_url=service_url,
            params=given(pageSize=limit, continuationToken=cursor),
            read=page,
        )

    def iter_members(
        self, channel_id: str, *, limit: int = 200, service_url: str | None = None
    ) -> AsyncGenerator[ConnectorResult]:
        """Page after page of `get_members`, each a result; one that failed is the last."""
        return self._pages(
            lambda cursor: self.get_members(channel_id, cursor=cursor, limit=limit, service_url=service_url)
        )

    async def get_user(
        self, user_id: str, channel_id: str | None = None, *, service_url: str | None = None
    ) -> ConnectorResult:
        """A member of a conversation; without one a user of the directory, by Graph."""
        if channel_id is None:
            return await self.graph("GET", f"users/{segment(user_id)}", operation="get_user")
        below = f"/members/{segment(user_id)}"
        return await self._in_conversation("GET", channel_id, below, "get_user", service_url=service_url)

    async def get_channel(self, channel_id: str, team_id: str | None = None) -> ConnectorResult:
        """A team's channel, or a chat, by Graph."""
        path = f"chats/{segment(channel_id)}"
        if team_id is not None:
            path = f"teams/{segment(team_id)}/channels/{segment(channel_id)}"
        return await self.graph("GET", path, operation="get_channel")

    async def get_team(self, team_id: str, *, service_url: str | None = None) -> ConnectorResult:
        """A team, by the id that its activities have in `channelData.team`."""
        path = f"v3/teams/{segment(team_id)}"
        return await self.call("GET", path, service_url=service_url, operation="get_team")

    async def list_channels(self, team_id: str, *, service_url: str | None = None) -> ConnectorResult:
        """A team's channels, on one page."""

        def page(answer: Answer) -> ConnectorResult:
            channels = items_of(answer.fields.get("conversations"))
            if not answer.ok or channels is None:
                return answer.unreadable() if answer.ok else self.read(answer)
            return answer.success(channels)

        path = f"v3/teams/{segment(team_id)}/conversations"
        return await self.call("GET", path, service_url=service_url, operation="list_channels", read=page)

    async def health(self) -> ConnectorResult:
        """Whether the bot gets a token, and the Bot Connector takes it.

        No route serves for this alone: one that is not there for Teams answers so only to a good token.
        """

        def read(answer: Answer) -> ConnectorResult:
            return answer.success(None) if answer.ok or answer.status in _THERE else self.read(answer)

        return await self.call("GET", "v3/conversations", operation="health", read=read)

    # --- files ---

    async def upload_file(
        self,
        channel_id: str,
        file: object = None,
        **fields: Any,  # noqa: ARG002  # as with other platforms
    ) -> ConnectorResult:
        """Always a failure: a bot asks for consent first, and then uploads to OneDrive by Graph."""
        name = type(file).__name__
        error = f"Teams takes no file ({name}) in {channel_id}: send a consent card, or upload it by graph()"
        return self._refused("upload_file", error, "unsupported")

    async def download_file(
        self,
        attachment_id: str,
        to: Sink | None = None,
        *,
        view: str = "original",
        service_url: str | None = None,
    ) -> ConnectorResult:
        """An attachment as `content`, or written to `to`, an open binary file."""
        path = f"v3/attachments/{segment(attachment_id)}/views/{segment(view)}"
        return await self.call(
            "GET",
            path,
            service_url=service_url,
            operation="download_file",
            download=Download(limit=None, to=to),
        )


_THERE = frozenset({404, 405, 501})


def _is_away(answer: Answer) -> bool:
    return answer.judged.code == "ActivityNotFoundInConversation"


def _message(text: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", **given(text=text), **fields}
