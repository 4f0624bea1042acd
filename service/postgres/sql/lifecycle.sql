-- name: claim
-- Takes up to $1 waiting requests for one replica: sources in turn, within a source by priority, then by age.
-- The sources come from a loose index scan, so the cost follows the number of sources and not of requests. What makes a
-- candidate ours is its version, never `state = 'accepted'` once more: that would invite a scan of all that wait.
-- Content without a mark of ours goes one at a time: none while another is submitting or in doubt. There are more
-- candidates than wanted, so that replicas that claim at the same moment do not leave one of them empty-handed.
with recursive sources as (
    (select source from requests where state = 'accepted' order by source limit 1)
    union all
    select (select r.source from requests r where r.state = 'accepted' and r.source > s.source
            order by r.source limit 1)
    from sources s
    where s.source is not null
),
waiting as (
    select
        c.request_id, c.version, c.turn, c.arrival,
        row_number() over (partition by c.unmarked_content, c.mark order by c.turn, c.arrival) as twin
    from sources s
    cross join lateral (
        select
            r.request_id, r.version, r.arrival,
            case when not r.seed_chosen then r.content_hash end as unmarked_content,
            case when r.seed_chosen then r.arrival end as mark,
            row_number() over (order by r.priority desc, r.arrival) as turn
        from requests r
        where r.state = 'accepted' and r.source = s.source and r.next_attempt_at <= $4 and r.deadline > $4
            and (
                r.seed_chosen
                or not exists (
                    select from requests d
                    where d.content_hash = r.content_hash
                        and d.state in ('submitting', 'in_doubt')
                        and not d.seed_chosen
                )
            )
        order by r.priority desc, r.arrival
        limit 4 * $1
    ) c
    where s.source is not null
),
candidates as (
    select request_id, version, turn, arrival from waiting where twin = 1 order by turn, arrival limit 4 * $1
),
locked as (
    select r.request_id
    from requests r
    join candidates c on c.request_id = r.request_id and c.version = r.version
    order by c.turn, c.arrival
    limit $1
    for update of r skip locked
)
update requests r
set state = 'submitting',
    version = r.version + 1,
    attempts = r.attempts + 1,
    attempted_at = $4,
    claimed_by = $2,
    claim_expires_at = clock_timestamp() + make_interval(secs => $3)
from locked l
where r.request_id = l.request_id
returning
    r.request_id, r.version, r.state, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause, r.stop_requested_at, r.input, r.input_checked, r.seed_chosen;

-- name: load_requests
-- Requests with their outputs, a row for each output (one row with nulls where there is none yet).
select
    r.request_id, r.version, r.state, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause, r.stop_requested_at,
    o.index, o.generation_id, o.status, o.media_type, o.url, o.error as output_error, o.lost, o.missing_since
from requests r
left join outputs o on o.request_id = r.request_id
where r.request_id = any($1::text[])
order by r.request_id, o.index;

-- name: load_owners
-- The requests that these generations belong to, with all of their outputs.
select
    r.request_id, r.version, r.state, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause, r.stop_requested_at,
    o.index, o.generation_id, o.status, o.media_type, o.url, o.error as output_error, o.lost, o.missing_since
from (select distinct request_id from outputs where generation_id = any($1::text[])) as owner
join requests r on r.request_id = owner.request_id
join outputs o on o.request_id = owner.request_id
order by r.request_id, o.index;

-- name: apply
-- Writes decisions: requests whose version is still the one decided on, their outputs, their events. Answers the ids
-- that were written; the others have changed meanwhile and are to be decided anew.
with decided as (
    select *
    from unnest(
        $1::text[], $2::integer[], $3::request_state[], $4::integer[], $5::timestamptz[], $6::timestamptz[],
        $7::json[], $8::timestamptz[], $9::smallint[], $10::stop_cause[], $11::timestamptz[]
    ) as d (
        request_id, version, state, sequence, submitted_at, finished_at, error, retry_at, doubt_looks, stop_cause,
        stop_requested_at
    )
),
updated as (
    update requests r
    set state = d.state,
        version = r.version + 1,
        sequence = d.sequence,
        submitted_at = d.submitted_at,
        finished_at = d.finished_at,
        error = d.error,
        next_attempt_at = coalesce(d.retry_at, r.next_attempt_at),
        doubt_looks = d.doubt_looks,
        doubted_at = case when d.state = 'in_doubt' then coalesce(r.doubted_at, $31::timestamptz) end,
        stop_cause = d.stop_cause,
        stop_requested_at = d.stop_requested_at,
        claimed_by = case when d.state = 'submitting' then r.claimed_by end,
        claim_expires_at = case when d.state = 'submitting' then r.claim_expires_at end
    from decided d
    where r.request_id = d.request_id and r.version = d.version
    returning r.request_id, r.target_namespace
),
reported as (
    insert into outputs (
        generation_id, request_id, index, status, namespace, media_type, url, error, lost, missing_since, stored_at,
        ended_at
    )
    select o.generation_id, o.request_id, o.index, o.status, u.target_namespace, o.media_type, o.url, o.error, o.lost,
        o.missing_since, $31::timestamptz,
        case when o.status in ('queued', 'processing') then null else $31::timestamptz end
    from unnest(
        $12::text[], $13::text[], $14::smallint[], $15::output_status[], $16::text[], $17::text[], $18::text[],
        $19::boolean[], $20::timestamptz[]
    ) as o (generation_id, request_id, index, status, media_type, url, error, lost, missing_since)
    join updated u on u.request_id = o.request_id
    where not exists ( -- a generation belongs to one request, whatever the hub says
        select from outputs x where x.generation_id = o.generation_id and x.request_id <> o.request_id
    )
    on conflict (request_id, index) do update
    set status = excluded.status,
        media_type = excluded.media_type,
        url = excluded.url,
        error = excluded.error,
        lost = excluded.lost,
        missing_since = excluded.missing_since,
        ended_at = excluded.ended_at
    where outputs.generation_id = excluded.generation_id and outputs.status in ('queued', 'processing')
),
announced as (
    insert into outbox (
        event_id, request_id, sequence, stored, terminal, routing_key, type, body, correlation_id, reply_to,
        traceparent, tracestate, next_attempt_at
    )
    select e.event_id, e.request_id, e.sequence, true, e.terminal, e.type, e.type, e.body, e.correlation_id,
        e.reply_to, e.traceparent, e.tracestate, '-infinity'
    from unnest(
        $21::uuid[], $22::text[], $23::integer[], $24::boolean[], $25::text[], $26::bytea[], $27::text[], $28::text[],
        $29::text[], $30::text[]
    ) with ordinality as e (
        event_id, request_id, sequence, terminal, type, body, correlation_id, reply_to, traceparent, tracestate, place
    )
    join updated u on u.request_id = e.request_id
    order by e.place -- the relay publishes by row_id; a join promises no order
)
select request_id from updated;

-- name: expired_claims
-- Requests whose submitter has not said how its POST ended, and whose claim is over, with the attempt it was.
select request_id, attempts from requests
where state = 'submitting' and claim_expires_at <= coalesce($1::timestamptz, clock_timestamp())
order by claim_expires_at
limit $2;

-- name: insert_orphans
-- Ends of generations that nobody here has (yet): kept until their ids are stored, or until they are old.
insert into orphan_events (generation_id, status, media_type, url, error, received_at)
select generation_id, status, media_type, url, error, $6
from unnest($1::text[], $2::output_status[], $3::text[], $4::text[], $5::text[])
    as i (generation_id, status, media_type, url, error)
on conflict (generation_id) do nothing;

-- name: heard_of
-- What the stream already said of these generations, and since when it is open (one row with nulls at the least).
select l.stream_opened_at, e.generation_id, e.status, e.media_type, e.url, e.error
from (select max(stream_opened_at) as stream_opened_at from leadership where lane = $2) as l
left join orphan_events e on e.generation_id = any($1::text[]);

-- name: matched_orphans
-- Orphans whose generation has been stored meanwhile: the interleaving in which both transactions miss each other.
select e.generation_id, e.status, e.media_type, e.url, e.error
from orphan_events e
join outputs o on o.generation_id = e.generation_id
where o.status in ('queued', 'processing')
limit $1;

-- name: in_flight
-- Every generation that the hub has not ended for us, stored before $1, and those of them that it has denied knowing: one
-- row a namespace, for there may be 100,000.
select
    namespace,
    array_agg(generation_id) as generation_ids,
    coalesce(array_agg(generation_id) filter (where missing_since is not null), '{}') as denied
from outputs
where status in ('queued', 'processing') and stored_at < $1
group by namespace;

-- name: count_by_state
-- How many requests wait, and for what; ended ones are not counted.
select state::text, count(*) from requests where finished_at is null group by state;

-- name: pending
-- What a replica should wake up for: requests to claim, events to publish, claims that ran out, doubts, stops, cancels
-- that came before their request.
select
    exists (select from requests where state = 'accepted' and next_attempt_at <= $1) as requests,
    exists (select from outbox where published_at is null and next_attempt_at <= $1) as events,
    exists (select from requests where state = 'submitting' and claim_expires_at <= clock_timestamp()) as claims,
    exists (select from requests where state = 'in_doubt') as doubts,
    exists (select from requests where state = 'cancelling' and next_attempt_at <= $1)
        or exists (select from requests where finished_at is null and stop_cause is null and deadline <= $1) as stops,
    exists (select from early_cancels e join requests r on r.request_id = e.request_id) as cancels;

-- name: doubts
-- Requests whose POST may have been accepted, the oldest doubts first.
select
    r.request_id, r.version, r.state, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause, r.stop_requested_at,
    r.input, r.seed_chosen, r.attempted_at, r.doubted_at
from requests r
where r.state = 'in_doubt'
order by r.doubted_at
limit $1;

-- name: owned
-- Which of these generations are outputs of ours.
select generation_id, request_id from outputs where generation_id = any($1::text[]);
