"""Files on their way up and down, with the platforms' size limits kept before and while they stream."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

File = bytes | Path | IO[bytes]  # what can be uploaded

_CHUNK = 64 * 1024  # bytes of a file that are read at once


class Sink(Protocol):
    """Where a download goes: anything with `write`, such as an open file."""

    def write(self, data: bytes, /) -> object: ...


class FileRefusedError(Exception):
    """A file is not sent, or not taken; becomes a result with `code`, never leaves a connector."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


def _check(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        text = f"the file has more than {limit} bytes, the most that is allowed here"
        raise FileRefusedError(text, "file_too_large")


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


class _Chunks:
    """A file as a body: read while it is sent, and so sent once."""

    def __init__(self, file: Any, length: int) -> None:
        self._file = file
        self._left = length

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk: bytes = self._file.read(min(self._left, _CHUNK))
        if not chunk:
            raise StopAsyncIteration
        self._left -= len(chunk)
        return chunk


@dataclass(frozen=True)
class Raw:
    """A file as a whole body: its name, its length in bytes, and what httpx takes for `content`."""

    name: str
    length: int
    content: Any


@dataclass(frozen=True)
class Upload:
    """A file of a multipart body, or a body. `limit`: the bytes that it may have."""

    file: File
    filename: str | None = None
    limit: int | None = None

    @contextlib.contextmanager
    def opened(self) -> Generator[tuple[str, Any]]:
        """Name and content, as httpx takes them; a path is opened, and closed again.

        Raises `FileRefusedError` at once where the length is known, else as soon as too much was read,
        and `TypeError` for what is no file.
        """
        with contextlib.ExitStack() as stack:
            content: Any = self.file
            if isinstance(content, Path):
                content = stack.enter_context(content.open("rb"))
            yield self.filename or _name_of(content), self._measured(content)

    @contextlib.contextmanager
    def raw(self) -> Generator[Raw]:
        """The same as a body. Raises `FileRefusedError` also where nobody knows its length."""
        with self.opened() as (name, content):
            if isinstance(content, bytes):
                yield Raw(name, len(content), content)
            elif isinstance(content, _Counted) or not content.seekable():
                text = "nobody knows how long the file is; give bytes, a Path or a file that can be rewound"
                raise FileRefusedError(text, "file_length_unknown")
            else:
                length = _length(content)
                yield Raw(name, length, _Chunks(content, length))

    def _measured(self, content: Any) -> Any:
        if isinstance(content, bytes):
            _check(len(content), self.limit)
        elif not hasattr(content, "read"):
            kind = type(content).__name__
            raise TypeError(f"a file to upload is bytes, a Path or an open binary file, not {kind}")
        elif hasattr(content, "seekable") and content.seekable():
            _check(_length(content), self.limit)
        elif self.limit is not None:
            return _Counted(content, self.limit)
        return content


def _length(file: Any) -> int:
    """The bytes from where the file stands to its end."""
    begin: int = file.tell()
    end: int = file.seek(0, os.SEEK_END)
    file.seek(begin)
    return end - begin


def _name_of(file: Any) -> str:
    return Path(str(getattr(file, "name", "file"))).name


class Download:
    """Takes the body of an answer, up to `limit` bytes: into `to`, else into memory."""

    def __init__(self, *, limit: int | None, to: Sink | None) -> None:
        self._limit = limit
        self._to = to

    async def take(self, response: Any) -> dict[str, Any]:
        """Read it all. Raises `FileRefusedError` before the first byte where the length is told."""
        told = response.headers.get("content-length", "")
        if told.isascii() and told.isdigit():
            _check(int(told[:20]), self._limit)
        chunks: list[bytes] = []
        size = 0
        async with contextlib.aclosing(response.aiter_bytes()) as body:
            async for chunk in body:
                size += len(chunk)
                _check(size, self._limit)
                if self._to is None:
                    chunks.append(chunk)
                else:
                    self._to.write(chunk)
        data: dict[str, Any] = {"size": size, "content_type": response.headers.get("content-type")}
        return data if self._to is not None else {**data, "content": b"".join(chunks)}
