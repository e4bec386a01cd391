"""Clients of platforms over the stack: each method is one request, each answer a `ConnectorResult`."""

from aragora_transport.connectors._answer import Answer
from aragora_transport.connectors._conversations import (
    ConversationReference,
    ConversationStore,
    SQLiteConversationStore,
)
from aragora_transport.connectors._files import Download, Upload
from aragora_transport.connectors._settings import segment
from aragora_transport.connectors.base import ChatPlatformConnector
from aragora_transport.connectors.discord import DiscordConnector
from aragora_transport.connectors.enterprise import EnterpriseConnector
from aragora_transport.connectors.oauth import (
    ClientCredentials,
    FileStore,
    RefreshToken,
    StaticKey,
    TokenStore,
)
from aragora_transport.connectors.slack import SlackConnector
from aragora_transport.connectors.teams import TeamsConnector
from aragora_transport.connectors.telegram import TelegramConnector

__all__ = [
    "Answer",
    "ChatPlatformConnector",
    "ClientCredentials",
    "ConversationReference",
    "ConversationStore",
    "DiscordConnector",
    "Download",
    "EnterpriseConnector",
    "FileStore",
    "RefreshToken",
    "SQLiteConversationStore",
    "SlackConnector",
    "StaticKey",
    "TeamsConnector",
    "TelegramConnector",
    "TokenStore",
    "Upload",
    "segment",
]
