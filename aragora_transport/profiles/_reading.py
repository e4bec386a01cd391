"""Reading requests and answers whose content may be anything: nothing here raises, whatever it is given."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from typing import Any, cast
from urllib.parse import parse_qsl

_MOST = 65_536  # bytes of a request's body that are looked at
_CODE = re.compile(r"[A-Za-z0-9][\w.:-]{0,63}", re.ASCII)  # what may stand in a log line or a result


def json_object(body: bytes | str | None) -> dict[str, Any]:
    """The object that a body is in JSON, or an empty one."""
    try:
        value: Any = json.loads(body or b"{}")
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a number of 5,000 digits; nested too deeply
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def inner(value: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under this name, or an empty one."""
    found = value.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def code_of(value: object) -> str | None:
    """An error code as a platform wrote it, name or number; `None` for what cannot be one, and for 0."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if 0 < value < 1e9 else None
    return value if isinstance(value, str) and _CODE.fullmatch(value) else None


def is_json(response: Any) -> bool:
    """Whether an answer says that it is JSON."""
    return "json" in response.headers.get("content-type", "")


def segments(request: Any) -> list[str]:
    """The parts of the request's path as they are sent: an encoded slash does not split one."""
    path: bytes = request.url.raw_path
    return path.partition(b"?")[0].decode("ascii", "replace").split("/")[1:]


def fields_of(request: Any) -> dict[str, Any]:
    """The parameters of a request: its query, and its body where that is JSON or a form held in memory."""
    fields: dict[str, Any] = dict(parse_qsl(request.url.query.decode("ascii", "replace")))
    # Where httpx keeps a body that is held in memory.
    content: bytes | None = getattr(request, "_content", None)
    if content and len(content) <= _MOST:
        kind = request.headers.get("content-type", "")
        if "json" in kind:
            fields.update(json_object(content))
        elif "form-urlencoded" in kind:
            fields.update(parse_qsl(content.decode("utf-8", "replace")))
    return fields


def name_of(value: object) -> str | None:
    """An id as a request names it, as text or as a number."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value else None


def whose(request: Any) -> str:
    """Who sends: a short digest of the credential, which must not appear in a key."""
    return digest(request.headers.get("authorization", ""))


@functools.lru_cache(maxsize=1024)
def digest(secret: str) -> str:
    """Eight characters that stand for a secret; "-" for none."""
    return hashlib.blake2s(secret.encode(), digest_size=4).hexdigest() if secret else "-"
