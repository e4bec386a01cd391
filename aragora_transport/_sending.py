"""Whether a request may be sent again: idempotent or not, its body still there or not, sent or not.

"Sent" is decided from facts: bytes pulled from the body, and httpcore's trace of what it wrote.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aragora_transport._call import Call
    from aragora_transport._flavor import Flavor

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110, 9.2.2


def is_idempotent(request: Any, call: Call) -> bool:
    """Whether sending the request twice does no more than sending it once."""
    if call.options.idempotent is not None:
        return call.options.idempotent
    return request.method in IDEMPOTENT_METHODS or "idempotency-key" in request.headers


def is_tls_verification(error: BaseException) -> bool:
    """Whether the server's certificate is not trusted: it will not be the next time either."""
    cause: BaseException | None = error
    handled = sys.exception()  # what the caller handles meanwhile is the context of our error, too
    while cause is not None and (cause is error or cause is not handled):
        if type(cause).__name__ == "SSLCertVerificationError":
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def has_no_body(request: Any) -> bool:
    """By the headers: another library may have wrapped even an empty body in some stream of its own."""
    headers = request.headers
    return "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"


def _in_memory(request: Any, flavor: Flavor) -> bool:
    # Also where only the stream was taken over, as httpx does for a redirect.
    return isinstance(request.stream, flavor.module.ByteStream)


def _all_files_seekable(stream: Any) -> bool:
    """Whether a multipart body can be sent twice: httpx rewinds files, and silently skips those it cannot."""
    fields = getattr(stream, "fields", None)
    if not isinstance(fields, list):
        return False
    for field in fields:  # pyright: ignore[reportUnknownVariableType]  # httpx's own field classes
        file = getattr(field, "file", None)  # pyright: ignore[reportUnknownArgumentType]  # as above
        if file is None or isinstance(file, str | bytes):
            continue
        seekable = getattr(file, "seekable", None)
        if seekable is None or not seekable():
            return False
    return True


class _OneShot:
    """A request body that can be read once, and tells when that began.

    It hands out the body's own iterator, so that who stops reading can close it as without us.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.pulled = False


class _AsyncOneShot(_OneShot):
    def __aiter__(self) -> Any:
        self.pulled = True
        return self.inner.__aiter__()


class _BlockingOneShot(_OneShot):
    def __iter__(self) -> Any:
        self.pulled = True
        return iter(self.inner)


@functools.cache
def _one_shot_class(flavor: Flavor, blocking: bool) -> type[Any]:
    base = flavor.module.SyncByteStream if blocking else flavor.module.AsyncByteStream
    return type("OneShot", (_BlockingOneShot if blocking else _AsyncOneShot, base), {})


class Sending:
    """Follows a request whose body, or whose method, forbids sending it again without a look."""

    def __init__(self, request: Any, call: Call, flavor: Flavor, *, unsafe: bool) -> None:
        self.unsafe = unsafe  # sending it twice may do harm
        self._request = request
        self._flavor = flavor
        self._stream = request.stream
        self._one_shot: Any = None
        self._theirs = request.extensions.get("trace")
        self._saw_network = False
        self._headers_left = False
        if not _in_memory(request, flavor) and not _all_files_seekable(request.stream):
            if has_no_body(request):
                self._stream = flavor.module.ByteStream(b"")  # what every later send gets
            else:
                self._one_shot = _one_shot_class(flavor, call.blocking)(request.stream)
                request.stream = self._one_shot
        if unsafe:
            request.extensions["trace"] = self._trace if call.blocking else self._trace_async

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent again, byte for byte."""
        return self._one_shot is None or not self._one_shot.pulled

    def was_sent(self, error: Exception) -> bool:
        """Whether any of the request may have reached the platform."""
        if self._headers_left or (self._one_shot is not None and self._one_shot.pulled):
            return True
        if self._saw_network:
            return False  # it was traced up to some point before the headers
        # No trace: a transport that is no httpcore, or a pool without a free connection.
        return not isinstance(error, self._flavor.connecting)

    def again(self) -> None:
        """Make the request ready for another send."""
        self._saw_network = self._headers_left = False
        if self._one_shot is None:
            self._request.stream = self._stream

    def finish(self) -> None:
        """Leave the request as it came."""
        if self._one_shot is not None:
            self._request.stream = self._one_shot.inner
        if self.unsafe:
            if self._theirs is None:
                self._request.extensions.pop("trace", None)
            else:
                self._request.extensions["trace"] = self._theirs

    def _note(self, name: str, info: dict[str, Any]) -> None:
        self._saw_network = True
        if name.endswith("send_request_headers.started"):
            # A proxy is first asked for a tunnel, in a request of httpcore's own.
            sent = info.get("request")
            self._headers_left = getattr(sent, "method", None) != b"CONNECT"

    def _trace(self, name: str, info: dict[str, Any]) -> None:
        self._note(name, info)
        if self._theirs is not None:
            self._theirs(name, info)

    async def _trace_async(self, name: str, info: dict[str, Any]) -> None:
        self._note(name, info)
        if self._theirs is not None:
            await self._theirs(name, info)


def follow(request: Any, call: Call, flavor: Flavor, *, unsafe_always: bool) -> Sending | None:
    """A follower where one is needed: not for an idempotent request whose body lies in memory."""
    safe = unsafe_always or is_idempotent(request, call)
    if safe and _in_memory(request, flavor):
        return None
    return Sending(request, call, flavor, unsafe=not safe)
