-- The spine: requests, their outputs, the outbox, orphan events, leadership.

create type request_state as enum (
    'accepted', 'submitting', 'in_doubt', 'submitted', 'cancelling', 'succeeded', 'failed', 'cancelled', 'expired'
);
create type output_status as enum ('queued', 'processing', 'succeeded', 'failed', 'cancelled');

create table requests (
    request_id text primary key,
    arrival bigint generated always as identity,      -- age, for the order of claims and for paging
    state request_state not null,
    version integer not null,                         -- rises with every change; the guard of every decision
    sequence integer not null,                        -- of the last event
    source text not null,                             -- who asks: the AMQP user_id, else app_id
    model text not null,
    input json not null,                              -- as it came (json keeps numbers as written; jsonb would not)
    input_checked boolean not null,                   -- against the model's schema
    num_generations smallint not null,
    target_namespace text,
    content_hash bytea not null,                      -- what idempotency compares
    seed numeric,                                     -- given, or chosen by the service
    seed_chosen boolean not null,
    priority smallint not null,
    deadline timestamptz not null,
    metadata json,
    correlation_id text,
    reply_to text,
    traceparent text,
    tracestate text,
    received_at timestamptz not null,
    attempts integer not null default 0,
    attempted_at timestamptz,                         -- when the latest attempt was claimed
    claimed_by text,
    claim_expires_at timestamptz,
    next_attempt_at timestamptz not null,
    submitted_at timestamptz,
    finished_at timestamptz,
    error json,
    constraint finished_when_ended
        check ((finished_at is not null) = (state in ('succeeded', 'failed', 'cancelled', 'expired'))),
    constraint claimed_when_submitting
        check ((claim_expires_at is not null) = (state = 'submitting'))
);

-- claim: per source, by priority, then by age
create index requests_waiting on requests (source, priority desc, arrival) where state = 'accepted';
-- expired_claims
create index requests_claimed on requests (claim_expires_at) where state = 'submitting';
-- delete_ended_requests
create index requests_ended on requests (finished_at) where finished_at is not null;

create table outputs (
    generation_id text primary key,
    request_id text not null references requests on delete cascade,
    index smallint not null,
    status output_status not null,
    namespace text,                                   -- whose list at the hub shows it; null: the key's own
    media_type text,
    url text,
    error text,
    stored_at timestamptz not null,
    ended_at timestamptz,
    constraint ended_when_ended check ((ended_at is not null) = (status not in ('queued', 'processing')))
);
create index outputs_of_request on outputs (request_id);
-- in_flight
create index outputs_active on outputs (stored_at) where status in ('queued', 'processing');

create table outbox (
    row_id bigint generated always as identity primary key,
    event_id uuid not null,
    request_id text not null,
    sequence integer not null,
    stored boolean not null,                          -- false: the answer to a message that was not accepted
    repeated boolean not null default false,          -- a terminal event sent again
    terminal boolean not null,
    routing_key text,                                 -- null: to reply_to alone
    type text not null,
    body bytea not null,
    correlation_id text,
    reply_to text,
    traceparent text,
    tracestate text,
    failures integer not null default 0,
    next_attempt_at timestamptz not null,
    published_at timestamptz
);
create unique index outbox_sequence on outbox (request_id, sequence) where stored and not repeated;
-- due_events
create index outbox_due on outbox (row_id) where published_at is null;
create index outbox_unpublished_of_request on outbox (request_id, sequence) where published_at is null;
-- delete_published_events
create index outbox_published on outbox (published_at) where published_at is not null;

create table orphan_events (
    generation_id text primary key,
    status output_status not null,
    media_type text,
    url text,
    error text,
    received_at timestamptz not null
);
-- delete_old_orphans
create index orphan_events_age on orphan_events (received_at);

create table leadership (
    lane text primary key,
    holder text not null,
    term bigint not null,
    expires_at timestamptz not null,
    stream_opened_at timestamptz                      -- of the present stream; earlier attempts may have gone unheard
);

-- Rows of these tables are updated several times in a short life: keep room for it on their pages.
alter table requests set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
alter table outputs set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
alter table outbox set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
