"""What the rows have in common: the name of a replica, and the colours of figures."""

from __future__ import annotations

REPLICA = "{{instance}}"
GREEN, ORANGE, RED = "green", "orange", "red"
NONE = ((None, GREEN), (1, RED))
