"""Discord: buckets that only its answers name, one limit over all of them, and waits in the body."""

from __future__ import annotations

import re
from typing import Any

from aragora_transport._retry_after import told_number
from aragora_transport.profile import Bucket, Judgement, Profile
from aragora_transport.profiles._reading import code_of, digest, is_json, json_object, segments, whose

_OVERLOADED = "130000"
_NOT_READY = frozenset({"110000", "110001"})  # a search index that is being made: "Try again later"
_IN_ALL = ((50, 1.0),)  # requests a second of a bot, whatever the route
_MAJOR = frozenset({"channels", "guilds", "webhooks", "interactions"})  # their id is a part of the bucket
_ID = re.compile(r"[0-9]+")


def reads_body(response: Any) -> bool:
    """An error's, and that of the one success which is none: a search whose index is not there yet."""
    return (response.status_code >= 400 or response.status_code == 202) and is_json(response)


def classify(response: Any, body: bytes | None) -> Judgement | None:
    """By the body's `code`, and by whose limit a 429 speaks of."""
    status: int = response.status_code
    headers = response.headers
    if status == 429 and "via" not in headers and "html" in headers.get("content-type", ""):
        # Cloudflare stands in front and has banned the address; each further request prolongs that.
        return Judgement(verdict="neither", retryable=False, limited=True, wide=True, code="cloudflare_ban")
    told = json_object(body)
    code = code_of(told.get("code"))
    wait: Any = told_number(told.get("retry_after"))
    if status == 429:  # Too Many Requests
        wide = told.get("global") is True or "global" in (
            headers.get("x-ratelimit-scope"),
            "global" if headers.get("x-ratelimit-global") == "true" else None,
        )
        return Judgement(verdict="neither", wait=wait, limited=True, wide=wide, code=code or "rate_limited")
    if code == _OVERLOADED:
        return Judgement(verdict="failure", retryable=True, wait=wait, code=code)
    if code in _NOT_READY:
        return Judgement(verdict="neither", retryable=True, wait=wait, code=code)
    if code is None or status < 400:
        return None
    return Judgement(verdict="failure" if status >= 500 and status != 501 else "success", code=code)


def _route(request: Any) -> tuple[str, str]:
    """The route without its ids, and the major parameter, whose requests share no bucket with another's."""
    parts = segments(request)
    major = ""
    starts = [at for at, part in enumerate(parts[:-1]) if part in _MAJOR]
    if starts:  # what stands before is the API's version, or a gateway's own path
        kind, major, *rest = parts[starts[0] :]
        if kind in {"webhooks", "interactions"} and rest:
            major, rest = f"{major}/{digest(rest[0])}", ["token", *rest[1:]]
        parts = [kind, ":id", *rest]
    route = [":id" if _ID.fullmatch(part) else part for part in parts]
    if "reactions" in route:
        del route[route.index("reactions") + 1 :]  # an emoji, and whose reaction it is
    return f"{request.method} {'/'.join(route)}", major


def rate_key(request: Any) -> tuple[Bucket, ...]:
    """The route with its major parameter, and the bot as a whole, which interactions do not count for."""
    route, major = _route(request)
    own = Bucket(f"{route} {major}".rstrip())
    if route.startswith("POST interactions/") or route.endswith("/messages/@original"):
        return (own,)
    return (own, Bucket(f"global {whose(request)}", _IN_ALL))


def told_bucket(request: Any, response: Any) -> str | None:
    """The bucket by its own name: routes that share one are told the same."""
    name = code_of(response.headers.get("x-ratelimit-bucket"))
    return None if name is None else f"{name} {_route(request)[1]}".rstrip()


DISCORD = Profile(
    name="discord",
    classify=classify,
    reads_body=reads_body,
    retry_statuses=frozenset({524}),  # Cloudflare's: the platform took too long
    rate_key=rate_key,
    told_bucket=told_bucket,
    # The token of a webhook or an interaction, and the signature of an attachment's address.
    secrets=re.compile(r"/(?:webhooks|interactions)/[0-9]+/([^/?#]+)|[?&]hm=([^&#]+)"),
)
