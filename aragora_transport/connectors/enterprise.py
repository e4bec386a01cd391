"""`EnterpriseConnector`: the guide's base class for JSON APIs with tokens, problem bodies and pages."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import httpx

from aragora_transport._backoff import backoff
from aragora_transport._redact import one_line
from aragora_transport.connectors._answer import fields_of
from aragora_transport.connectors._connector import Connector
from aragora_transport.policy import Policy, RetryPolicy
from aragora_transport.result import ConnectorResult

if TYPE_CHECKING:
    from aragora_transport._tokens import TokenSource
    from aragora_transport.connectors._answer import Answer
    from aragora_transport.connectors._settings import ConnectorOptions

_LISTS = ("value", "items", "data", "results")  # where APIs put a page's list
_LINK = re.compile(r'<([^<>]*)>[^,<]*?;\s*rel\s*=\s*"?([^",;<]*)', re.IGNORECASE)
_NEXT = ("@odata.nextLink", "nextLink", "next")  # and the URL of the following page


class EnterpriseConnector(Connector):
    """A JSON API behind OAuth or a key.

        class Crm(EnterpriseConnector):
            async def get_account(self, id):
                return await self._make_request("GET", f"/accounts/{segment(id)}", operation="get_account")

        async with Crm("https://crm.example.com/api", auth=ClientCredentials(...)) as crm: ...

    `base_url`: paths are below it. `auth`: where its tokens come from; see `connectors.oauth`.
    `headers`: of every request. `max_retries`: tries in all, as the guide counts (default 3).
    For the rest see `Connector`. No method raises for what the API or the network does.
    """

    platform_name = ""  # that of the class below

    def __init__(
        self,
        base_url: str = "",
        *,
        auth: TokenSource | None = None,
        headers: Mapping[str, str] | None = None,
        max_retries: int | None = None,
        **options: Unpack[ConnectorOptions],
    ) -> None:
        self.platform_name = self.platform_name or "enterprise"
        policy = options.get("policy") or Policy()
        if max_retries is not None:
            options["policy"] = replace(
                policy, retry=replace(policy.retry or RetryPolicy(), max_attempts=max_retries)
            )
        super().__init__(base_url=base_url, auth=auth, **options)
        retry = self.policy.retry
        self.max_retries = 1 if retry is None else retry.max_attempts
        self._headers = dict(headers or {})
        self._circuit_breaker = _CircuitBreaker(self)
        self._rng = random.Random()
        if self.base_url:
            self._client.base_url = self.base_url  # for connectors that send by self._client

    async def _make_request(
        self, method: str, path: str, data: Any = None, *, operation: str | None = None, **kwargs: Any
    ) -> ConnectorResult:
        """Send a request by the guide's table.

        `path`: below `base_url`, or a whole URL, which gets a token only at the source's origin.
        `data`: the JSON body. `operation`: the name in logs and metrics (default the method).
        `kwargs`: `params`, `headers`, `content`, `files`, and the options of `call_options()`.
        """
        await self._ensure_token_valid()
        kwargs.setdefault("json", data)
        kwargs.setdefault(
            "resend_unsafe", None
        )  # as the policy says: the guide's table holds for every method
        kwargs["headers"] = {**self._headers, **(kwargs.get("headers") or {})}
        return await self._request(method, path, operation=operation or method, **kwargs)

    def read(self, answer: Answer) -> ConnectorResult:
        """JSON of a success; of a failure its problem body (RFC 9457), or what is usual in its place."""
        if answer.ok:
            result = answer.success(answer.json if answer.body else None)
            link = _next_link(answer.headers.get("link", ""))
            if link and isinstance(answer.json, list):
                fields_of(result.data)["next_cursor"] = link
            return result
        error, code = _problem(answer.fields)
        refused = answer.call.token_refused
        if answer.status == 401 and refused is not None:
            error = f"{error or answer.text}; no other token: {refused}".lstrip("; ")
        return answer.failure(error, code=code, data=answer.fields or None)

    async def iter_pages(
        self, path: str, *, items: str | None = None, cursor: tuple[str, str] | None = None, **kwargs: Any
    ) -> AsyncGenerator[ConnectorResult]:
        """Page after page of a GET, each as `{"items": [...], "next_cursor": ...}`; a failure is the last.

        What follows is told by a `Link` header (RFC 8288) or a link in the body, which must lead to the same
        origin, or by a cursor. `items`: the body's member with the list (default the usual ones).
        `cursor`: the query parameter that takes a cursor and the body's member that holds it, such as
        `("page_token", "nextPageToken")`. `kwargs`: of `_make_request`.
        """
        seen: set[str] = set()
        while True:
            page = _Page(self, self._url(path), items, cursor)
            result = await self._make_request("GET", path, read=page.read, **kwargs)
            yield result
            following: str | None = fields_of(result.data).get("next_cursor") if result.success else None
            if following is None or following in seen:  # or it would go round for ever
                return
            seen.add(following)
            if cursor is not None:
                kwargs["params"] = {**(kwargs.get("params") or {}), cursor[0]: following}
            else:
                kwargs.pop("params", None)  # the link has them
                path = following

    async def iter_items(self, path: str, **kwargs: Any) -> AsyncGenerator[ConnectorResult]:
        """Item after item of those pages, each a success with the item as `data`; a failure is the last."""
        async for page in self.iter_pages(path, **kwargs):
            if not page.success:
                yield page
                return
            for item in fields_of(page.data)["items"]:
                yield ConnectorResult.success(
                    item,
                    status_code=page.status_code,
                    attempts=page.attempts,
                    correlation_id=page.correlation_id,
                )

    # --- what connectors that are written by the guide find here ---

    async def _ensure_token_valid(self) -> None:
        """Called before each request. Does nothing: the stack sees to the tokens of `auth`."""

    def _is_retryable(self, status_code: int) -> bool:
        """Whether an answer with this status is sent again: 429, 500, 502, 503, 504 by default."""
        return status_code in self._statuses

    async def _backoff(self, attempt: int) -> None:
        """Wait as the policy says after the attempt of this number, counted from 0."""
        policy = self.policy.retry or RetryPolicy()
        await self._clock.sleep(backoff(policy, attempt + 1, 0.0, self._rng))


class _CircuitBreaker:
    """The stack's circuit by the guide's names."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    def can_proceed(self) -> bool:
        """Whether a request would be let through now."""
        circuit = self._connector.stack.circuits().get(self._connector.platform_name)
        return circuit is None or circuit["state"] != "open" or not circuit["next_probe_in"]

    def record_success(self) -> None:
        """Count a success of something that was not sent through this connector."""
        if self._connector.policy.breaker is not None:
            self._connector.stack.record()

    def record_failure(self) -> None:
        """Count a failure of the same."""
        if self._connector.policy.breaker is not None:
            self._connector.stack.record(failure="failure")


class _Page:
    """Reads one page that came from the URL `here`."""

    def __init__(
        self, connector: EnterpriseConnector, here: str, items: str | None, cursor: tuple[str, str] | None
    ) -> None:
        self._connector = connector
        self._here = httpx.URL(here)
        self._lists = _LISTS if items is None else (items,)
        self._cursor = cursor

    def read(self, answer: Answer) -> ConnectorResult:
        """The page's list and what follows."""
        if not answer.ok:
            return self._connector.read(answer)
        fields = answer.fields
        found: list[Any] = [answer.json, *(fields.get(name) for name in self._lists)]
        listed: Any = next(filter(_is_list, found), None)
        if listed is None:
            return answer.unreadable()
        following = self._told(answer, fields)
        if following is not None and self._cursor is None:
            try:
                url = self._here.join(following)
            except (httpx.InvalidURL, ValueError):
                return answer.failure("the link to its next page makes no sense", code="invalid_response")
            if (url.scheme, url.host, url.port) != (self._here.scheme, self._here.host, self._here.port):
                return answer.failure("its next page is at another origin", code="invalid_response")
            following = str(url)
        return answer.success({"items": listed, "next_cursor": following})

    def _told(self, answer: Answer, fields: dict[str, Any]) -> str | None:
        if self._cursor is not None:
            told: Any = fields.get(self._cursor[1])
            return str(told) if isinstance(told, str | int) and told != "" else None
        links: list[Any] = [_next_link(answer.headers.get("link", "")), *(fields.get(name) for name in _NEXT)]
        links += [fields_of(fields.get(name)).get("next") for name in ("links", "_links")]
        texts = (fields_of(link).get("href") or link for link in links)
        return next((text for text in texts if isinstance(text, str) and text), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _next_link(header: str) -> str | None:
    """The link of a `Link` header whose relation is "next" (RFC 8288, 3)."""
    links = ((link[1], link[2].lower().split()) for link in _LINK.finditer(header))
    return next((url for url, relations in links if "next" in relations), None)


def _problem(fields: dict[str, Any]) -> tuple[str | None, str | None]:
    """What went wrong, in words and as a code: RFC 9457's members, else the usual ones."""
    inner = fields.get("error")
    errors: Any = fields.get("errors")
    if isinstance(inner, dict):
        fields = fields_of(inner)
    elif isinstance(errors, list) and errors and isinstance(errors[0], dict):
        fields = {**fields_of(errors[0]), **fields}
    kind = str(fields.get("type") or "about:blank")
    code = fields.get("code") or (inner if isinstance(inner, str) else None)
    if code is None and kind != "about:blank":
        code = kind.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    said = [
        fields.get("title"),
        fields.get("detail") or fields.get("error_description") or fields.get("message"),
    ]
    text = ": ".join(one for one in said if isinstance(one, str) and one)
    return text or None, one_line(str(code)) if isinstance(code, str | int) else None
