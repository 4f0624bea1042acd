-- name: overdue
-- Requests whose deadline has passed, and that nothing has stopped yet.
select request_id from requests
where finished_at is null and stop_cause is null and deadline <= $1
order by deadline
limit $2;

-- name: stopping
-- Requests whose outputs the hub is to end now, with their outputs, a row for each.
select
    r.request_id, r.version, r.state::text, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause::text, r.stop_requested_at,
    o.index, o.generation_id, o.status::text, o.media_type, o.url, o.error as output_error, o.lost, o.missing_since
from (
    select request_id from requests
    where state = 'cancelling' and next_attempt_at <= $1
    order by next_attempt_at
    limit $2
) as due
join requests r on r.request_id = due.request_id
join outputs o on o.request_id = due.request_id
order by r.request_id, o.index;

-- name: keep_early_cancels
-- Cancels of requests that were not known. One that has come since is met by the look that follows: so its cancel is
-- kept like the others.
insert into early_cancels (request_id, received_at)
select distinct unnest($1::text[]), $2::timestamptz
on conflict (request_id) do nothing;

-- name: matched_cancels
-- Early cancels whose request has come meanwhile.
select e.request_id from early_cancels e join requests r on r.request_id = e.request_id limit $1;

-- name: forget_cancels
-- Early cancels that have been applied.
delete from early_cancels where request_id = any($1::text[]);

-- name: repeat_ends
-- The terminal events of ended requests once more: to all, and to where the cancel asks for it or the request did.
-- Answers the ids whose event was there.
with again as (
    insert into outbox (
        event_id, request_id, sequence, stored, repeated, terminal, routing_key, type, body, correlation_id,
        reply_to, traceparent, tracestate, created_at
    )
    select
        o.event_id, o.request_id, o.sequence, true, true, true, o.routing_key, o.type, o.body,
        coalesce(i.correlation_id, r.correlation_id), coalesce(i.reply_to, r.reply_to), o.traceparent, o.tracestate, $4
    from unnest($1::text::text[], $2::text::text[], $3::text::text[]) as i (request_id, correlation_id, reply_to)
    join requests r on r.request_id = i.request_id and r.finished_at is not null
    join outbox o on o.request_id = r.request_id and o.terminal and o.stored and not o.repeated
    returning row_id, request_id, sequence, stored
)
insert into unpublished (row_id, request_id, sequence, stored)
select row_id, request_id, sequence, stored from again
returning request_id;
