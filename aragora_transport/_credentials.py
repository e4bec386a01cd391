"""Secrets that nobody above the network sees: they are put in last, on a copy of the request.

What callers, logs, errors, spans and `response.request` hold is the request that was passed in, with a
placeholder in it. A secret belongs to an origin and goes nowhere else, whatever a redirect says.
"""

from __future__ import annotations

import re
import reprlib
import secrets
import traceback
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote

import httpx

from aragora_transport._around import Around
from aragora_transport._call import CALL
from aragora_transport._flavor import copy_of
from aragora_transport._redact import TELLING, secrets_lock
from aragora_transport._redact import secrets as alive

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._tokens import Held

CREDENTIALS = "aragora_transport.credentials"  # in request.extensions: further secrets, of this one

Origin = tuple[bytes, bytes, int | None]  # scheme, host, port; `None` is the scheme's usual one

_NAME = re.compile(r"[A-Za-z0-9._~-]+")  # what httpx leaves as it is in any part of a URL
_UNSENDABLE = re.compile(r"[^\x20-\x7e]")
_IN_PATH = "/:@!$&'()*+,;=~"  # RFC 3986, 3.3: these mean themselves in a path


class Secret:
    """A token that is sent to its origin alone, and shown to nobody.

    As a string it is a placeholder. Write that where the token belongs, in the path, a query parameter or
    a header, and give the secret to the stack: `resilient("telegram", credentials=token)` with
    `f"https://api.telegram.org/bot{token}/getMe"`. The token itself takes its place below everything,
    quoted as its place in a URL needs it, in requests to `origin` alone.

    `value`: the token as it is, not quoted. Spaces and line ends around it are dropped.
    `origin`: where it may go: a URL, of which scheme, host and port count; or several.
    `name`: what the placeholder begins with.

    Raises `ValueError` for what cannot be sent: nothing, control characters, other than ASCII.
    """

    __slots__ = ("__weakref__", "_value", "forms", "name", "origins", "placeholder")

    def __init__(self, value: str, *, origin: str | Collection[str], name: str = "secret") -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"Secret(name={reprlib.repr(name)}): it must be letters, digits and any of '._~-', "
                "such as 'telegram-token'"
            )
        self.name = name
        self._value = sendable(value, f"Secret(name={name!r})")
        # Not to be guessed: who could write it in a message would be sent the token in its place.
        self.placeholder = f"{name}-{secrets.token_hex(6)}"
        origins: Any = origin if isinstance(origin, list | tuple | set | frozenset) else (origin,)
        self.origins = frozenset(origin_of(one, name) for one in origins)
        if not self.origins:
            raise ValueError(f"Secret(name={name!r}, origin=...) names no origin: it could go nowhere")
        self.forms = tuple(dict.fromkeys((self._value, self.in_path, self.in_query)))
        with secrets_lock:
            alive.add(self)

    def reveal(self) -> str:
        """The token itself: for what sends it, never for what shows or keeps it."""
        return self._value

    @property
    def in_path(self) -> str:
        """The token, quoted for a URL's path, in which a "/" goes on to divide."""
        return quote(self._value, safe=_IN_PATH)

    @property
    def in_query(self) -> str:
        """The token, quoted for the value of a query parameter."""
        return quote(self._value, safe="")

    def __str__(self) -> str:
        return self.placeholder

    def __repr__(self) -> str:
        return f"<Secret {self.placeholder} for {', '.join(self.destinations)}>"

    @property
    def destinations(self) -> list[str]:
        """Its origins, as text."""
        return sorted(
            f"{scheme.decode()}://{host.decode()}" + ("" if port is None else f":{port}")
            for scheme, host, port in self.origins
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is not pickled: it would be written down in the clear")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self


def secrets_alive() -> list[Secret]:
    """Every secret that somebody still holds: what redaction of foreign text looks for."""
    with secrets_lock:
        return list(alive)


def sendable(given: object, what: str) -> str:
    """A token as it can be sent; the error that tells why not never shows it."""
    if not isinstance(given, str):
        raise TypeError(f"{what}: a token must be a str, not {type(given).__name__}")
    value = given.strip()
    if not value:
        raise ValueError(f"{what}: the token is empty; look at where it is read from")
    unsendable = _UNSENDABLE.search(value)
    if unsendable is not None:
        kind = "a control character" if ord(unsendable[0]) < 0x80 else "a character that is not ASCII"
        raise ValueError(
            f"{what}: the token holds {kind} at position {unsendable.start()} of {len(value)}, which cannot "
            "be sent; it may have been cut or joined where it is read from"
        )
    return value


def origin_of(url: Any, name: str) -> Origin:
    """Scheme, host and port of a URL."""
    try:
        parsed = httpx.URL(url)
    except (TypeError, httpx.InvalidURL):
        parsed = httpx.URL("")
    if parsed.raw_scheme not in {b"https", b"http"} or not parsed.raw_host:
        raise ValueError(
            f"Secret(name={name!r}): its origin must be a URL with scheme and host, such as "
            "'https://api.telegram.org'"  # not the one given: it may hold the secret
        )
    return parsed.raw_scheme, parsed.raw_host, parsed.port


class CredentialTransport(Around):
    """Directly around the real transport: writes secrets on a copy of each request.

    The copy shares body and extensions with the request, and is gone when the answer is there.
    """

    def __init__(self, below: Any, credentials: tuple[Secret, ...] = ()) -> None:
        super().__init__(below)
        self.credentials = credentials

    async def handle_async_request(self, request: Any) -> Any:
        url = request.url
        origin = (url.raw_scheme, url.raw_host, url.port)
        given = (*self.credentials, *request.extensions.get(CREDENTIALS, ()))
        used = [secret for secret in given if origin in secret.origins]
        call: Call | None = request.extensions.get(CALL)
        held = None if call is None else call.credential
        if held is not None and origin in held.secret.origins:
            used.append(held.secret)
        else:
            held = None
        if not used:
            return await self._below.handle_async_request(request)
        copy = _written(request, used, held)
        try:
            response = await self._below.handle_async_request(copy)
        except BaseException as error:
            _clean_error(error, copy, request, used)
            raise
        finally:
            copy = None  # tracebacks show the locals of a frame
        response.headers = _clean_headers(response.headers, used)
        if getattr(response, "_request", None) is not None:
            response.request = request
        return response


def _written(request: Any, used: list[Secret], held: Held | None) -> Any:
    """A copy of the request with the secrets in it."""
    path, mark, query = request.url.raw_path.decode("ascii").partition("?")
    headers = request.headers.raw
    if held is not None:
        theirs = held.header.lower().encode()
        headers = [(name, value) for name, value in headers if name.lower() != theirs]
        headers.append((held.header.encode(), held.line.encode()))
    for secret in used:
        placeholder = secret.placeholder
        path = path.replace(placeholder, secret.in_path)
        query = query.replace(placeholder, secret.in_query)
        hidden, shown = placeholder.encode(), secret.reveal().encode()
        headers = [(name, value.replace(hidden, shown)) for name, value in headers]
    url = request.url.copy_with(raw_path=f"{path}{mark}{query}".encode("ascii"))
    return copy_of(request, url=url, headers=type(request.headers)(headers))


def hidden(text: str, used: Collection[Secret]) -> str:
    """`text` with placeholders where it repeats a secret."""
    for secret in used:
        for form in secret.forms:
            if len(form) >= TELLING:
                text = text.replace(form, secret.placeholder)
    return text


def _clean_headers(headers: Any, used: list[Secret]) -> Any:
    """What a platform repeats of a secret, in a redirect's Location above all, is a placeholder again."""
    raw = headers.raw
    clean = [(name, hidden(value.decode("latin-1"), used).encode("latin-1")) for name, value in raw]
    return headers if clean == raw else type(headers)(clean)


def _clean_error(error: BaseException, copy: Any, request: Any, used: list[Secret]) -> None:
    """Neither the copy nor a secret leaves in an error, in what it came from, or in frames below this one."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not any(cause is one for one in seen):
        seen.append(cause)
        # Their lines stay; their variables hold the copy, and some tools show those.
        traceback.clear_frames(cause.__traceback__)
        if getattr(cause, "_request", None) is copy:
            cause.request = request  # type: ignore[attr-defined]  # as httpx's errors have it
        args = tuple(hidden(arg, used) if isinstance(arg, str) else arg for arg in cause.args)
        if args != cause.args:
            cause.args = args
        cause = cause.__cause__ or cause.__context__


def credentials_of(platform: str, given: Any) -> tuple[Secret, ...]:
    """What a stack was given as `credentials=`, checked."""
    several: tuple[Any, ...] = (given,) if isinstance(given, Secret | str | bytes) else tuple(given)
    for one in several:
        if not isinstance(one, Secret):
            raise TypeError(
                f"{platform}: credentials= takes Secret(...) values, not a {type(one).__name__}; "
                "make one: Secret(token, origin='https://api.example.com')"
            )
    return several
