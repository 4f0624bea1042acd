"""What chance decides, repeatable by its seed."""

from __future__ import annotations

import random
import secrets


class Dice:
    """One die for each name: with the same seed, the n-th throw for a name falls alike in every run, however often
    the others are thrown meanwhile. Ids are not thrown: two sandboxes of one seed must not give out the same ones.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = secrets.randbits(32) if seed is None else seed
        self._dice: dict[str, random.Random] = {}

    def falls(self, name: str, probability: float) -> bool:
        """Whether what has this probability happens this time."""
        return self._die(name).random() < probability

    def between(self, name: str, low: float, high: float) -> float:
        """A number from `low` to `high`, all equally likely."""
        return self._die(name).uniform(low, high)

    def _die(self, name: str) -> random.Random:
        die = self._dice.get(name)
        if die is None:
            die = self._dice[name] = random.Random(f"{self.seed}:{name}")  # noqa: S311  # faults and jitter, no secret
        return die
