"""The token by which an inbound activity proves that the Bot Framework has sent it, and the keys for it.

https://learn.microsoft.com/azure/bot-service/rest-api/bot-framework-rest-connector-authentication
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import anyio

from aragora_transport._credentials import origin_of
from aragora_transport.connectors._answer import fields_of, items_of
from aragora_transport.connectors._connector import Connector
from aragora_transport.layers._configure_logging import logger

if TYPE_CHECKING:
    from jwt import PyJWK

    from aragora_transport.connectors._clouds import Cloud
    from aragora_transport.connectors._settings import ConnectorOptions

SKEW = 300.0  # seconds that Microsoft's clock and ours may differ
KEPT = 5 * 86400.0  # seconds that keys are used for, as Microsoft's SDK does
AGAIN = 300.0  # seconds from one fetch to the next for the sake of a key that is not known

_METADATA = "v1/.well-known/openidconfiguration"
_BEARER = re.compile(r"bearer +([\w-]+\.[\w-]+\.[\w-]+)", re.ASCII | re.IGNORECASE)


class BotFrameworkTokens(Connector):
    """Verifies them. The keys come through a stack like the connector's, once for any number of callers.

    Raises `ImportError` without the package PyJWT.
    """

    platform_name = "teams"

    def __init__(self, app_id: str, cloud: Cloud, **keywords: Unpack[ConnectorOptions]) -> None:
        try:
            import jwt  # noqa: PLC0415  # it is optional
        except ImportError as error:
            raise ImportError(
                "verify_jwt() verifies JSON Web Tokens, which needs the package PyJWT: "
                "pip install 'aragora-transport[webhooks]'"
            ) from error
        super().__init__(base_url=cloud.openid, **keywords)
        self._jwt = jwt
        # Signatures alone: PyJWT would read the claims' times by a clock of its own.
        self._jws = jwt.PyJWS(algorithms=["RS256"])
        self._audience = app_id
        self._issuer = cloud.issuer
        self._keys: dict[str, tuple[PyJWK, list[Any] | None]] = {}  # with the channels that a key is for
        self._keys_end = self._asked_at = -math.inf
        self._fetches = 0
        self._fetching = anyio.Lock()

    async def verify(self, authorization: Any, activity: Any) -> bool:
        """Whether the header is the Bot Framework's for this activity."""
        found = _BEARER.fullmatch(authorization) if isinstance(authorization, str) else None
        if found is None or not isinstance(activity, Mapping):
            return False
        token = found[1]
        # The claims first, though nobody has vouched for them yet: others' tokens cost no request for keys.
        kid = self._key_id(token, activity.get("serviceUrl"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  # JSON
        key, channels = (await self._key(kid) if kid is not None else None) or (None, None)
        if key is None or (channels is not None and activity.get("channelId") not in channels):  # pyright: ignore[reportUnknownMemberType]  # JSON
            return False
        try:
            self._jws.decode(token, key, algorithms=["RS256"])
        except self._jwt.PyJWTError:
            return False
        return True

    def _key_id(self, token: str, service_url: Any) -> str | None:
        """Which key a token names; `None` where its claims are not those of an activity from there."""
        try:
            read = self._jws.decode_complete(token, options={"verify_signature": False})
            claims = fields_of(json.loads(read["payload"]))
        except (self._jwt.PyJWTError, ValueError, RecursionError):  # no JSON, no UTF-8, too deep
            return None
        kid, begins, ends = read["header"].get("kid"), claims.get("nbf", 0), claims.get("exp")
        now = self._clock.time()
        right = (
            read["header"].get("alg") == "RS256"
            and claims.get("iss") == self._issuer
            and claims.get("aud") == self._audience
            and isinstance(service_url, str)
            and claims.get("serviceurl") == service_url
            and isinstance(begins, int | float)
            and isinstance(ends, int | float)
            and begins <= now + SKEW
            and now - SKEW < ends
        )
        return kid if right and isinstance(kid, str) else None

    # --- keys ---

    async def _key(self, kid: str) -> tuple[PyJWK, list[Any] | None] | None:
        if self._is_due(kid):
            fetches = self._fetches
            async with self._fetching:
                if fetches == self._fetches:  # else another caller has asked meanwhile
                    await self._fetch()
                    self._fetches += 1
        return self._keys.get(kid) if self._clock.monotonic() < self._keys_end else None

    def _is_due(self, kid: str) -> bool:
        now = self._clock.monotonic()
        return now >= self._keys_end or (kid not in self._keys and now >= self._asked_at + AGAIN)

    async def _fetch(self) -> None:
        """Replace the keys by Microsoft's of now; where there are none to be had, they stay."""
        told = await self._request("GET", _METADATA, operation="get_openid_metadata")
        place = fields_of(told.data).get("jwks_uri")
        problem = told.error
        if told.success and not self._is_near(place):
            problem = "the OpenID metadata names no jwks_uri at the same host by https"
        keys: dict[str, tuple[PyJWK, list[Any] | None]] = {}
        if problem is None:
            told = await self._request("GET", str(place), operation="get_signing_keys")
            for one in items_of(fields_of(told.data).get("keys")) or ():
                keys |= self._readable(fields_of(one))
            problem = told.error or (None if keys else "there is no key that can be read")
        self._asked_at = self._clock.monotonic()
        if problem is not None:
            logger.warning("teams: no keys to verify the Bot Framework's tokens by: %s", problem)
            return
        self._keys = keys
        self._keys_end = self._asked_at + KEPT

    def _is_near(self, url: Any) -> bool:
        """Whether it is at the host of the metadata, or at the domain that this is a part of."""
        try:
            scheme, host, port = origin_of(url, "jwks_uri")
        except ValueError:
            return False
        _, own, own_port = origin_of(self.base_url, "openid")
        return scheme == b"https" and port == own_port and host in {own, own.partition(b".")[2]}

    def _readable(self, key: dict[str, Any]) -> dict[str, tuple[PyJWK, list[Any] | None]]:
        """A key of the set by its id; nothing where it is none for RS256."""
        kid = key.get("kid")
        try:
            read = self._jwt.PyJWK(key, algorithm="RS256")
        except Exception:  # noqa: BLE001  # PyJWT lets pass whatever odd fields lead to
            return {}
        return {kid: (read, items_of(key.get("endorsements")))} if isinstance(kid, str) else {}
