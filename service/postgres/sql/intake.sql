-- name: insert_requests
-- Stores new requests with their first event; answers the ids that were new. A known id is left alone; of an id that
-- comes twice here, the first one counts. New rows are due at once, by whoever's clock; those that were
-- cancelled before they came are never due. Arrays come as text, here and wherever rows are written (`rows.columns`).
with incoming as (
    select distinct on (request_id) *
    from unnest(
        $1::text::text[], $2::text::text[], $3::text::text[], $4::bytea[], $5::text::boolean[],
        $6::text::smallint[], $7::text::text[], $8::bytea[], $9::text::numeric[], $10::text::boolean[],
        $11::text::smallint[], $12::text::timestamptz[], $13::bytea[], $14::text::text[], $15::text::text[],
        $16::text::text[], $17::text::text[], $18::text::uuid[], $19::bytea[]
    ) with ordinality as i (
        request_id, source, model, input, input_checked, num_generations, target_namespace, content_hash,
        seed, seed_chosen, priority, deadline, metadata, correlation_id, reply_to,
        traceparent, tracestate, event_id, event_body, place
    )
    order by request_id, place
),
inserted as (
    insert into requests (
        request_id, state, version, sequence, source, model, input, input_checked, num_generations, target_namespace,
        content_hash, seed, seed_chosen, priority, deadline, metadata, correlation_id, reply_to, traceparent,
        tracestate, received_at, next_attempt_at
    )
    select
        request_id, 'accepted', 1, 1, source, model, convert_from(input, 'UTF8')::json, input_checked, num_generations,
        target_namespace, content_hash, seed, seed_chosen, priority, deadline, convert_from(metadata, 'UTF8')::json,
        correlation_id, reply_to, traceparent, tracestate, $20,
        case when exists (select from early_cancels e where e.request_id = i.request_id) then 'infinity'::timestamptz
            else '-infinity' end
    from incoming i
    order by place -- `arrival` counts up in the order in which they came
    on conflict (request_id) do nothing
    returning request_id, next_attempt_at = 'infinity' as cancelled
),
announced as (
    insert into outbox (
        event_id, request_id, sequence, stored, terminal, routing_key, type, body, correlation_id, traceparent,
        tracestate, created_at
    )
    select
        event_id, request_id, 1, true, false, 'generation.accepted', 'generation.accepted', event_body,
        correlation_id, traceparent, tracestate, $20
    from incoming join inserted using (request_id)
    order by place
    returning row_id, request_id, sequence, stored
),
waiting as (
    insert into unpublished (row_id, request_id, sequence, stored)
    select row_id, request_id, sequence, stored from announced
)
select request_id, cancelled from inserted;

-- name: repeat_requests
-- The same requests again: reply addresses are replaced; of an ended one the terminal event goes out once more.
-- Answers the ids whose content is the same; any other known id is a conflict.
with incoming as (
    select * from unnest($1::text::text[], $2::bytea[], $3::text::text[], $4::text::text[])
        as i (request_id, content_hash, correlation_id, reply_to)
),
locked as (
    -- In the order of the ids, as every statement that locks several requests does: so no two of them embrace.
    select r.request_id
    from requests r
    join incoming i on r.request_id = i.request_id and r.content_hash = i.content_hash
    order by r.request_id
    for update of r
),
same as (
    update requests r
    set correlation_id = coalesce(i.correlation_id, r.correlation_id),
        reply_to = coalesce(i.reply_to, r.reply_to),
        version = r.version + 1
    from incoming i
    join locked l on l.request_id = i.request_id
    where r.request_id = i.request_id
    returning r.request_id, r.correlation_id, r.reply_to, r.finished_at
),
again as (
    insert into outbox (
        event_id, request_id, sequence, stored, repeated, terminal, routing_key, type, body, correlation_id,
        reply_to, traceparent, tracestate, created_at
    )
    select
        o.event_id, o.request_id, o.sequence, true, true, true, o.routing_key, o.type, o.body, s.correlation_id,
        s.reply_to, o.traceparent, o.tracestate, $5
    from same s
    join outbox o on o.request_id = s.request_id and o.terminal and o.stored and not o.repeated
    where s.finished_at is not null
    returning row_id, request_id, sequence, stored
),
waiting as (
    insert into unpublished (row_id, request_id, sequence, stored)
    select row_id, request_id, sequence, stored from again
)
select s.request_id, s.finished_at is not null and a.request_id is null as unanswered
from same s
left join again a on a.request_id = s.request_id;

-- name: known_requests
-- Which of these ids are stored.
select request_id from requests where request_id = any($1::text[]);

-- name: insert_answers
-- Events that belong to no stored request: rejections. The transaction has its id before it takes a row id, or who
-- follows the outbox could take its rows for holes that stay (`domain/feed.py`).
with begun as materialized (
    select pg_current_xact_id() as transaction
),
answers as (
    insert into outbox (
        event_id, request_id, sequence, stored, terminal, routing_key, type, body, correlation_id, reply_to,
        traceparent, tracestate, created_at
    )
    select event_id, request_id, 1, false, true, routing_key, type, body, correlation_id, reply_to, traceparent,
        tracestate, $10
    from unnest(
        $1::text::uuid[], $2::text::text[], $3::text::text[], $4::text::text[], $5::bytea[], $6::text::text[],
        $7::text::text[], $8::text::text[], $9::text::text[]
    ) as i (event_id, request_id, routing_key, type, body, correlation_id, reply_to, traceparent, tracestate)
    cross join begun
    returning row_id, request_id, sequence, stored
)
insert into unpublished (row_id, request_id, sequence, stored)
select row_id, request_id, sequence, stored from answers;
