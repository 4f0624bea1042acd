-- name: claim
-- Takes up to $1 due requests for one replica: sources in turn, from the one behind $7 on, within a source by priority,
-- then by age; none of the namespaces $5, or only those of $6. What comes up first and does not fit into the limits
-- lets nothing behind it pass, or the small would starve the large.
-- Sources and their namespaces come from a loose index scan, so the cost follows their number and not that of requests;
-- from n of them, 2 * $1 candidates are sure to come when 2 * $1 - n + 1 of each are looked at. More candidates than
-- wanted, so that replicas that claim at the same moment do not leave one of them empty-handed; where they do all the
-- same, the claim was `contended`. What makes a candidate ours is its version, never `state = 'accepted'` once more: that
-- would invite a scan of all that wait. Content without a mark of ours goes one at a time: none while another is
-- submitting or in doubt.
-- $9 POSTs a second (a tenth of a second's worth at once) and $10 generations in flight, of all replicas of the lane $8:
-- with either, the caller holds the row of `lock_limits`. Answers one row at the least, with what there is to wait for.
with recursive queues as (
    (select source, coalesce(target_namespace, '') as namespace
     from requests
     where state = 'accepted' and next_attempt_at = '-infinity'
     order by source, coalesce(target_namespace, '')
     limit 1)
    union all
    select following.source, following.namespace
    from queues q
    cross join lateral (
        select r.source, coalesce(r.target_namespace, '') as namespace
        from requests r
        where r.state = 'accepted' and r.next_attempt_at = '-infinity'
            and (r.source, coalesce(r.target_namespace, '')) > (q.source, q.namespace)
        order by r.source, coalesce(r.target_namespace, '')
        limit 1
    ) as following
),
open_queues as (
    select source, namespace from queues where namespace <> all ($5::text[]) and ($6::text is null or namespace = $6)
),
budget as materialized (
    select
        moment,
        greatest(0, extract(epoch from l.not_before - moment))::float8 as hold_s,
        case when $9::float8 is not null then
            least(greatest(1, $9 / 10), l.tokens + greatest(0, extract(epoch from moment - l.refilled_at))::float8 * $9)
        end as tokens,
        case when $10::integer is not null then
            (select count(*) from (select from outputs where status in ('queued', 'processing') limit $10) as active)
            + (select coalesce(sum(num_generations), 0) from requests where state = 'submitting')
            + (select coalesce(sum(num_generations), 0) from requests where state = 'in_doubt')
        end as in_flight
    from (select clock_timestamp() as moment) as present
    left join limits l on l.lane = $8
),
allowance as (
    select
        moment, hold_s, tokens, in_flight,
        case when hold_s > 0 then 0 else least($1, floor(tokens)::bigint) end as posts
    from budget
),
waiting as (
    select
        c.request_id, c.version, c.source, c.arrival, c.unmarked_content, c.mark,
        row_number() over (partition by c.source order by c.priority desc, c.arrival) as turn
    from open_queues q
    cross join lateral (
        select
            r.request_id, r.version, r.source, r.priority, r.arrival,
            case when not r.seed_chosen then r.content_hash end as unmarked_content,
            case when r.seed_chosen then r.arrival end as mark
        from requests r
        where r.state = 'accepted' and r.next_attempt_at = '-infinity'
            and r.source = q.source and coalesce(r.target_namespace, '') = q.namespace
            and r.deadline > $4
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
        limit (select greatest(1, 2 * $1::bigint - count(distinct source) + 1) from open_queues)
    ) c
),
candidates as (
    select request_id, version, row_number() over (order by turn, source <= $7, source) as place
    from (
        select
            request_id, version, source, turn,
            row_number() over (partition by unmarked_content, mark order by turn, arrival) as twin
        from waiting
    ) as apart
    where twin = 1
    order by place
    limit 2 * $1
),
locked as (
    select r.request_id, r.num_generations, c.place
    from requests r
    join candidates c on c.request_id = r.request_id and c.version = r.version
    order by c.place
    limit (select posts from allowance)
    for update of r skip locked
),
fitting as (
    select
        request_id, place,
        sum(num_generations) over (order by place) as generations,
        row_number() over (order by place) as nth
    from locked
),
claimed as (
    update requests r
    set state = 'submitting',
        version = r.version + 1,
        attempts = r.attempts + 1,
        attempted_at = $4,
        claimed_by = $2,
        claim_expires_at = clock_timestamp() + make_interval(secs => $3)
    from fitting f
    cross join allowance a
    where r.request_id = f.request_id
        and (a.in_flight is null or a.in_flight + f.generations <= $10 or (a.in_flight = 0 and f.nth = 1))
    returning
        f.place, r.request_id, r.version, r.state::text, r.sequence, r.source, r.model, r.num_generations,
        r.received_at, r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata,
        r.correlation_id, r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause::text,
        r.stop_requested_at, r.input, r.input_checked, r.seed_chosen
),
spent as (
    update limits l
    set tokens = a.tokens - (select count(*) from claimed), refilled_at = a.moment
    from allowance a
    where l.lane = $8 and a.tokens is not null
)
select
    a.hold_s,
    (select count(*) from locked) < least(a.posts, (select count(*) from candidates)) as contended,
    coalesce(greatest(0, (1 - a.tokens + (select count(*) from claimed)) / $9), 0) as wait_s,
    c.request_id, c.version, c.state, c.sequence, c.source, c.model, c.num_generations, c.received_at,
    c.target_namespace, c.seed, c.attempts, c.submitted_at, c.finished_at, c.error, c.metadata, c.correlation_id,
    c.reply_to, c.traceparent, c.tracestate, c.doubt_looks, c.stop_cause, c.stop_requested_at, c.input,
    c.input_checked, c.seed_chosen
from allowance a
left join claimed c on true
order by c.place;

-- name: load_requests
-- Requests with their outputs, a row for each output (one row with nulls where there is none yet).
select
    r.request_id, r.version, r.state::text, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause::text, r.stop_requested_at,
    o.index, o.generation_id, o.status::text, o.media_type, o.url, o.error as output_error, o.lost, o.missing_since
from requests r
left join outputs o on o.request_id = r.request_id
where r.request_id = any($1::text[])
order by r.request_id, o.index;

-- name: load_owners
-- The requests that these generations belong to, with all of their outputs.
select
    r.request_id, r.version, r.state::text, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause::text, r.stop_requested_at,
    o.index, o.generation_id, o.status::text, o.media_type, o.url, o.error as output_error, o.lost, o.missing_since
from (select distinct request_id from outputs where generation_id = any($1::text[])) as owner
join requests r on r.request_id = owner.request_id
join outputs o on o.request_id = owner.request_id
order by r.request_id, o.index;

-- name: apply
-- Writes decisions: requests whose version is still the one decided on, their new outputs, those that changed, their
-- events. Answers the ids that were written; the others have changed meanwhile and are to be decided anew. Arrays come
-- as text (`rows.columns`).
with decided as (
    select *
    from unnest(
        $1::text::text[], $2::text::integer[], $3::text::request_state[], $4::text::integer[],
        $5::text::timestamptz[], $6::text::timestamptz[], $7::text::json[], $8::text::timestamptz[],
        $9::text::smallint[], $10::text::stop_cause[], $11::text::timestamptz[]
    ) as d (
        request_id, version, state, sequence, submitted_at, finished_at, error, retry_at, doubt_looks, stop_cause,
        stop_requested_at
    )
),
foreigners as ( -- a generation belongs to one request, whatever the hub says: such a decision is not written
    select n.request_id
    from unnest($12::text::text[], $13::text::text[]) as n (generation_id, request_id)
    join outputs o on o.generation_id = n.generation_id and o.request_id <> n.request_id
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
        doubted_at = case when d.state = 'in_doubt' then coalesce(r.doubted_at, $40::timestamptz) end,
        stop_cause = d.stop_cause,
        stop_requested_at = d.stop_requested_at,
        claimed_by = case when d.state = 'submitting' then r.claimed_by end,
        claim_expires_at = case when d.state = 'submitting' then r.claim_expires_at end
    from decided d
    where r.request_id = d.request_id and r.version = d.version
        and d.request_id not in (select request_id from foreigners)
    returning r.request_id, r.target_namespace
),
added as (
    insert into outputs (
        generation_id, request_id, index, status, namespace, media_type, url, error, lost, missing_since, stored_at,
        ended_at
    )
    select o.generation_id, o.request_id, o.index, o.status, u.target_namespace, o.media_type, o.url, o.error, o.lost,
        o.missing_since, $40::timestamptz,
        case when o.status in ('queued', 'processing') then null else $40::timestamptz end
    from unnest(
        $12::text::text[], $13::text::text[], $14::text::smallint[], $15::text::output_status[],
        $16::text::text[], $17::text::text[], $18::text::text[], $19::text::boolean[], $20::text::timestamptz[]
    ) as o (generation_id, request_id, index, status, media_type, url, error, lost, missing_since)
    join updated u on u.request_id = o.request_id
),
changed as ( -- an upsert of both costs twice as much for each that is there
    update outputs
    set status = o.status,
        media_type = o.media_type,
        url = o.url,
        error = o.error,
        lost = o.lost,
        missing_since = o.missing_since,
        ended_at = case when o.status in ('queued', 'processing') then null else $40::timestamptz end
    from unnest(
        $21::text::text[], $22::text::text[], $23::text::smallint[], $24::text::output_status[],
        $25::text::text[], $26::text::text[], $27::text::text[], $28::text::boolean[], $29::text::timestamptz[]
    ) as o (generation_id, request_id, index, status, media_type, url, error, lost, missing_since)
    join updated u on u.request_id = o.request_id
    where outputs.request_id = o.request_id
        and outputs.index = o.index
        and outputs.generation_id = o.generation_id
        and outputs.status in ('queued', 'processing')
),
announced as (
    insert into outbox (
        event_id, request_id, sequence, stored, terminal, routing_key, type, body, correlation_id, reply_to,
        traceparent, tracestate, created_at
    )
    select e.event_id, e.request_id, e.sequence, true, e.terminal, e.type, e.type, e.body, e.correlation_id,
        e.reply_to, e.traceparent, e.tracestate, $40::timestamptz
    from unnest(
        $30::text::uuid[], $31::text::text[], $32::text::integer[], $33::text::boolean[], $34::text::text[],
        $35::bytea[], $36::text::text[], $37::text::text[], $38::text::text[], $39::text::text[]
    ) with ordinality as e (
        event_id, request_id, sequence, terminal, type, body, correlation_id, reply_to, traceparent, tracestate, place
    )
    join updated u on u.request_id = e.request_id
    order by e.place -- the relay publishes by row_id; a join promises no order
    returning row_id, request_id, sequence, stored
),
waiting as (
    insert into unpublished (row_id, request_id, sequence, stored)
    select row_id, request_id, sequence, stored from announced
)
select request_id from updated;

-- name: expired_claims
-- Requests whose submitter has not said how its POST ended, and whose claim is over, with the attempt it was.
select request_id, attempts from requests
where state = 'submitting' and claim_expires_at <= coalesce($1::timestamptz, clock_timestamp())
order by claim_expires_at
limit $2;

-- name: lost_claim
-- What a replica claimed at that moment and has not let go, with the attempt it was: where the answer to the claim was
-- lost, nobody has POSTed it.
select request_id, attempts from requests
where state = 'submitting' and claimed_by = $1 and attempted_at = $2;

-- name: insert_orphans
-- Ends of generations that nobody here has (yet): kept until their ids are stored, or until they are old.
insert into orphan_events (generation_id, status, media_type, url, error, received_at)
select generation_id, status, media_type, url, error, $6
from unnest($1::text::text[], $2::text::output_status[], $3::text::text[], $4::text::text[], $5::text::text[])
    as i (generation_id, status, media_type, url, error)
on conflict (generation_id) do nothing;

-- name: heard_of
-- What the stream already said of these generations, and since when it is open (one row with nulls at the least).
select l.stream_opened_at, e.generation_id, e.status::text, e.media_type, e.url, e.error
from (select max(stream_opened_at) as stream_opened_at from leadership where lane = $2) as l
left join orphan_events e on e.generation_id = any($1::text[]);

-- name: matched_orphans
-- Orphans whose generation has been stored meanwhile: the interleaving in which both transactions miss each other.
select e.generation_id, e.status::text, e.media_type, e.url, e.error
from orphan_events e
join outputs o on o.generation_id = e.generation_id
where o.status in ('queued', 'processing')
limit $1;

-- name: in_flight
-- Every generation that the hub has not ended for us, and whether it has denied knowing it. Read in parts, for there may
-- be 100,000.
select namespace, generation_id, missing_since is not null as denied
from outputs
where status in ('queued', 'processing');

-- name: count_by_state
-- How many requests wait, and for what; ended ones are not counted.
select state::text, count(*) from requests where finished_at is null group by state;

-- name: pending
-- What a replica should wake up for: back-offs that are over, requests to claim, events to publish, claims that ran
-- out, doubts, stops, cancels that came before their request.
select
    exists (
        select from requests
        where state = 'accepted' and next_attempt_at > '-infinity' and next_attempt_at <= $1
    ) as retries,
    exists (select from requests where state = 'accepted' and next_attempt_at = '-infinity') as requests,
    (select row_id from unpublished where next_attempt_at <= $1 order by row_id limit 1) is not null as events,
    exists (select from requests where state = 'submitting' and claim_expires_at <= clock_timestamp()) as claims,
    exists (select from requests where state = 'in_doubt') as doubts,
    exists (select from requests where state = 'cancelling' and next_attempt_at <= $1)
        or exists (select from requests where finished_at is null and stop_cause is null and deadline <= $1) as stops,
    exists (select from early_cancels e join requests r on r.request_id = e.request_id) as cancels;

-- name: doubts
-- Requests whose POST may have been accepted, the oldest doubts first.
select
    r.request_id, r.version, r.state::text, r.sequence, r.source, r.model, r.num_generations, r.received_at,
    r.target_namespace, r.seed, r.attempts, r.submitted_at, r.finished_at, r.error, r.metadata, r.correlation_id,
    r.reply_to, r.traceparent, r.tracestate, r.doubt_looks, r.stop_cause::text, r.stop_requested_at,
    r.input, r.seed_chosen, r.attempted_at, r.doubted_at
from requests r
where r.state = 'in_doubt'
order by r.doubted_at
limit $1;

-- name: owned
-- Which of these generations are outputs of ours.
select generation_id, request_id from outputs where generation_id = any($1::text[]);
