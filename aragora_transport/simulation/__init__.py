"""The real layers in virtual time, under simulated traffic, against simulated servers with outages.

What `aragora-transport simulate` runs. A `Scenario` says what happens, a `Contender` who meets it;
`simulate()` is one run under one seed, and `Numbers` is what came of it.
"""

from aragora_transport.simulation.contenders import Contender, bare, ours
from aragora_transport.simulation.numbers import Numbers, numbers
from aragora_transport.simulation.run import Run, simulate
from aragora_transport.simulation.scenario import Outage, Scenario

__all__ = ["Contender", "Numbers", "Outage", "Run", "Scenario", "bare", "numbers", "ours", "simulate"]
