-- name: find_requests
-- Requests as their rows stand, with their outputs; a row for each output.
select
    r.request_id, r.version, r.state::text, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause::text, r.stop_requested_at,
    r.arrival, r.priority, r.deadline, r.attempted_at, r.claimed_by, r.claim_expires_at, r.next_attempt_at, r.doubted_at,
    o.index, o.generation_id, o.status::text, o.media_type, o.url, o.error as output_error, o.lost, o.missing_since
from requests r
left join outputs o on o.request_id = r.request_id
where r.request_id = any($1::text[])
order by r.arrival desc, o.index;

-- name: page_requests
-- The newest $3 requests of these states that came before the arrival $2. Each state is a walk down its own part of one
-- index, so a page costs the same however many requests there are. (`coalesce`: see the migration 0007.)
with page as (
    select found.request_id, found.arrival
    from unnest($1::text[]::request_state[]) as s (state)
    cross join lateral (
        select r.request_id, r.arrival
        from requests r
        where coalesce(r.state, 'accepted') = s.state and r.arrival < $2
        order by r.arrival desc
        limit $3
    ) as found
    order by found.arrival desc
    limit $3
)
select
    r.request_id, r.version, r.state::text, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause::text, r.stop_requested_at,
    r.arrival, r.priority, r.deadline, r.attempted_at, r.claimed_by, r.claim_expires_at, r.next_attempt_at, r.doubted_at,
    o.index, o.generation_id, o.status::text, o.media_type, o.url, o.error as output_error, o.lost, o.missing_since
from page
join requests r on r.request_id = page.request_id
left join outputs o on o.request_id = r.request_id
order by page.arrival desc, o.index;

-- name: content_of
-- What idempotency compares, of one request.
select content_hash from requests where request_id = $1;

-- name: early_cancel
-- Whether a cancel waits for this request.
select exists (select from early_cancels where request_id = $1);

-- name: events_of
-- What was, or is to be, told of a request; and the answers to messages with its id that were not accepted, with their
-- bodies. Terminal events that were sent again are not in it.
select o.type, o.sequence, o.created_at, u.row_id is null as published, u.failures, u.next_attempt_at, o.answer
from (
    select row_id, type, sequence, created_at, null::bytea as answer
    from outbox
    where request_id = $1 and stored and not repeated
    union all
    select row_id, type, sequence, created_at, body from outbox where request_id = $1 and not stored
) as o
left join lateral (
    select w.row_id, w.failures, w.next_attempt_at from unpublished w where w.row_id = o.row_id offset 0
) as u on true
order by o.row_id;
