"""What all connectors share: one client over one stack, and one way from a request to a result."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import unquote

from aragora_transport._clock import SYSTEM
from aragora_transport._credentials import CREDENTIALS, Secret, hidden
from aragora_transport._options import RECORD, CallOptions
from aragora_transport._redact import describe_error, one_line
from aragora_transport.connectors._answer import OURS, Answer, code_of, read_body
from aragora_transport.connectors._files import FileRefusedError
from aragora_transport.connectors._settings import checked_url, with_options
from aragora_transport.layers._layer import checked
from aragora_transport.policy import Policy, ResendUnsafe, RetryPolicy
from aragora_transport.profile import judge
from aragora_transport.profiles import profile_for
from aragora_transport.result import ConnectorResult
from aragora_transport.stack import resilient

if TYPE_CHECKING:
    from types import TracebackType

    from prometheus_client import CollectorRegistry

    from aragora_transport._call import Call
    from aragora_transport._clock import Clock
    from aragora_transport._tokens import TokenSource
    from aragora_transport.connectors._files import Download, Upload
    from aragora_transport.layers import Tracing
    from aragora_transport.profile import Profile

_MOST_SECRETS = 1000  # of webhooks, say, that a connector remembers
MOST = 32 * 1024 * 1024  # bytes of an answer that are read into memory


class Connector:
    """A client of one platform. Its methods return `ConnectorResult`, whatever platform or network do.

    A platform is a base URL, its secrets, `read(answer)`, and one short method for each operation, which
    is one `_request()`. An async context manager; without `async with`, call `aclose()` when done.

    `base_url`: of the API, for local servers and gateways.
    `secrets`: tokens by name, sent to the base URL's origin alone; `self._secrets[name]` stands for one
        in paths and headers.
    `policy`: what the stack does (default: the guide's numbers).
    `transport`: what sends (default: httpx's own, with the proxies of the environment).
    `auth`: where tokens come from, as for `resilient()`.
    `registry`, `clock`, `tracing`: as for `resilient()`.
    `enable_circuit_breaker`, `circuit_breaker_threshold` (failures), `circuit_breaker_cooldown` and
        `request_timeout` (seconds, of one attempt): change the policy; by default as it says, which is
        on, 5, 60 and 30.
    `resend_unsafe`: what may be sent again of a send that is not known to be harmless twice; by default
        only what was refused unprocessed, see `RetryPolicy`.
    """

    platform_name: str = ""  # for logs, metrics and the profile; by default from the class's name
    profile: ClassVar[Profile | None] = None  # where the platform is none that is known by name

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.platform_name == "" and "platform_name" not in vars(cls):
            cls.platform_name = cls.__name__.removesuffix("Connector").lower()

    def __init__(
        self,
        *,
        base_url: str = "",
        secrets: Mapping[str, str] | None = None,
        auth: TokenSource | None = None,
        policy: Policy | None = None,
        transport: Any = None,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
        tracing: bool | Tracing = False,
        enable_circuit_breaker: bool = True,
        circuit_breaker_threshold: int | None = None,
        circuit_breaker_cooldown: float | None = None,
        request_timeout: float | None = None,
        resend_unsafe: ResendUnsafe = "unprocessed",
    ) -> None:
        self.base_url = checked_url(base_url)
        self._secrets = {
            name: Secret(value, origin=self.base_url, name=name) for name, value in (secrets or {}).items()
        }
        self._others: dict[bytes, Secret] = {}
        self.resend_unsafe: ResendUnsafe = resend_unsafe
        CallOptions(resend_unsafe=resend_unsafe)  # refuses what makes no sense now, not at the first request
        self.policy = with_options(
            Policy() if policy is None else checked(f"{self.platform_name}: policy", policy, Policy),
            enable_circuit_breaker=enable_circuit_breaker,
            threshold=circuit_breaker_threshold,
            cooldown=circuit_breaker_cooldown,
            timeout=request_timeout,
        )
        self._profile = self.profile or profile_for(self.platform_name)
        self._statuses = (self.policy.retry or RetryPolicy()).statuses | self._profile.retry_statuses
        self._clock = clock or SYSTEM
        self._registry = registry
        self.stack = resilient(
            self.platform_name,
            transport,
            policy=self.policy,
            registry=registry,
            clock=clock,
            profile=self._profile,
            auth=auth,
            credentials=self._secrets.values(),
            tracing=tracing,
        )
        # The stack's limits hold: httpx's own 5 seconds would cut them short. Nor does a .netrc decide.
        self._client: Any = self.stack.flavor.module.AsyncClient(
            transport=self.stack, timeout=None, trust_env=False
        )
        self._used = False

    # --- opening and closing ---

    async def __aenter__(self) -> Self:
        self._check_open()
        if not self._used:
            self._used = True
            await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; closing again does nothing."""
        await self._client.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    # --- one request, one result ---

    def read(self, answer: Answer) -> ConnectorResult:
        """What an answer means; here that of a plain JSON API."""
        if not answer.ok:
            return answer.failure()
        return answer.success(answer.json if answer.body else None)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        read: Callable[[Answer], ConnectorResult] | None = None,
        already_done: Callable[[Answer], bool] | None = None,
        download: Download | None = None,
        uploads: Mapping[str, Upload] | None = None,
        secrets: tuple[Secret, ...] = (),
        params: Any = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        data: Any = None,
        content: Any = None,
        files: Any = None,
        **options: Any,
    ) -> ConnectorResult:
        """Send a request, and say what came of it.

        `path`: below `base_url`, or a whole URL. `operation`: its name in logs and metrics.
        `read`: in place of the connector's own. `already_done`: whether a refusal means that an earlier
        attempt, which was lost, has done it. `download`: takes the body of a success.
        `uploads`: files of a multipart body, by field. `secrets`: further ones, of this request; see
        `_secret()`.
        `options`: of `call_options()`. The rest is httpx's.
        """
        self._check_open()
        self._used = True
        begun: list[Call] = []
        options.setdefault("resend_unsafe", self.resend_unsafe)
        asked = CallOptions(operation=operation, begun=begun.append, **options)
        extensions: dict[str, Any] = {RECORD: asked, CREDENTIALS: secrets}
        url = self._url(path)
        with ExitStack() as open_files:
            try:
                if uploads:
                    opened = ((field, upload.opened()) for field, upload in uploads.items())
                    files = {field: open_files.enter_context(file) for field, file in opened}
                request = self._client.build_request(
                    method,
                    url,
                    params=params,
                    headers={name: str(value) for name, value in (headers or {}).items()},
                    json=json,
                    data=data,
                    content=content,
                    files=files,
                    extensions=extensions,
                )
                if not request.url.host:
                    return self._refused(operation, f"a URL without a host: {url}", "invalid_request")
                return await self._sent(request, read or self.read, already_done, download)
            except FileRefusedError as error:
                return self._refused(operation, str(error), error.code)
            except UnicodeEncodeError as error:  # half a character, as JSON from elsewhere may hold
                return self._refused(
                    operation, f"text that cannot be sent: {error.reason}", "invalid_request"
                )
            except self.stack.flavor.module.InvalidURL:
                return self._refused(operation, "a URL that makes no sense", "invalid_request")
            except self.stack.flavor.module.HTTPError as error:
                return self._lost(error, begun[0])

    async def _sent(
        self,
        request: Any,
        read: Callable[[Answer], ConnectorResult],
        already_done: Callable[[Answer], bool] | None,
        download: Download | None,
    ) -> ConnectorResult:
        response = await self._client.send(request, stream=True)
        try:
            return await self._received(response, read, already_done, download)
        finally:
            await response.aclose()

    def _url(self, path: str) -> str:
        return path if path.startswith(("https://", "http://")) else f"{self.base_url}/{path.lstrip('/')}"

    async def _received(
        self,
        response: Any,
        read: Callable[[Answer], ConnectorResult],
        already_done: Callable[[Answer], bool] | None,
        download: Download | None,
    ) -> ConnectorResult:
        call: Call = response.extensions[RECORD]
        judged = await judge(self._profile, response, call, self.stack.flavor)
        retryable = response.status_code in self._statuses if judged.retryable is None else judged.retryable
        answer = Answer(response, b"", judged=judged, retryable=retryable, hide=self._hide)
        if download is not None and answer.ok:
            return answer.success(await download.take(response))
        body = await read_body(response, MOST)
        if body is None:
            return answer.failure(f"an answer of more than {MOST} bytes", code="response_too_large")
        answer.body = body
        if already_done is not None and answer.repeated and not answer.ok and already_done(answer):
            return answer.success({"already_done": True})
        return read(answer)

    def _lost(self, error: Exception, call: Call) -> ConnectorResult:
        """No answer: what became of the request instead."""
        code, retryable = code_of(error, self.stack.flavor)
        retry_after: float | None = getattr(error, "retry_after", None)
        ours = isinstance(error, OURS)
        told = str(error) if ours else f"{call.platform} {call.operation}: {describe_error(error)}"
        return ConnectorResult.failure(
            self._hide(one_line(told)),
            code=code,
            retryable=retryable,
            retry_after=None if retry_after == math.inf else retry_after,
            attempts=len(call.attempts),
            correlation_id=call.correlation_id,
        )

    # --- for the methods of a platform ---

    def _refused(self, operation: str, error: str, code: str) -> ConnectorResult:
        """The result for what is not sent at all."""
        return ConnectorResult.failure(f"{self.platform_name} {operation}: {error}", code=code, attempts=0)

    def _too_long(self, operation: str, text: str | None, most: int) -> ConnectorResult | None:
        """The result for a text that the platform would refuse, `None` where it would not."""
        if text is None or len(text) <= most:
            return None
        error = f"the text has {len(text)} characters, {self.platform_name} takes {most}; send it in parts"
        return self._refused(operation, error, "text_too_long")

    async def _pages(
        self, page: Callable[[str | None], Awaitable[ConnectorResult]], cursor: str | None = None
    ) -> AsyncGenerator[ConnectorResult]:
        """One result after another, until there is no next cursor or one has failed."""
        seen: set[str] = set()
        while True:
            result = await page(cursor)
            yield result
            cursor = result.data.get("next_cursor") if result.success and result.data else None
            if not cursor or cursor in seen:  # or it would go round for ever
                return
            seen.add(cursor)

    def _secret(self, value: str, name: str, *, origin: str | None = None) -> Secret:
        """A secret of one request, such as a webhook's token; the same value is the same secret again."""
        origin = origin or self.base_url
        key = sha256(f"{origin} {value}".encode()).digest()  # whoever looks in here finds no secret
        known = self._others.pop(key, None) or Secret(value, origin=origin, name=name)
        self._others[key] = known  # the last one used is the last one forgotten
        if len(self._others) > _MOST_SECRETS:
            del self._others[next(iter(self._others))]
        return known

    def _concealed(self, url: str) -> tuple[str, tuple[Secret, ...]]:
        """A URL from elsewhere with what the platform's profile knows as secret taken out of it."""
        origin = url.partition("?")[0]
        secrets: list[Secret] = []
        for value in self._profile.secrets_in(url):
            secrets.append(self._secret(unquote(value), "url-secret", origin=origin))
            url = url.replace(value, str(secrets[-1]))
        return url, tuple(secrets)

    def _hide(self, text: str) -> str:
        """Foreign text without this connector's secrets, should the platform repeat them."""
        return hidden(text, [*self._secrets.values(), *self._others.values()])

    def _check_open(self) -> None:
        if self._client.is_closed:
            raise RuntimeError(f"{self!r} is closed; make another one")
