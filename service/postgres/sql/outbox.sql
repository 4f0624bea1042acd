-- name: due_events
-- The oldest events that may be published now. One that waits for its back-off holds back only its own request; the
-- answer to a message that was not accepted belongs to none, whatever id it names. For what has failed one index fits,
-- and it holds nothing else: so no plan goes through the whole backlog for each event of it. `offset 0` keeps the join
-- one by one: no plan, made on a quiet night, goes through the outbox. Without those ($3) that are being published.
select
    u.row_id, o.event_id, u.request_id, u.sequence, u.stored, o.routing_key, o.type, o.body, o.terminal,
    o.correlation_id, o.reply_to, o.traceparent, o.tracestate, o.created_at, u.failures
from unpublished u
cross join lateral (
    select
        e.event_id::text, e.routing_key, e.type, e.body, e.terminal, e.correlation_id, e.reply_to, e.traceparent,
        e.tracestate, e.created_at
    from outbox e
    where e.row_id = u.row_id
    offset 0
) o
where u.next_attempt_at <= $1
    and u.row_id <> all ($3::bigint[])
    and not exists (
        select from unpublished p
        where p.next_attempt_at > '-infinity'
            and p.next_attempt_at > $1
            and p.request_id = u.request_id
            and p.stored
            and u.stored
            and p.sequence < u.sequence
    )
order by u.row_id
limit $2;

-- name: mark_published
-- What the broker has confirmed. Written only in the term in which it was published; answers how many were.
with marked as (
    delete from unpublished
    where row_id = any($1::bigint[]) and exists (select from leadership l where l.lane = $2 and l.term = $3)
    returning row_id
)
select count(*) from marked;

-- name: mark_failed
-- What could not be published waits for a back-off of its own.
update unpublished u
set failures = u.failures + 1, next_attempt_at = f.next_attempt_at
from unnest($1::text::bigint[], $2::text::timestamptz[]) as f (row_id, next_attempt_at)
where u.row_id = f.row_id;

-- name: outbox_backlog
-- How many events wait to be published, counted up to $1.
select count(*) from (select from unpublished limit $1) as waiting;

-- name: last_event
-- The newest of the events that wait to be published.
select max(row_id) from unpublished;
