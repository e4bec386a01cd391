"""What of Teams is not the Bot Connector: Microsoft Graph, the activity feed, and incoming webhooks."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

from aragora_transport.connectors._settings import given, segment
from aragora_transport.connectors._teams import TeamsApi

if TYPE_CHECKING:
    from aragora_transport.connectors._answer import Answer
    from aragora_transport.result import ConnectorResult

_CARD = "application/vnd.microsoft.card.adaptive"


class TeamsGraph(TeamsApi):
    """Requests with Graph's token, and those to webhooks without any."""

    async def graph(
        self, method: str, path: str, json: Any = None, *, operation: str = "graph", **keywords: Any
    ) -> ConnectorResult:
        """Any request of Microsoft Graph, such as `graph("GET", "users/7/presence")`.

        `keywords`: `params`, `headers`, `idempotent` and the other options of `call_options()`.
        """
        if self._graph is None:
            return self._refused(
                operation, "Graph's tokens come from a tenant; name it: tenant=", "no_tenant"
            )
        keywords.setdefault("resend_unsafe", self.resend_unsafe)
        return await self._graph._make_request(method, path, json, operation=operation, **keywords)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the guide's name

    async def iter_graph(
        self, path: str, *, operation: str = "graph", **keywords: Any
    ) -> AsyncGenerator[ConnectorResult]:
        """Page after page of a list of Graph's, by its `@odata.nextLink`; a failure is the last."""
        if self._graph is None:
            yield await self.graph("GET", path, operation=operation)
            return
        async for page in self._graph.iter_pages(path, operation=operation, **keywords):
            yield page

    async def send_activity_notification(
        self,
        activity_type: str,
        topic: str | dict[str, Any],
        preview: str,
        *,
        user_id: str | None = None,
        team_id: str | None = None,
        chat_id: str | None = None,
        chain_id: int | None = None,
        parameters: dict[str, str] | None = None,
        **fields: Any,
    ) -> ConnectorResult:
        """A notification in the activity feed, by Graph: of a user, or in a team or a chat with `recipient=`.

        `activity_type`: as in the app's manifest, whose `parameters` fill its template. `topic`: the URL of
        an entity of Graph's, or a whole topic. `chain_id`: a notification takes the place of an earlier one
        with the same; each has one of its own by default, so that it can be sent again.
        """
        owners = {"users": user_id, "teams": team_id, "chats": chat_id}
        named = [(kind, one) for kind, one in owners.items() if one is not None]
        if len(named) != 1:
            raise ValueError("give one of user_id=, team_id= and chat_id=")
        ((kind, owner),) = named
        work = "/teamwork" if kind == "users" else ""
        filled = [{"name": name, "value": value} for name, value in (parameters or {}).items()]
        body = {
            "topic": {"source": "entityUrl", "value": topic} if isinstance(topic, str) else topic,
            "activityType": activity_type,
            "chainId": secrets.randbelow(2**63 - 1) + 1 if chain_id is None else chain_id,
            "previewText": {"content": preview},
            **given(templateParameters=filled or None),
            **fields,
        }
        return await self.graph(
            "POST",
            f"{kind}/{segment(owner)}{work}/sendActivityNotification",
            body,
            operation="send_activity_notification",
            idempotent=True,
        )

    async def post_incoming_webhook(
        self,
        url: str,
        text: str | None = None,
        *,
        cards: Sequence[dict[str, Any]] = (),
        payload: dict[str, Any] | None = None,
    ) -> ConnectorResult:
        """Post through an incoming webhook or a workflow: a text, adaptive cards, or a whole `payload`."""
        if text is not None:
            block = {"type": "TextBlock", "text": text, "wrap": True}
            cards = [{"type": "AdaptiveCard", "version": "1.4", "body": [block]}, *cards]
        attachments = [{"contentType": _CARD, "content": card} for card in cards]
        body = payload or {"type": "message", "attachments": attachments}
        place, hidden = self._concealed(url)
        return self._too_large("post_incoming_webhook", body) or await self._request(
            "POST",
            place,
            operation="post_incoming_webhook",
            secrets=hidden,
            json=body,
            read=self._read_webhook,
        )

    def _read_webhook(self, answer: Answer) -> ConnectorResult:
        """`1`, or nothing from a workflow; any other text says what went wrong."""
        if not answer.ok:
            return self.read(answer)
        if answer.text in {"", "1"} or answer.json is not None:
            return answer.success(answer.json if answer.body else None)
        return answer.unreadable()
