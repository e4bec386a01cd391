"""Teams' two APIs: the Bot Connector at the service URL of each conversation, and Microsoft Graph.

https://learn.microsoft.com/microsoftteams/platform/bots, https://learn.microsoft.com/graph
"""

from __future__ import annotations

import json as json_module
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from aragora_transport._credentials import origin_of
from aragora_transport._redact import describe_error
from aragora_transport.connectors._answer import fields_of
from aragora_transport.connectors._bot_framework_jwt import BotFrameworkTokens
from aragora_transport.connectors._clouds import CLOUDS
from aragora_transport.connectors._conversations import (
    ConversationReference,
    ConversationStore,
    SQLiteConversationStore,
)
from aragora_transport.connectors._events import teams_event
from aragora_transport.connectors._receiving import ReceivingConnector
from aragora_transport.connectors._settings import ConnectorOptions, segment
from aragora_transport.connectors.enterprise import EnterpriseConnector
from aragora_transport.connectors.oauth import ClientCredentials
from aragora_transport.connectors.webhooks import TeamsWebhook
from aragora_transport.result import ConnectorResult

if TYPE_CHECKING:
    from aragora_transport._tokens import TokenSource
    from aragora_transport.connectors._answer import Answer

MESSAGE = 100 * 1024  # bytes of an activity in UTF-16

# Nothing can be said there any more.
_GONE = frozenset({"BotNotInConversationRoster", "ConversationBlockedByUser", "ConversationNotFound"})


class _Graph(EnterpriseConnector):
    """Microsoft Graph, with a token, a circuit and connections of its own."""

    platform_name = "teams"


class TeamsApi(ReceivingConnector):
    """A bot of Microsoft Teams'.

    `app_id`, `app_secret`: of its registration. `tenant`: the directory that it is registered in; Graph needs
        it. `multi_tenant`: whether it serves others as well; then its own tokens come from Microsoft's.
    `cloud`: "public", "usgov", "usgovdod" or "china".
    `store`: keeps where conversations are: a `ConversationStore`, or the path of an SQLite file; by default
        SQLite in memory.
    `base_url`: for conversations that the store does not know; `login_url`, `graph_url`: for gateways.
    `service_urls`: further places, of which scheme, host and port count, that the bot's token may go to. It
        goes there, to `base_url`, to the hosts of the cloud, and nowhere else.
    `security_token`: of an outgoing webhook, for `verify_webhook`.
    For the rest see `Connector`.
    """

    platform_name = "teams"
    _signed_with = "security_token"
    _webhook_event = staticmethod(teams_event)

    def __init__(
        self,
        app_id: str,
        app_secret: str,
        tenant: str | None = None,
        *,
        multi_tenant: bool = False,
        cloud: Literal["public", "usgov", "usgovdod", "china"] = "public",
        store: ConversationStore | str | Path | None = None,
        base_url: str | None = None,
        login_url: str | None = None,
        graph_url: str | None = None,
        service_urls: Collection[str] = (),
        security_token: str | None = None,
        **keywords: Unpack[ConnectorOptions],
    ) -> None:
        if cloud not in CLOUDS:
            raise ValueError(f"cloud={cloud!r}: it must be one of {', '.join(CLOUDS)}")
        self._cloud = place = CLOUDS[cloud]
        base_url = base_url or f"https://{place.hosts[0]}/teams"
        graph_url = graph_url or f"{place.graph}/v1.0"
        allowed = [base_url, *(f"https://{host}" for host in place.hosts), *service_urls]
        self._allowed = {origin_of(url, "teams-token") for url in allowed}

        def tokens(directory: str, scope: str, origin: list[str]) -> TokenSource:
            return ClientCredentials(
                f"{(login_url or place.login).rstrip('/')}/{segment(directory)}/oauth2/v2.0/token",
                app_id,
                app_secret,
                scope=scope,
                origin=origin,
                client_auth="post",
                platform="teams",
                transport=keywords.get("transport"),
                registry=keywords.get("registry"),
            )

        at_home = place.login_tenant if multi_tenant or tenant is None else tenant
        auth = tokens(at_home, place.bot_scope, allowed)
        super().__init__(base_url=base_url, auth=auth, **keywords)
        self._inbox = None if security_token is None else TeamsWebhook(security_token)
        self._graph: _Graph | None = None
        if tenant is not None:
            graph_auth = tokens(tenant, f"{place.graph}/.default", [graph_url])
            self._graph = _Graph(graph_url, auth=graph_auth, **keywords)
        self._tokens: BotFrameworkTokens | None = None
        self._keywords = keywords
        self.app_id = app_id
        self._own_store: SQLiteConversationStore | None = None
        if store is None or isinstance(store, str | Path):
            self._own_store = store = SQLiteConversationStore(store or ":memory:")
        self.store: ConversationStore = store

    async def aclose(self) -> None:
        """Close the connections, and the store where it was made here."""
        await super().aclose()
        if self._graph is not None:
            await self._graph.aclose()
        if self._tokens is not None:
            await self._tokens.aclose()
        if self._own_store is not None:
            await self._own_store.aclose()

    def read(self, answer: Answer) -> ConnectorResult:
        """The JSON of an answer, which may have none; of a failure its message."""
        if not answer.ok:
            told = fields_of(answer.fields.get("error")).get("message") or answer.fields.get("message")
            return answer.failure(told or answer.fields.get("error_description"))
        if answer.body and answer.json is None:
            return answer.unreadable()
        return answer.success(answer.json if answer.body else None)

    async def call(
        self,
        method: str,
        path: str,
        *,
        service_url: str | None = None,
        operation: str = "call",
        **keywords: Any,
    ) -> ConnectorResult:
        """Any route of the Bot Connector, such as `call("GET", "v3/teams/19:x")`.

        `keywords`: `json`, `params`, `idempotent` and the other options of `call_options()`.
        """
        url = (service_url or self.base_url).rstrip("/")
        if not self._may_have_the_token(url):
            error = "its service URL is at none of the hosts that get the bot's token; see service_urls"
            return self._refused(operation, error, "foreign_host")
        return await self._request(method, f"{url}/{path.lstrip('/')}", operation=operation, **keywords)

    async def _in_conversation(
        self,
        method: str,
        conversation_id: str,
        below: str,
        operation: str,
        *,
        service_url: str | None,
        activity: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> ConnectorResult:
        """A request about a conversation, sent to where that is."""
        refused = self._too_large(operation, activity)
        if refused is None and service_url is None:
            known, refused = await self._stored(operation, self.store.get(conversation_id))
            service_url = None if known is None else known.service_url
        if refused is not None:
            return refused
        result = await self.call(
            method,
            f"v3/conversations/{segment(conversation_id)}{below}",
            service_url=service_url,
            operation=operation,
            json=activity,
            **keywords,
        )
        if result.error_code in _GONE:
            await self._stored(operation, self.store.delete(conversation_id))
        return result

    def _too_large(self, operation: str, activity: dict[str, Any] | None) -> ConnectorResult | None:
        size = len(json_module.dumps(activity, ensure_ascii=False).encode("utf-16-le", "surrogatepass"))
        if size <= MESSAGE:
            return None
        error = f"the message has {size} bytes in UTF-16, teams takes {MESSAGE}; send it in parts"
        return self._refused(operation, error, "text_too_long")

    # --- what comes in ---

    async def verify_jwt(self, authorization: str | None, activity: Mapping[str, Any]) -> bool:
        """Whether the Bot Framework has sent this; false for whatever others send.

        `authorization`: the header of that name. `activity`: the body, parsed. False, too, while Microsoft's
        keys cannot be had, of which the log tells. Needs the package PyJWT; `ImportError` without it.
        """
        self._check_open()
        if self._tokens is None:  # made here, since not every bot has PyJWT
            self._tokens = BotFrameworkTokens(self.app_id, self._cloud, **self._keywords)
        return await self._tokens.verify(authorization, activity)

    # --- where conversations are ---

    async def remember(self, activity: Mapping[str, Any]) -> ConnectorResult:
        """Keep where an activity's conversation is, as each one says that the bot receives.

        First make sure that it came from Microsoft: its service URL is where messages will be sent to.
        """
        reference = ConversationReference.from_activity(activity)
        if reference is None:
            return self._refused("remember", "it has no conversation or no serviceUrl", "invalid_request")
        if not self._may_have_the_token(reference.service_url):
            error = "its serviceUrl is at none of the hosts that get the bot's token; see service_urls"
            return self._refused("remember", error, "foreign_host")
        _, refused = await self._stored("remember", self.store.put(reference))
        return refused or ConnectorResult.success({"conversation_id": reference.conversation_id})

    def _may_have_the_token(self, url: str) -> bool:
        try:
            return origin_of(url, "teams-token") in self._allowed
        except ValueError:
            return False

    async def _stored(self, operation: str, doing: Any) -> tuple[Any, ConnectorResult | None]:
        """What the store says, or why it says nothing."""
        try:
            return await doing, None
        except Exception as error:  # noqa: BLE001  # of a disk, a database, somebody's store
            told = f"the store of conversations failed: {describe_error(error)}"
            return None, self._refused(operation, told, "store_failed")
