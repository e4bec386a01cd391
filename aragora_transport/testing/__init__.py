"""Tools to test with: clocks that you own, networks and servers that misbehave on demand."""

from aragora_transport.testing._connection import ReceivedRequest
from aragora_transport.testing._contract import ConnectorContract
from aragora_transport.testing._fault_transport import Faults, FaultTransport
from aragora_transport.testing._faults import (
    Answer,
    Wire,
    close_before_headers,
    close_without_reading,
    drip,
    echo,
    garbage,
    half_headers,
    reset_after_headers,
    reset_before_headers,
    reset_while_reading_request,
    server_sent_events,
    stall_while_reading_request,
    stalled_body,
    stalled_headers,
    truncated_body,
    wrong_length,
)
from aragora_transport.testing._manual_clock import ManualClock
from aragora_transport.testing._scripted import Hang, Reply, ScriptedTransport, Sent
from aragora_transport.testing._server import FaultServer
from aragora_transport.testing._virtual_time import VirtualTime

__all__ = [
    "Answer",
    "ConnectorContract",
    "FaultServer",
    "FaultTransport",
    "Faults",
    "Hang",
    "ManualClock",
    "ReceivedRequest",
    "Reply",
    "ScriptedTransport",
    "Sent",
    "VirtualTime",
    "Wire",
    "close_before_headers",
    "close_without_reading",
    "drip",
    "echo",
    "garbage",
    "half_headers",
    "reset_after_headers",
    "reset_before_headers",
    "reset_while_reading_request",
    "server_sent_events",
    "stall_while_reading_request",
    "stalled_body",
    "stalled_headers",
    "truncated_body",
    "wrong_length",
]
