-- name: due_events
-- The oldest events that may be published now. One that waits for its back-off holds back only its own request; the
-- answer to a message that was not accepted belongs to none, whatever id it names. For what has failed one index fits,
-- and it holds nothing else: so no plan goes through the whole backlog for each event of it.
select
    o.row_id, o.event_id, o.request_id, o.sequence, o.stored, o.routing_key, o.type, o.body, o.terminal,
    o.correlation_id, o.reply_to, o.traceparent, o.tracestate, o.failures
from outbox o
where o.published_at is null
    and o.next_attempt_at <= $1
    and not exists (
        select from outbox p
        where p.next_attempt_at > '-infinity'
            and p.next_attempt_at > $1
            and p.request_id = o.request_id
            and p.stored
            and o.stored
            and p.sequence < o.sequence
    )
order by o.row_id
limit $2;

-- name: mark_published
-- What the broker has confirmed. Written only in the term in which it was published; answers how many were.
with marked as (
    update outbox o
    set published_at = $2, next_attempt_at = '-infinity'
    where o.row_id = any($1::bigint[])
        and o.published_at is null
        and exists (select from leadership l where l.lane = $3 and l.term = $4)
    returning o.row_id
)
select count(*) from marked;

-- name: mark_failed
-- What could not be published waits for a back-off of its own.
update outbox o
set failures = o.failures + 1, next_attempt_at = f.next_attempt_at
from unnest($1::bigint[], $2::timestamptz[]) as f (row_id, next_attempt_at)
where o.row_id = f.row_id and o.published_at is null;

-- name: outbox_backlog
-- How many events wait to be published, counted up to $1.
select count(*) from (select from outbox where published_at is null limit $1) as waiting;
