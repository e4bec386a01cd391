"""What a platform posts to its connector's user: verified and read by `connectors.webhooks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from aragora_transport.connectors.base import ChatPlatformConnector

if TYPE_CHECKING:
    from aragora_transport.connectors.webhooks import Headers, Webhook, WebhookEvent


class ReceivingConnector(ChatPlatformConnector):
    """A connector of a platform that also posts: the same two methods for each."""

    platform_name = ""  # that of the class below
    _signed_with: ClassVar[str]  # the argument that verifying needs
    _webhook_event: Callable[[bytes], WebhookEvent | None]
    _inbox: Webhook | None = None

    def verify_webhook(self, headers: Headers, raw_body: bytes, *, now: float | None = None) -> bool:
        """Whether the platform has sent this; false for whatever others send.

        `raw_body`: before anybody has parsed it. `now`: seconds since 1970 (default: what the clock says).
        Raises `ValueError` where the connector was made without what the platform's signature is verified by.
        """
        if self._inbox is None:
            needs = f"{type(self).__name__}(..., {self._signed_with}=...)"
            raise ValueError(f"verify_webhook() cannot tell: give {needs} what the signature is verified by")
        return self._inbox.verify(headers, raw_body, now=self._clock.time() if now is None else now)

    def parse_event(self, raw_body: bytes) -> WebhookEvent | None:
        """What it says, whoever has sent it: verify it first. `None` where it cannot be read."""
        return self._webhook_event(raw_body)
