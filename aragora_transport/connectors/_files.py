"""Files on their way up and down, with the platforms' size limits kept before and while they stream."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

File = bytes | Path | IO[bytes]  # what can be uploaded


class Sink(Protocol):
    """Where a download goes: anything with `write`, such as an open file."""

    def write(self, data: bytes, /) -> object: ...


class FileTooLargeError(Exception):
    """A file is larger than the platform takes or gives; becomes a result, never leaves a connector."""


def _check(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise FileTooLargeError(f"the file has more than {limit} bytes, the most that is allowed here")


class _Counted:
    """A file whose length nobody knows before it was read: counted on the way."""

    def __init__(self, file: Any, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        chunk: bytes = self._file.read(size)
        self._size += len(chunk)
        _check(self._size, self._limit)
        return chunk


@dataclass(frozen=True)
class Upload:
    """A file of a multipart body. `limit`: the bytes that it may have."""

    file: File
    filename: str | None = None
    limit: int | None = None

    @contextlib.contextmanager
    def opened(self) -> Generator[tuple[str, Any]]:
        """Name and content, as httpx takes them; a path is opened, and closed again.

        Raises `FileTooLargeError` at once where the length is known, else as soon as too much was read,
        and `TypeError` for what is no file.
        """
        with contextlib.ExitStack() as stack:
            content: Any = self.file
            if isinstance(content, Path):
                content = stack.enter_context(content.open("rb"))
            yield self.filename or _name_of(content), self._measured(content)

    def _measured(self, content: Any) -> Any:
        if isinstance(content, bytes):
            _check(len(content), self.limit)
        elif not hasattr(content, "read"):
            kind = type(content).__name__
            raise TypeError(f"a file to upload is bytes, a Path or an open binary file, not {kind}")
        elif hasattr(content, "seekable") and content.seekable():
            begin = content.tell()
            _check(content.seek(0, os.SEEK_END) - begin, self.limit)
            content.seek(begin)
        elif self.limit is not None:
            return _Counted(content, self.limit)
        return content


def _name_of(file: Any) -> str:
    return Path(str(getattr(file, "name", "file"))).name


class Download:
    """Takes the body of an answer, up to `limit` bytes: into `to`, else into memory."""

    def __init__(self, *, limit: int | None, to: Sink | None) -> None:
        self._limit = limit
        self._to = to

    async def take(self, response: Any) -> dict[str, Any]:
        """Read it all. Raises `FileTooLargeError` before the first byte where the length is told."""
        told = response.headers.get("content-length", "")
        if told.isascii() and told.isdigit():
            _check(int(told[:20]), self._limit)
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            _check(size, self._limit)
            if self._to is None:
                chunks.append(chunk)
            else:
                self._to.write(chunk)
        data: dict[str, Any] = {"size": size, "content_type": response.headers.get("content-type")}
        return data if self._to is not None else {**data, "content": b"".join(chunks)}
