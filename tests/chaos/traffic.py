"""What is asked of the service: a seed and a number in, requests and their moments out. Pure.

Every prompt says whose it is, so the hub's ledger can be held against what was asked for; only twins share one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

LTX = "ltx-2-3-quality-text-to-video"
STILL = "flux-2-dev-text-to-image"
SEEDLESS = "kling-2-1-standard-image-to-video"
SOURCES = ("film", "shop", "news", "lab", "mail")
RESEND_WITHIN_S = 5.0
TWINS = 3  # requests of the same content, for a model without a seed

# What is asked for, and how often. The rest are plain requests.
CANCEL_WITHIN_S = (-1.0, 3.0)  # of the request: some come before it, some when all is over
DEADLINE_S = (0.5, 4.0)
SHARES = {
    "several": 0.05,
    "still": 0.03,
    "seedless": 0.03,
    "twin": 0.02,
    "seeded": 0.02,
    "fails": 0.02,
    "invalid": 0.01,
    "cancelled": 0.03,
    "expires": 0.01,
}
RESENT = 0.03


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `at_s` has a moment for each time that it is sent, `cancel_at_s` is when it is cancelled, and
    `deadline_s` what it carries, counted from its first sending. `ends` are the events that may end it, and of the
    `num_generations` asked for at least `least` must be bought."""

    request_id: str
    prompt: str
    num_generations: int
    ends: frozenset[str]
    source: str
    at_s: tuple[float, ...]
    body: bytes
    least: int = 1
    cancel_at_s: float | None = None
    deadline_s: float | None = None


def traffic(seed: int, count: int, seconds: float) -> list[Asked]:
    """`count` requests spread over `seconds`, in the order of their first sending."""
    random = Random(f"{seed}/traffic")  # noqa: S311 - to be repeated, not to be secret
    moments = sorted(random.uniform(0.0, seconds) for _ in range(count))
    kinds = _kinds(random, count)
    return [_asked(random, seed, number, at_s, next(kinds)) for number, at_s in enumerate(moments)]


def _kinds(random: Random, count: int) -> Iterator[tuple[str, int]]:
    """A kind for each request, with the number of its group: twins come one behind the other."""
    group = 0
    while True:
        group += 1
        kind = random.choices([*SHARES, "plain"], [*SHARES.values(), 1 - sum(SHARES.values())])[0]
        for _ in range(TWINS if kind == "twin" else 1):
            yield kind, group


def _asked(random: Random, seed: int, number: int, at_s: float, kind: tuple[str, int]) -> Asked:
    name, group = kind
    request_id = f"chaos-{seed}-{number}"
    prompt = f"chaos {seed}, {'twins' if name == 'twin' else 'clip'} {group}"
    body: dict[str, Any] = {"request_id": request_id, "input": {"prompt": prompt}}
    ends, outputs = {"succeeded"}, 1
    match name:
        case "several":
            outputs = body["num_generations"] = random.randint(2, 4)
        case "still":
            body["model"] = STILL
        case "seedless" | "twin":
            body["model"] = SEEDLESS
            body["input"]["image_url"] = "https://files.test/still.png"
        case "seeded":
            body["input"]["seed"] = random.randint(0, 1000)
        case "fails":
            prompt = body["input"]["prompt"] = f"{prompt} [fail]"
            ends = {"failed"}
        case "invalid":
            body["input"]["num_frames"] = "many"
            ends, outputs = {"rejected"}, 0
        case "cancelled":
            outputs = body["num_generations"] = random.randint(1, 3)
            ends = {"succeeded", "cancelled"}
        case "expires":
            ends = {"succeeded", "expired"}
    if random.random() < 0.2:
        body["priority"] = random.randint(0, 9)
    moments = (at_s, at_s + random.uniform(0.0, RESEND_WITHIN_S)) if random.random() < RESENT else (at_s,)
    return Asked(
        request_id,
        prompt,
        outputs,
        frozenset(ends),
        random.choice(SOURCES),
        moments,
        json.dumps(body).encode(),
        least=0 if len(ends) > 1 else outputs,
        cancel_at_s=max(0.0, at_s + random.uniform(*CANCEL_WITHIN_S)) if name == "cancelled" else None,
        deadline_s=random.uniform(*DEADLINE_S) if name == "expires" else None,
    )


def shifted(request: Asked, by_s: float) -> Asked:
    """The same, so much earlier."""
    cancel_at_s = None if request.cancel_at_s is None else max(0.0, request.cancel_at_s - by_s)
    return replace(request, at_s=tuple(at_s - by_s for at_s in request.at_s), cancel_at_s=cancel_at_s)


def body_at(request: Asked, now: datetime) -> bytes:
    """What is sent: a deadline is told as a moment."""
    if request.deadline_s is None:
        return request.body
    deadline = now + timedelta(seconds=request.deadline_s)
    return json.dumps(json.loads(request.body) | {"deadline": deadline.isoformat()}).encode()
