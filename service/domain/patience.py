"""How long drover waits for what may never come. Not settings: an operator has no better figures than these."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct


class Patience(Struct, frozen=True):
    """Each limit turns something that may last for ever into a terminal event that says so."""

    doubt: timedelta = timedelta(minutes=30)
    """From the grace on: how long the hub's lists may be unreadable or incomplete before a doubt is undecidable."""

    missing: timedelta = timedelta(minutes=10)
    """How long the hub must deny knowing a generation, time and again, before it is lost."""

    stop: timedelta = timedelta(minutes=30)
    """How long the hub may take to end a generation that it was asked to end."""

    surplus: timedelta = timedelta(minutes=10)
    """How long a request that was submitted again is watched for what its first POST bought after all."""
