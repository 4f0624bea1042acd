"""What is measured: scenarios A to E of the yardstick, and those that only drover has an answer to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scenario:
    """`rate` None: a burst that waits in the queue before the service starts. `delay_s` is the hub's."""

    letter: str
    words: str
    requests: int
    delay_s: float
    rate: float | None = None
    outputs: int = 1
    ended: int = 0  # requests that the database holds from before
    rising: bool = False  # ids that begin with the time (UUIDv7), old and new; else they are random (UUIDv4)
    limit_s: float = 300.0


SCENARIOS = {
    scenario.letter: scenario
    for scenario in (
        Scenario("A", "burst of 5,000, generations of 2 s", 5_000, 2.0),
        Scenario("B", "100/s for 30 s, generations of 1 s", 3_000, 1.0, rate=100),
        Scenario("C", "burst of 20,000, generations of 60 s: all in flight", 20_000, 60.0),
        Scenario("D", "burst of 20,000, generations of 2 s", 20_000, 2.0),
        Scenario("E", "1,000/s for 15 s, generations of 1 s", 15_000, 1.0, rate=1_000),
        Scenario("F", "burst of 100,000, generations of 240 s: all in flight", 100_000, 240.0, limit_s=900.0),
        Scenario("G", "A with 1,000,000 ended requests in the database", 5_000, 2.0, ended=1_000_000),
        Scenario("R", "G with ids that rise with time", 5_000, 2.0, ended=1_000_000, rising=True),
        Scenario("H", "B with 1,000,000 ended requests in the database", 3_000, 1.0, rate=100, ended=1_000_000),
        Scenario("O", "burst of 2,000 with 4 outputs each, generations of 2 s", 2_000, 2.0, outputs=4),
    )
}
USUAL = "ABDEO"


def steady(rate: float) -> Scenario:
    """So many a second for 15 s: a point of the curve of latency over throughput."""
    return Scenario(f"{rate:g}/s", f"{rate:g}/s for 15 s, generations of 1 s", int(15 * rate), 1.0, rate=rate)


# An ended request as the service leaves it, and its three events: so many at once, the oldest first.
NAMING = """
create or replace function pg_temp.old_id(n integer, rising boolean) returns text language sql immutable
return case when rising then lpad(n::text, 36, '0') else md5(n::text)::uuid::text end
"""
ENDED = """
insert into requests (
    request_id, state, version, sequence, source, model, input, input_checked, num_generations, content_hash, seed,
    seed_chosen, priority, deadline, received_at, attempts, attempted_at, next_attempt_at, submitted_at, finished_at
)
select
    pg_temp.old_id(n, $3), 'succeeded', 4, 3, 'bench', 'ltx-2-3-quality-text-to-video',
    json_build_object('prompt', 'old ' || n || repeat(' story', 40)), true, 1, sha256(n::text::bytea), n, false, 4,
    moment + interval '1 day', moment, 1, moment, '-infinity', moment, moment + interval '1 minute'
from generate_series($1::integer, $2::integer) n, lateral (select now() - make_interval(secs => n) as moment) m;
"""
OUTPUTS = """
insert into outputs (generation_id, request_id, index, status, media_type, url, stored_at, ended_at)
select
    gen_random_uuid()::text, pg_temp.old_id(n, $3), 0, 'succeeded', 'video', repeat('https://example.test/', 10), now(),
    now()
from generate_series($1::integer, $2::integer) n
"""
EVENTS = """
insert into outbox (event_id, request_id, sequence, stored, terminal, routing_key, type, body, created_at)
select gen_random_uuid(), pg_temp.old_id(n, $3), s, true, s = 3, 'generation.any', 'generation.any',
    convert_to(repeat('an event of some length. ', 30), 'UTF8'), now()
from generate_series($1::integer, $2::integer) n, generate_series(1, 3) s
"""
FILLING = (ENDED, OUTPUTS, EVENTS)
