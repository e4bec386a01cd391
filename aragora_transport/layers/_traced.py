"""What the two layers of OpenTelemetry are made of alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aragora_transport._clock import SYSTEM
from aragora_transport.layers._layer import Layer, checked
from aragora_transport.layers._otel import Tracing
from aragora_transport.profile import PLAIN

if TYPE_CHECKING:
    from aragora_transport._clock import Clock
    from aragora_transport.profile import Profile


class Traced(Layer):
    """A layer that tells `tracing`; `profile` knows where secrets sit in its URLs."""

    def __init__(
        self,
        below: Any,
        *,
        tracing: Tracing | None = None,
        profile: Profile = PLAIN,
        platform: str = "default",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(below, platform=platform, clock=clock)
        name = type(self).__name__
        self.tracing = checked(f"{name}(tracing=...)", tracing or Tracing(), Tracing)
        self._profile = profile
