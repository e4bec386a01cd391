"""Where Teams' conversations are: references to them, and the store that keeps them between two runs."""

from __future__ import annotations

import functools
import json
import sqlite3
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import anyio.to_thread

from aragora_transport.connectors._answer import fields_of

T = TypeVar("T")

_TABLE = "CREATE TABLE IF NOT EXISTS conversations (id TEXT PRIMARY KEY, reference TEXT NOT NULL)"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationReference:
    """What a bot must keep of a conversation to speak in it later.

    `conversation_id`, `service_url`: where messages go. `tenant_id`, `user_id`, `bot_id`: to create further
    conversations with; a user's id is another one for each bot. `kind`: "personal", "groupChat" or "channel".
    """

    conversation_id: str
    service_url: str
    tenant_id: str | None = None
    user_id: str | None = None
    bot_id: str | None = None
    kind: str | None = None

    @classmethod
    def from_activity(cls, activity: Mapping[str, Any]) -> Self | None:
        """That of an activity which the bot received; `None` where it says too little."""
        conversation = fields_of(activity.get("conversation"))
        data = fields_of(activity.get("channelData"))
        return cls._from(
            {
                "conversation_id": conversation.get("id"),
                "service_url": activity.get("serviceUrl"),
                "tenant_id": conversation.get("tenantId") or fields_of(data.get("tenant")).get("id"),
                "user_id": fields_of(activity.get("from")).get("id"),
                "bot_id": fields_of(activity.get("recipient")).get("id"),
                "kind": conversation.get("conversationType"),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """What `to_json` wrote; `None` for anything else."""
        try:
            return cls._from(fields_of(json.loads(text)))
        except ValueError:
            return None

    def to_json(self) -> str:
        """For a store."""
        return json.dumps(asdict(self))

    @classmethod
    def _from(cls, told: dict[str, Any]) -> Self | None:
        names = [field.name for field in fields(cls)]
        known = {name: told[name] for name in names if isinstance(told.get(name), str) and told[name]}
        return cls(**known) if {"conversation_id", "service_url"} <= known.keys() else None


class ConversationStore(Protocol):
    """Keeps references by the conversation's id."""

    async def get(self, conversation_id: str) -> ConversationReference | None:
        """The one that was put last."""
        ...

    async def put(self, reference: ConversationReference) -> None:
        """Keep it in place of an earlier one."""
        ...

    async def delete(self, conversation_id: str) -> None:
        """Forget it, if it is there."""
        ...


class SQLiteConversationStore:
    """A store in an SQLite file, or in memory (by default), where it ends with the process.

    A file is read and written in a worker thread, one operation at a time: the event loop does not wait for
    the disk. Other processes may use the same file; one that is locked is waited for, 5 seconds at most.
    """

    def __init__(self, path: str | Path = ":memory:") -> None:
        self._path = str(path)
        self._in_memory = self._path == ":memory:"
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    async def get(self, conversation_id: str) -> ConversationReference | None:
        """The reference that was put last."""
        rows = await self._run(
            lambda database: database.execute(
                "SELECT reference FROM conversations WHERE id = ?", (conversation_id,)
            ).fetchall()
        )
        return ConversationReference.from_json(rows[0][0]) if rows else None

    async def put(self, reference: ConversationReference) -> None:
        """Keep it in place of an earlier one."""
        row = (reference.conversation_id, reference.to_json())
        await self._run(
            lambda database: database.execute("INSERT OR REPLACE INTO conversations VALUES (?, ?)", row)
        )

    async def delete(self, conversation_id: str) -> None:
        """Forget it, if it is there."""
        await self._run(
            lambda database: database.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
        )

    async def references(self) -> list[ConversationReference]:
        """All of them, for a message to everybody."""
        rows = await self._run(
            lambda database: database.execute("SELECT reference FROM conversations ORDER BY id").fetchall()
        )
        found = [ConversationReference.from_json(row[0]) for row in rows]
        return [reference for reference in found if reference is not None]

    async def aclose(self) -> None:
        """Close the file; what follows opens it again."""
        await self._on_thread(self._close)

    async def _run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on_thread(functools.partial(self._operate, operation))

    async def _on_thread(self, operation: Callable[[], T]) -> T:
        return operation() if self._in_memory else await anyio.to_thread.run_sync(operation)

    def _operate(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            if self._database is None:
                # Any thread may use it, under the lock. Each statement is a transaction of its own.
                database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
                try:
                    database.execute(_TABLE)
                except BaseException:
                    database.close()
                    raise
                weakref.finalize(self, database.close)  # for who does not close it
                self._database = database
            return operation(self._database)

    def _close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None
