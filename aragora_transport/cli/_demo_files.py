"""What a run of the demo leaves behind for reading: Prometheus text and a JSON log."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry, write_to_textfile

from aragora_transport.layers import configure_logging

if TYPE_CHECKING:
    from types import TracebackType


class FilesError(Exception):
    """There is nowhere to leave files."""


class Files:
    """A temporary directory that stays. The log is written as it comes, the metrics when the block ends."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.paths: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            directory = Path(tempfile.mkdtemp(prefix="aragora-transport-demo-"))
        except OSError as error:
            raise FilesError(
                f"no directory for metrics and logs could be made ({error}); set TMPDIR to one that exists "
                "and may be written to"
            ) from error
        self.paths = {"metrics": str(directory / "metrics.prom"), "logs": str(directory / "log.jsonl")}
        self._log = Path(self.paths["logs"]).open("w", encoding="utf-8", buffering=1)
        self._handler = configure_logging(json=True, stream=self._log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        write_to_textfile(self.paths["metrics"], self.registry)
        logging.getLogger("aragora_transport").removeHandler(self._handler)
        self._log.close()
