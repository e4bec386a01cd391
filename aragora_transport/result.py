"""`ConnectorResult`: what connectors return instead of raising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, overload

if TYPE_CHECKING:
    from collections.abc import Callable


class _SuccessField:
    """How type checkers see `success`: the constructor on the class, the bool on a result."""

    @overload
    def __get__(self, instance: None, owner: type[ConnectorResult]) -> Callable[..., ConnectorResult]: ...
    @overload
    def __get__(self, instance: ConnectorResult, owner: type[ConnectorResult]) -> bool: ...
    def __get__(self, instance: ConnectorResult | None, owner: type[ConnectorResult]) -> Any:
        raise NotImplementedError  # pragma: no cover  # reason: read by type checkers only, never called


@dataclass(frozen=True, init=False)
class ConnectorResult:
    """The outcome of one connector method.

    `success`: on a result, whether it worked. On the class, the constructor
        `ConnectorResult.success(data)`: the guide gives both the same name.
    `data`: what the platform answered, where it worked.
    `error`, `error_code`: what went wrong, for people and for programs.
    `retryable`: whether the same request may work later.
    `status_code`: of the last answer, where there was one.
    `retry_after`: seconds that the platform asked to wait, where it did.
    `attempts`: how many sends it took.
    `correlation_id`: of the call, as in its log records.
    """

    if TYPE_CHECKING:
        success = _SuccessField()
    else:
        success: bool
    data: Any | None = None
    error: str | None = None
    error_code: str | None = None
    retryable: bool = False
    status_code: int | None = None
    retry_after: float | None = None
    attempts: int | None = None
    correlation_id: str | None = None

    def __init__(
        self,
        success: bool,
        data: Any | None = None,
        error: str | None = None,
        error_code: str | None = None,
        retryable: bool = False,
        status_code: int | None = None,
        retry_after: float | None = None,
        attempts: int | None = None,
        correlation_id: str | None = None,
    ) -> None:
        values = locals()
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, values[name])

    @classmethod
    def failure(
        cls,
        error: str,
        code: str | None = None,
        retryable: bool = False,
        *,
        data: Any | None = None,
        status_code: int | None = None,
        retry_after: float | None = None,
        attempts: int | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """A result that did not work, with the reason for people (`error`) and for programs (`code`)."""
        return cls(
            success=False,
            data=data,
            error=error,
            error_code=code,
            retryable=retryable,
            status_code=status_code,
            retry_after=retry_after,
            attempts=attempts,
            correlation_id=correlation_id,
        )


def _success(cls: type[ConnectorResult], data: Any = None, **details: Any) -> ConnectorResult:
    """A result that worked. `details`: `status_code`, `attempts`, `correlation_id`."""
    return cls(success=True, data=data, **details)


if not TYPE_CHECKING:  # pragma: no branch  # reason: type checkers never run it
    # Set after the dataclass was made, so that it is no field's default: `ConnectorResult()` must not be
    # a success by accident. A result's own value lies in its `__dict__` and wins over a classmethod.
    ConnectorResult.success = classmethod(_success)
