"""OAuth 2.0 token sources (RFC 6749): client credentials, refresh tokens that rotate or not, and static keys.

Token requests go through a stack of their own, never through the one that asks for the token.
"""

from __future__ import annotations

import base64
import inspect
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, Unpack
from urllib.parse import quote_plus, urlencode

from aragora_transport._credentials import Secret, hidden, sendable
from aragora_transport._options import call_options
from aragora_transport._redact import describe_error, one_line
from aragora_transport._tokens import Token, TokenRefused, TokenSource
from aragora_transport.connectors._answer import fields_of
from aragora_transport.policy import Policy, RetryPolicy
from aragora_transport.stack import resilient, resilient_sync
from aragora_transport.state import State

if TYPE_CHECKING:
    import random

    from prometheus_client import CollectorRegistry

    from aragora_transport._clock import Clock

ClientAuth = Literal["basic", "post"]

# A refresh token may be good for one use: it is sent again only where it was surely not looked at.
POLICY = Policy(retry=RetryPolicy(resend_unsafe="unprocessed"))


class SourceOptions(TypedDict, total=False):
    """The keywords of `TokenSource` that the sources hand on."""

    header: str
    scheme: str
    margin: float
    timeout: float
    rng: random.Random | None


class TokenStore(Protocol):
    """Where a refresh token lies between two runs. Either method may be async."""

    def load(self) -> Any:
        """The refresh token that was saved last, `None` where there is none."""
        ...

    def save(self, refresh_token: str) -> Any:
        """Keep it; when this returns it must be safe."""
        ...


class FileStore:
    """A refresh token in a file that only its owner can read, replaced in one step and synced to the disk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def load(self) -> str | None:
        """What the file holds, `None` where there is no file."""
        try:
            return self._path.read_text(encoding="ascii").strip() or None
        except FileNotFoundError:
            return None

    def save(self, refresh_token: str) -> None:
        """Write it beside the old one, and put it in its place."""
        # A new file of a name that nobody can have prepared.
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        beside = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(refresh_token)
                file.flush()
                os.fsync(handle)
            beside.replace(self._path)
        except BaseException:
            beside.unlink()
            raise


class StaticKey(TokenSource):
    """A key that does not change: `StaticKey("the key", origin="https://api.example.com")`.

    By default `Authorization: Bearer <key>`; `header="X-Api-Key", scheme=""` for the key alone. A 401 is
    returned as it is. Raises `ValueError` for a key that cannot be sent.
    """

    refreshes = False

    def __init__(self, key: str, *, origin: str | Collection[str], **options: Unpack[SourceOptions]) -> None:
        super().__init__(origin=origin, **options)
        self._held = self._holding(Token(value=key), 0.0)


class _OAuthSource(TokenSource):
    """Asks a token endpoint."""

    _idempotent = True  # whether asking twice does no harm

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | None,
        *,
        origin: str | Collection[str],
        scope: str | None = None,
        extra: Mapping[str, str] | None = None,
        client_auth: ClientAuth = "basic",
        policy: Policy = POLICY,
        transport: Any = None,
        registry: CollectorRegistry | None = None,
        platform: str = "oauth",
        **options: Unpack[SourceOptions],
    ) -> None:
        super().__init__(origin=origin, **options)
        if client_auth not in ("basic", "post"):
            raise ValueError(f"client_auth={client_auth!r}: it must be 'basic' or 'post'")
        self.token_url = str(token_url)
        self.client_id = client_id
        self._form = {**({} if scope is None else {"scope": scope}), **(extra or {})}
        self._secrets: list[Secret] = []
        self._basic: Secret | None = None
        if client_secret is None:
            self._form["client_id"] = client_id
        else:
            secret = self._secret(client_secret, "client-secret").reveal()
            if client_auth == "basic":
                pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"  # RFC 6749, 2.3.1
                self._basic = self._secret(base64.b64encode(pair.encode()).decode(), "client")
            else:
                self._client_secret = self._secrets[0]
        self._posts_secret = client_secret is not None and client_auth == "post"
        self._policy = policy
        self._transport = transport
        self._registry = registry
        self._platform = platform
        self._state: State | None = None

    def _secret(self, value: str, name: str) -> Secret:
        secret = Secret(value, origin=self.token_url, name=name)
        self._secrets.append(secret)
        return secret

    async def _ask(self, form: dict[str, str], *, blocking: bool, clock: Clock) -> dict[str, Any]:
        """The token endpoint's answer to a grant; raises `TokenRefused` where that holds no token."""
        form = {**self._form, **form}
        if self._posts_secret:
            form |= {"client_id": self.client_id, "client_secret": self._client_secret.reveal()}
        response = await self._send(form, blocking=blocking, clock=clock)
        try:
            fields = fields_of(response.json())
        except (ValueError, RecursionError):
            fields = {}
        if response.status_code < 300 and isinstance(fields.get("access_token"), str):
            return fields
        raise self._refusal(response.status_code, fields)

    async def _send(self, form: dict[str, str], *, blocking: bool, clock: Clock) -> Any:
        # A connection of its own for each: it may come from any event loop or thread, and hours apart.
        if self._state is None or self._state.clock is not clock:
            self._state = State(self._policy, clock=clock)
        stack = (resilient_sync if blocking else resilient)(
            self._platform,
            self._transport,
            policy=self._policy,
            registry=self._registry,
            state=self._state,
            credentials=() if self._basic is None else self._basic,
        )
        module = stack.flavor.module
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        if self._basic is not None:
            headers["Authorization"] = f"Basic {self._basic}"
        options = call_options(
            operation="token", idempotent=self._idempotent or None, total_timeout=self.timeout
        )
        request: dict[str, Any] = {
            "content": urlencode(form).encode(),
            "headers": headers,
            "extensions": options,
        }
        client: Any = (module.Client if blocking else module.AsyncClient)(
            transport=stack, timeout=None, trust_env=False
        )
        try:
            sent = client.post(self.token_url, **request)
            return sent if blocking else await sent
        finally:
            if self._transport is None:
                closed = client.close() if blocking else client.aclose()
                if closed is not None:
                    await closed

    def _refusal(self, status: int, fields: dict[str, Any]) -> TokenRefused:
        """RFC 6749, 5.2; some say it inside a 200."""
        code, why = fields.get("error"), fields.get("error_description")
        code = code if isinstance(code, str) else f"http_{status}"
        told = f"{code}: {why}" if isinstance(why, str) else code
        passing = status == 429 or status >= 500
        return TokenRefused(one_line(hidden(told, self._secrets)), code=one_line(code), retryable=passing)


def _token(fields: dict[str, Any], *, older: float = 0.0) -> Token:
    """The access token of an answer. `older`: seconds that it has lain here."""
    try:
        seconds = float(fields["expires_in"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return Token(value=fields["access_token"])
    known = 0 <= seconds < float("inf")
    return Token(value=fields["access_token"], expires_in=max(0.0, seconds - older) if known else None)


class ClientCredentials(_OAuthSource):
    """Tokens for an application itself (RFC 6749, 4.4), such as Microsoft's bots and Graph.

        ClientCredentials(
            "https://login.example.com/oauth2/v2.0/token", "client id", "client secret",
            scope="https://api.example.com/.default", origin="https://api.example.com",
        )

    `scope`, `extra`: parameters of the token request. `client_auth`: "basic", in a header (default), or
    "post", in the form. `policy`, `transport`, `registry`, `platform`: of the stack that token requests go
    through.
    For `origin` and the rest see `TokenSource`.
    """

    def __init__(self, token_url: str, client_id: str, client_secret: str, **options: Any) -> None:
        super().__init__(token_url, client_id, client_secret, **options)

    async def fetch(self, *, blocking: bool, clock: Clock) -> Token:
        """Ask for a token; asking twice does no harm."""
        return _token(await self._ask({"grant_type": "client_credentials"}, blocking=blocking, clock=clock))


class RefreshToken(_OAuthSource):
    """Tokens by a refresh token (RFC 6749, 6), which the platform may exchange for another each time.

    A new refresh token is saved before the token that came with it is used, and the old one is not sent
    again. Where saving fails, saving is what the next refresh begins with.

    `refresh_token`: the first one; left out where `store` has one already.
    `store`: a `TokenStore`, such as `FileStore(path)`. What it holds comes before `refresh_token`, and is
        loaded for each refresh: several processes can share it.
    `save`: in place of a store, a callable of the new refresh token. It may be async.
    For the rest see `ClientCredentials`; `client_secret` is `None` for a public client.
    """

    _idempotent = False

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | None = None,
        *,
        refresh_token: str | None = None,
        store: TokenStore | None = None,
        save: Callable[[str], Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(token_url, client_id, client_secret, **options)
        if refresh_token is None and store is None:
            raise ValueError("RefreshToken() needs refresh_token=, or a store= that has one")
        if store is not None and save is not None:
            raise ValueError("RefreshToken(): give store= or save=, not both: a store saves by itself")
        self._current = None if refresh_token is None else self._secret(refresh_token, "refresh-token")
        self._store = store
        self._save = store.save if store is not None else save
        self._unsaved: tuple[dict[str, Any], float] | None = None  # an answer, and when it came

    async def fetch(self, *, blocking: bool, clock: Clock) -> Token:
        """Exchange the refresh token."""
        if self._unsaved is None:
            form = {"grant_type": "refresh_token", "refresh_token": await self._loaded()}
            began = clock.monotonic()
            self._unsaved = await self._ask(form, blocking=blocking, clock=clock), began
        fields, began = self._unsaved
        following = fields.get("refresh_token")
        if isinstance(following, str) and following.strip():
            await self._keep(following)
        self._unsaved = None
        return _token(fields, older=clock.monotonic() - began)

    async def _loaded(self) -> str:
        if self._store is not None:
            stored = await _done(self._store.load())
            if stored is not None and (self._current is None or stored != self._current.reveal()):
                self._replace(stored)
        if self._current is None:
            raise TokenRefused("the store holds no refresh token", code="no_refresh_token")
        return self._current.reveal()

    async def _keep(self, refresh_token: str) -> None:
        refresh_token = sendable(refresh_token, "the token endpoint's refresh_token")
        self._replace(refresh_token)
        if self._save is None:
            return
        try:
            await _done(self._save(refresh_token))
        except Exception as error:  # noqa: BLE001  # of a user's store
            told = hidden(describe_error(error), self._secrets)
            why = f"the new refresh token could not be saved: {told}"
            raise TokenRefused(why, code="not_saved", retryable=True) from None

    def _replace(self, refresh_token: str) -> None:
        if self._current is not None:
            if self._current.reveal() == refresh_token:
                return
            self._secrets.remove(self._current)
        self._current = self._secret(refresh_token, "refresh-token")


async def _done(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
