"""Clients of platforms over the stack: each method is one request, each answer a `ConnectorResult`."""

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
from aragora_transport.connectors.telegram import TelegramConnector

__all__ = [
    "ChatPlatformConnector",
    "ClientCredentials",
    "DiscordConnector",
    "EnterpriseConnector",
    "FileStore",
    "RefreshToken",
    "StaticKey",
    "TelegramConnector",
    "TokenStore",
]
