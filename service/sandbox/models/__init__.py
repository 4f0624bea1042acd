"""Models beyond the first ones, each with a parameter schema of another shape, as families of real models have them.

Their dialects are what schemas in the wild are written in, the awkward ones included: see each family.
"""

from __future__ import annotations

from typing import Final

from service.sandbox.models import edits, films, odd, stills
from service.sandbox.models.offer import Offer

OFFERS: Final[tuple[Offer, ...]] = (*stills.OFFERS, *edits.OFFERS, *films.OFFERS, *odd.OFFERS)

__all__ = ["OFFERS", "Offer"]
