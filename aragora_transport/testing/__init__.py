"""Tools to test with: a clock that you own, networks that misbehave on demand."""

from aragora_transport.testing._fault_transport import Faults, FaultTransport
from aragora_transport.testing._manual_clock import ManualClock
from aragora_transport.testing._scripted import Hang, Reply, ScriptedTransport, Sent

__all__ = ["FaultTransport", "Faults", "Hang", "ManualClock", "Reply", "ScriptedTransport", "Sent"]
