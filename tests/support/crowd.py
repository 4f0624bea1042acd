"""Thousands of generations in flight, at the hub and in the database, without the minutes of submitting them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import asyncpg

from service.sandbox import Sandbox
from service.sandbox.generation import SUCCEEDED, Generation

MODEL = "ltx-2-3-quality-text-to-video"
PARAMETERS = {
    "num_frames": 121,
    "resolution": "landscape_16_9",
    "frames_per_second": 24,
    "generate_audio": True,
    "video_quality": "high",
    "negative_prompt": "worst quality, inconsistent motion, blurry, jittery, distorted " * 6,
}
STORE = """
with given as (select * from unnest($1::text[]) with ordinality as g (generation_id, number)),
stored as (
    insert into requests (
        request_id, state, version, sequence, source, model, input, input_checked, num_generations, content_hash, seed,
        seed_chosen, priority, deadline, received_at, attempts, attempted_at, next_attempt_at, submitted_at
    )
    select
        'crowd-' || number, 'submitted', 3, 2, 'crowd', $2, '{"prompt": "a crowd"}', true, 1,
        sha256(number::text::bytea), number, true, 4, now() + interval '1 day', now(), 1, now(), now(), now()
    from given
)
insert into outputs (generation_id, request_id, index, status, stored_at)
select generation_id, 'crowd-' || number, 0, 'queued', now() from given
"""


async def in_flight(hub: Sandbox, database_url: str, size: int) -> list[Generation]:
    """That many (of about 1 KB in a list) of requests `crowd-1`, `crowd-2`, ..., as if submitted a moment ago."""
    model = hub.hub.catalog.get(MODEL)
    assert model is not None
    generations = [hub.hub.accept(model, _face(n), None, 1, at_once=False)[0] for n in range(1, size + 1)]
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(STORE, [generation.id for generation in generations], MODEL)
        await connection.execute("analyze requests, outputs")
    finally:
        await connection.close()
    return generations


def _face(number: int) -> dict[str, object]:
    return {**PARAMETERS, "prompt": f"a crowd, the face number {number}", "seed": number}


def end(hub: Sandbox, generations: Sequence[Generation]) -> None:
    """They succeed; who listens to the stream hears it."""
    for generation in generations:
        hub.hub._end(generation, SUCCEEDED)


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident."""
    return next(
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
        if line.startswith("VmHWM:")
    )
