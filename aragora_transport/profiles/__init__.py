"""The platforms that are known by name, each one value in a file of its own."""

from __future__ import annotations

from aragora_transport.profile import PLAIN, Profile
from aragora_transport.profiles.discord import DISCORD
from aragora_transport.profiles.slack import SLACK
from aragora_transport.profiles.teams import TEAMS
from aragora_transport.profiles.telegram import TELEGRAM

__all__ = ["DISCORD", "SLACK", "TEAMS", "TELEGRAM", "profile_for"]

_KNOWN = {profile.name: profile for profile in (DISCORD, SLACK, TEAMS, TELEGRAM)}


def profile_for(platform: str) -> Profile:
    """The profile of a platform that is known by name, else plain HTTP."""
    return _KNOWN.get(platform, PLAIN)
